"""Parquet: every type of column is read, left out with a reason, or refused in one line that names the column."""

import datetime
import decimal
import random
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from own_files import load_files

from spear_jax.errors import InputError

ROWS = 30
VALUES = np.random.default_rng(0).normal(size=ROWS).round(3)
IDS = [uuid.UUID(int=row).bytes for row in range(ROWS)]
BERLIN = pa.timestamp("us", tz="Europe/Berlin")

# The column, and its first values if it is one of values, else None.
COLUMNS: dict[str, tuple[pa.Array, list[float] | None]] = {
    "text as bytes": (pa.array([b"%d.5" % (row % 7) for row in range(ROWS)]), [0.5, 1.5]),
    "bytes": (pa.array([b"\xff\xfe"] * ROWS), None),
    "fixed": (pa.array([b"\xffb"] * ROWS, pa.binary(2)), None),
    "view": (pa.array([b"\xff"] * ROWS, pa.binary_view()), None),
    "UUID": (pa.ExtensionArray.from_storage(pa.uuid(), pa.array(IDS, pa.binary(16))), None),
    "list": (pa.array([[1, 2]] * ROWS), None),
    "list of bytes": (pa.array([[b"\xff"]] * ROWS), None),
    "struct": (pa.array([{"x": 1}] * ROWS), None),
    "map": (pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())), None),
    "words": (pa.array(["a", "b"] * (ROWS // 2)).dictionary_encode(), None),
    "words as bytes": (pa.array([b"\xff", b"b"] * (ROWS // 2)).dictionary_encode(), None),
    "few numbers": (pa.array([1.5, 2.5] * (ROWS // 2)).dictionary_encode(), [1.5, 2.5]),
    "decimal": (pa.array([decimal.Decimal(f"{row % 7}.25") for row in range(ROWS)]), [0.25, 1.25]),
    "duration": (pa.array([datetime.timedelta(seconds=row) for row in range(ROWS)]), None),
    "time of day": (pa.array([datetime.time(1, row) for row in range(ROWS)], pa.time32("s")), None),
    "nulls": (pa.nulls(ROWS), None),
    "half": (pa.array((np.arange(ROWS) % 7 + 0.5).astype(np.float16)), [0.5, 1.5]),
    "with nulls": (pa.array([1, None, 5] * (ROWS // 3)), [1, np.nan]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_type(tmp_path: Path, name: str) -> None:
    column, values = COLUMNS[name]
    pa.parquet.write_table(pa.table({"v": VALUES, name: column}), tmp_path / "own.parquet")
    loaded = load_files(tmp_path / "own.parquet", labels="injected")
    read = {series.column: series.values for series in loaded.series}
    np.testing.assert_array_equal(read["v"], VALUES)
    if values is None:
        assert read.keys() == {"v"} and name in " ".join(loaded.warnings)
        if name != "nulls":
            with pytest.raises(InputError, match=f"row 1, column '{name}': .* is not a number"):
                load_files(tmp_path / "own.parquet", labels="injected", value_columns=(name,))
    else:
        np.testing.assert_array_equal(read[name][:2], values)


@pytest.mark.parametrize("kind", [pa.timestamp("ms"), pa.timestamp("us"), BERLIN], ids=str)
@pytest.mark.parametrize("since", [-(2**62), -(10**14), 10**14, 2**62], ids=str)
def test_times_far_away_are_refused_in_one_line(tmp_path: Path, kind: pa.DataType, since: int) -> None:
    times = pa.array(np.arange(ROWS) + since // (1000 if since > 2**60 else 1), pa.int64()).cast(kind)
    pa.parquet.write_table(pa.table({"time": times, "v": VALUES}), tmp_path / "own.parquet")
    try:
        load_files(tmp_path / "own.parquet", labels="injected")
    except InputError as error:
        assert "own.parquet" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("number", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, number: int) -> None:
    path, rng = tmp_path / "own.parquet", random.Random(number)
    columns = {name.replace(" ", "_"): column for name, (column, _) in COLUMNS.items() if "ff" not in str(column[0])}
    times = pa.array(np.arange(ROWS) * 10**6, pa.int64()).cast(BERLIN)
    pa.parquet.write_table(pa.table({"time": times, "v": VALUES, **columns}), path)
    intact, refused = path.read_bytes(), 0
    for _ in range(number):
        content = bytearray(intact)
        for _ in range(rng.choice((1, 2, 8))):
            place = rng.randrange(len(content))
            content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            load_files(path, labels="injected")
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > number / 2
    print(f"Parquet: {number} damaged files, {refused} refused")
