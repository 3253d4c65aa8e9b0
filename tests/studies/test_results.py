"""The published pages say what the tables in results/ say, and nothing else is in the tables."""

import contextlib
import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from conftest import REPOSITORY

from spear_jax import main
from spear_jax.config import load_config, override
from spear_jax.errors import InputError
from spear_jax.studies import POOLED, make_table, read_tables, write_table
from spear_jax.studies.planning import run_name

TABLES = REPOSITORY / "results"


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    """Imports results/build.py, in the folder from which it is run."""
    spec = importlib.util.spec_from_file_location("build", TABLES / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.chdir(REPOSITORY):
        yield module


@pytest.fixture(scope="module")
def tables() -> Mapping[str, pd.DataFrame]:
    return read_tables(TABLES)


def test_the_pages_say_what_the_tables_say(build: ModuleType, tables: Mapping[str, pd.DataFrame]) -> None:
    pages = build.build(tables)
    assert {path.name for path in pages} > {"RESULTS.md", "index.md", "methods.md", "transfer.md"}
    for path, text in pages.items():
        assert path.read_text() == text, f"{path}: run python results/build.py"
        assert "Not written yet" not in text
        columns = max(line.count("|") for line in text.splitlines() if line.startswith("| ---"))
        assert columns <= 9, f"{path}: a table of more than eight columns"
    readme = re.findall(
        r"^\| [^|]* ((?:\| [.\d]+ / [.\d]+ / [.\d]+ ){3}\|)$", (REPOSITORY / "README.md").read_text(), re.M
    )
    assert len(readme) > 4
    assert all(numbers in pages[REPOSITORY / "RESULTS.md"] for numbers in readme)
    assert {path.stem for path in build.PAGES.glob("*.png")} == tables.keys()


def test_every_run_is_of_its_study(build: ModuleType, tables: Mapping[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        planned = {run.name: run.command for run in build.load_planned(table.attrs["study"])[1]}
        runs = table.drop_duplicates("run").set_index("run")
        assert runs["command"].to_dict().items() <= planned.items()
        measured = runs[runs["error"] == ""]
        assert (measured["random_weights"] == measured["backbone"].str.startswith("random:")).all(), name
        splits = table[(table["error"] == "") & (table["split"] != POOLED)]
        assert set(splits.groupby("run").size()) <= {15, 18}  # three splits; with head_only or not


@pytest.mark.usefixtures("build")
def test_a_command_is_that_of_its_run(tables: Mapping[str, pd.DataFrame]) -> None:
    for name in ("methods-nasa", "prompt_length-mimic_iv"):
        for run, command in tables[name].drop_duplicates("run").set_index("run")["command"].items():
            flags = main.parse_flags([*shlex.split(command)[3:], "--workdir=x"])
            config = load_config(flags.config)
            for field, text in flags.overrides.items():
                override(config, field, text)
            assert run_name(config) == run


def test_tables_of_other_defaults_are_refused(build: ModuleType, tables: Mapping[str, pd.DataFrame]) -> None:
    table = tables["bins-nasa-time"].copy()
    table.attrs["defaults"] |= {"train.epochs": "41", "a.field.of.the.past": "1"}
    with pytest.raises(
        InputError, match=r"bins\.parquet: measured with other defaults \(train\.epochs was 41, is 40\)"
    ):
        build.check_defaults({"bins": table})
    build.check_defaults(tables)


def test_measured_runs_are_added_and_failed_ones_replace_nothing(
    build: ModuleType, tables: Mapping[str, pd.DataFrame], tmp_path: Path
) -> None:
    source = tables["bins-nasa-time"]
    study, planned = build.load_planned(source.attrs["study"])
    first, second, third, fourth, *_ = (run.name for run in planned)
    successful = source[source["run"].isin([first, second, third])]
    failed = {"run": fourth, "seed": 0, "split": "", "control": "", "error": "exit code 1: no space", "command": "x"}
    elsewhere = {**failed, "run": "nasa-spear-of-another-study"}
    (tmp_path / "kept").mkdir()
    write_table(
        tmp_path / f"{study.name}.parquet", make_table([*successful.to_dict("records"), failed, elsewhere], study.path)
    )
    build.add(tmp_path, tmp_path / "kept")
    kept = read_tables(tmp_path / "kept")[study.name]
    assert list(kept["run"].unique()) == [first, second, third, fourth]
    text = build.page("configs/studies/bins.py", [kept], "Some.")
    assert f"- failed: 100, seed 0 (`{fourth}`): exit code 1: no space" in text
    assert "| 50 | 3 |" in text and "| 100 | 0 of 3 |" in text
    assert "- not measured yet: 100 (seed 1, 2); 200; 500" in text
    again = [{**failed, "run": first}, *source[source["run"] == fourth].to_dict("records")]
    write_table(tmp_path / f"{study.name}.parquet", make_table(again, study.path))
    build.add(tmp_path, tmp_path / "kept")
    kept = read_tables(tmp_path / "kept")[study.name]
    assert (kept["error"] == "").all() and kept["run"].nunique() == 4
    pd.testing.assert_frame_equal(kept[kept["run"] == first], successful[successful["run"] == first], check_dtype=False)
