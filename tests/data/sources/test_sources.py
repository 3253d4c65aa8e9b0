"""Every data set runs through the same path: preview, training, and the contract's files."""

import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY, Spear, check_log, check_refusal, check_scores, command, quick, results, write_nab

from spear_jax.config import default_config, validate
from spear_jax.data.sources.catalog import DATASETS
from spear_jax.errors import InputError
from spear_jax.evaluation.nab import PROFILES

FILES = {f"realAWSCloudwatch/f{i}.csv": (320, [(100 + 9 * i, 110 + 9 * i), (220, 240)]) for i in range(6)}
EXTRA = {"realTweets/t.csv": (200, [(100, 120)]), "artificialNoAnomaly/a.csv": (200, [])}


@pytest.fixture
def nab(tmp_path: Path) -> Path:
    return write_nab(tmp_path / "nab", FILES | EXTRA)


def test_nab_and_its_own_score(spear: Spear, nab: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = spear(*command("nab:debug", TINY | {"data.dir": nab, "head.init": "normal"}, workdir=run))
    assert outcome.code == 0, outcome.err
    content = results(run)
    tables = check_scores(run)
    check_log(run, epochs=1)
    assert content["dataset"] == "nab"
    assert {table["timestamp"].notna().all() for table in tables.values()} == {True}
    assert str(tables["test"]["timestamp"].min()).startswith("2014-02-14 14:30")
    assert content["nab_score"].keys() == {"spear", *content["controls"]}
    for scores in content["nab_score"].values():
        assert scores.keys() == PROFILES.keys()
        assert all(score["test"] <= 100 for score in scores.values())
    assert all(score["test"] == 0 for score in content["nab_score"]["always_normal"].values())
    assert "NAB score, test" in outcome.out


@pytest.mark.parametrize(
    "fields",
    [
        {"data.split": "time"},
        pytest.param({"data.nab.labels": "points"}, marks=pytest.mark.slow),
        pytest.param({"data.labels": "rules"}, marks=pytest.mark.slow),
    ],
)
def test_nab_score_is_of_whole_files_and_windows_alone(spear: Spear, nab: Path, tmp_path: Path, fields: dict) -> None:
    outcome = spear(*command("nab:debug", TINY | {"data.dir": nab, "data.gap": 0} | fields, workdir=tmp_path / "run"))
    assert outcome.code == 0, outcome.err
    assert "nab_score" not in results(tmp_path / "run")
    assert "NAB score" not in outcome.out


def test_all_of_nab(spear: Spear, nab: Path) -> None:
    shown = spear(*command("nab:all", {"data.dir": nab}, mode="preview"))
    assert shown.code == 0, shown.err
    assert "nab: 8 series, 2,320 steps" in shown.out
    some = spear(*command("nab", {"data.dir": nab, "data.nab.files": "f1,f2,f3"}, mode="preview"))
    assert "nab: 3 series, 960 steps" in some.out


def test_preview_writes_nothing_and_shows_what_will_be_trained(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    shown = spear(*command("nasa:debug", TINY | {"data.dir": nasa, "data.split": "time"}, mode="preview"))
    assert shown.code == 0, shown.err
    assert (
        "nasa: 6 series, 960 steps (160 to 160, median 160), 0 missing, 258 anomalous (base rate 0.2687)" in shown.out
    )
    assert "A-0" in shown.out
    for split in ("train", "validation", "test"):
        assert f"{split}: 6 series" in shown.out
    ruled = spear(*command("nasa:debug", TINY | {"data.dir": nasa, "data.labels": "rules"}, mode="preview"))
    assert "rules fired in" in ruled.out
    assert sorted(tmp_path.rglob("*")) == before


def test_preview_counts_steps_as_the_results_do(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    fields = TINY | {"data.dir": nasa, "data.split": "time", "data.stride": 3}  # windows overlap
    shown = spear(*command("nasa:debug", fields, mode="preview"))
    assert spear(*command("nasa:debug", fields, workdir=tmp_path / "run")).code == 0
    for split, sizes in results(tmp_path / "run")["splits"].items():
        rate = sizes["anomalous_steps"] / sizes["steps"]
        assert f"{split}: {sizes['series']} series, {sizes['windows']} windows of" in shown.out
        assert f", {sizes['steps']:,} steps, base rate {rate:.3f}\n" in shown.out


def test_a_detector_is_tried_on_other_data(spear: Spear, nab: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    assert spear(*quick(run)).code == 0
    fields = {"data.dir": nab, "data.stride": 32}
    outcome = spear(*command("nab:debug", fields, mode="evaluate", detector=run, workdir=other))
    assert outcome.code == 0, outcome.err
    content = results(other)
    assert content["dataset"] == "nab"
    assert content["threshold"]["from"] == "synthetic"
    check_scores(other)


def test_labels_that_a_source_does_not_have(spear: Spear, nab: Path, tmp_path: Path) -> None:
    fields = {"data.dir": nab, "data.labels": "column"}
    check_refusal(
        spear(*command("nab:debug", fields, workdir=tmp_path / "run")),
        "config.data.labels='column' only applies to config.data.name='files'; with 'nab' it must be",
    )
    check_refusal(
        spear(*command("files:debug", {"data.dir": nab, "data.labels": "recorded"}, workdir=tmp_path / "run")),
        "config.data.labels='recorded' must be one of column, intervals, rules, injected",
    )
    check_refusal(
        spear(*command("nab:debug", {"data.dir": nab, "data.combine": "max"}, workdir=tmp_path / "run")),
        "config.data.combine='max' only applies to config.data.name='files'",
    )
    check_refusal(spear("--mode=preview"), "--mode=preview needs --config")


@pytest.mark.figures
def test_figures_carry_the_warnings(spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*quick(tmp_path / "run", {"data.split": "random"}))
    assert outcome.code == 0, outcome.err
    picture = (tmp_path / "run" / "figures" / "test_series.png").read_bytes()
    assert b"windows of one series are in several splits" in picture
    assert len(pd.read_parquet(tmp_path / "run" / "per_series.parquet"))


def test_a_config_allows_every_data_set_that_can_be_loaded() -> None:
    config = default_config()
    config.data.name = "unknown"
    with pytest.raises(InputError) as error:
        validate(config)
    words = set(re.findall(r"\w+", str(error.value)))
    assert words & DATASETS.keys() == {name for name, entry in DATASETS.items() if entry.load}
