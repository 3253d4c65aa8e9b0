"""The signs in numbers, sentinels, and tiny changes: the meant value, or a word, or a refusal."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from own_files import load_files, load_text

from spear_jax.data.scaler import Scaler
from spear_jax.data.series import Series
from spear_jax.data.tables.extremes import find_extremes, fullest_part
from spear_jax.data.windows import cut_windows
from spear_jax.errors import InputError


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("a;b\n998;1\n1.002;2\n", "1.002 or 1002"),
        ("a\tb\n936\tx\n1.002\ty\n", "1.002 or 1002"),
        ("a;b\n936;1\n1,002;2\n", "1.002 or 1002"),
        ('a,b\n7,1\n"1,250",2\n', "1.250 or 1250"),
        ("a,b\n936,1\n1.250,2\n", "1.250 or 1250"),
        ('a,b,c\n1.250,"1,250",x\n', "1.250 or 1250"),
    ],
)
def test_numbers_that_may_be_thousands_are_refused_until_the_sign_is_named(
    tmp_path: Path, text: str, readings: str
) -> None:
    path = tmp_path / "own.csv"
    with pytest.raises(InputError, match=readings) as raised:
        load_text(path, text)
    assert "data.decimal_sign" in str(raised.value)
    frame = {sign: load_text(path, text, decimal=sign, value_columns=("a",)).series[0].values for sign in ".,"}
    assert frame["."].tolist() != frame[","].tolist()


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        (["998", "1.002", "12,5"], 1002),
        (["0,5", "1.002"], 1002),
        (["1250", "1.250"], 1.25),  # thousands would have a sign
        (["1.002.003", "1.002"], 1002),
        (["0.125", "1.002"], 1.002),
    ],
)
def test_one_clear_number_settles_the_sign(tmp_path: Path, cells: list[str], value: float) -> None:
    series, _ = load_text(tmp_path / "own.csv", "a;b\n" + "".join(f"{cell};1\n" for cell in cells)).series
    place = next(i for i, cell in enumerate(cells) if cell in ("1.002", "1.250"))
    assert series.values[place] == value


@pytest.mark.parametrize("cells", [["998", "5,017"], ["12", "5.017"]])
def test_text_in_parquet_and_late_rows_are_as_doubtful(tmp_path: Path, cells: list[str]) -> None:
    frame = pd.DataFrame({"a": [*cells, "7"], "b": [0.5, 1.5, 2.5]})
    frame.to_parquet(tmp_path / "own.parquet")
    with pytest.raises(InputError, match=r"5\.017 or 5017"):
        load_files(tmp_path / "own.parquet", labels="injected")
    with gzip.open(tmp_path / "late.csv.gz", "wt") as file:
        file.write("a,b\n" + f"{cells[0]},1\n" * 20_000 + f'"{cells[1]}",2\n')
    with pytest.raises(InputError, match=r"5\.017 or 5017"):
        load_files(tmp_path / "late.csv.gz", labels="injected")


@pytest.mark.parametrize("sentinels", [(-9999.0,), (65535.0,), (3.4e38,), (-9999.0, 9999.0)])
def test_values_that_stretch_the_range_are_named(tmp_path: Path, sentinels: tuple[float, ...]) -> None:
    values = np.sin(np.arange(400) / 5) * 20 + 30
    values[7 : 7 + 40 * len(sentinels) : 40] = sentinels
    pd.DataFrame({"a": values}).to_csv(tmp_path / "own.csv", index=False)
    loaded = load_files(tmp_path / "own.csv", labels="injected")
    (remark,) = (warning for warning in loaded.warnings if "stretch" in warning)
    assert find_extremes(values) == sorted(sentinels)
    assert all(f"{value:g} (1)" in remark for value in sentinels)
    field = remark.rpartition("data.missing_values=")[2]
    missing = tuple(map(float, field.split(",")))
    cleaned = load_files(tmp_path / "own.csv", labels="injected", missing=missing)
    assert np.isnan(cleaned.series[0].values).sum() == len(sentinels)
    assert not any("stretch" in warning for warning in cleaned.warnings)


@pytest.mark.parametrize(
    "values",
    [
        np.sin(np.arange(400) / 5),
        np.arange(400) % 2,
        np.full(400, 3.0),
        np.random.default_rng(0).normal(size=400),
        (np.arange(400) % 100 > 95) * 50.0,
    ],
)
def test_ordinary_values_stretch_nothing(values: Any) -> None:
    assert find_extremes(values.astype(float)) == []


@pytest.mark.parametrize(("level", "size"), [(1e6, 1e-4), (1e9, 0.1), (-5e5, 1e-5)])
def test_tiny_changes_use_all_bins(level: float, size: float) -> None:
    values = level + size * np.sin(np.arange(400) / 7)
    series = Series("a", values, np.zeros(400, bool))
    scaler = Scaler.fit("train", [series], [series], reference_steps=400, margin=0.0)
    scaled = scaler(cut_windows([series], ["a"], 50, 50))
    assert len(np.unique((scaled * 100).astype(int))) > 40
    assert fullest_part(scaled.reshape(-1)) < 0.2
