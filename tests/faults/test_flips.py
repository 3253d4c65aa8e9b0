"""What a run wrote is read as it was written, or refused in one line: flipped bits, and JSON that is something else."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import Run, Spear
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.detector.artifact import Detector
from spear_jax.errors import InputError
from spear_jax.evaluation.results import read_results, read_table
from spear_jax.storage import parse_json
from spear_jax.studies import make_table, result_rows, write_table

pytestmark = pytest.mark.one_python


def read_detector(run: Path) -> Any:
    detector = Detector.load(epath.Path(run))
    return detector.trainable, detector.threshold, detector.ranges, detector.config.to_dict()


READERS: dict[str, Callable[[Path], Any]] = {
    "results.json": lambda run: read_results(run / "results.json"),
    "per_series.parquet": lambda run: read_table(run, "per_series.parquet").to_dict(),
    "scores/test.parquet": lambda run: read_table(run, "scores/test.parquet").to_dict(),
    "detector/detector.json": read_detector,
    "detector/detector.safetensors": read_detector,
}


@pytest.mark.parametrize("flips", [8, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_is_seen_or_harmless(finished: Run, tmp_path: Path, name: str, flips: int) -> None:
    run, rng, refused = tmp_path / "run", random.Random(0), 0
    shutil.copytree(finished.workdir, run, ignore=shutil.ignore_patterns("checkpoints"))
    intact, expected = (run / name).read_bytes(), READERS[name](run)
    for _ in range(flips):
        content = bytearray(intact)
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        (run / name).write_bytes(content)
        try:
            found = READERS[name](run)
        except InputError as error:
            assert str(run) in str(error) and "\n" not in str(error)
            refused += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert refused > flips / 2
    print(f"{name}: {flips} flips, {refused} refused")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50)
@given(content=JSON | st.binary(max_size=50) | st.just("[" * 10**5) | st.just('{"a":' * 500 + "1" + "}" * 500))
def test_json_is_an_object_or_refused_in_one_line(content: Any) -> None:
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    try:
        assert isinstance(parse_json(text, "run/config.json"), dict)
    except InputError as error:
        assert str(error).startswith("run/config.json") and "\n" not in str(error)


def test_runs_with_bad_results_are_left_out_with_a_line(spear: Spear, finished: Run, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    shutil.copy(finished.workdir / "results.json", tmp_path / "good")
    good = json.loads((finished.workdir / "results.json").read_text())
    del good["sha256"]  # as an earlier version wrote it
    bad = {
        "cut": json.dumps(good)[:100],
        "empty": "",
        "binary": "\x00\x01",
        "deep": "[" * 10**5,
        "list": "[]",
        "other": json.dumps({"results": [1]}),
        "missing": json.dumps({key: value for key, value in good.items() if key != "splits"}),
        "kind": json.dumps(good | {"controls": 3}),
        "inside": json.dumps(good | {"controls": {"random_scores": 3}}),
        "edited": json.dumps(good | {"sha256": "0"}),
        "seed": json.dumps(good | {"seed": "a"}),
        "command": json.dumps(good | {"command": "'"}),
        "method": json.dumps(good | {"method": "unknown"}),
        "control": json.dumps(good | {"controls": {"unknown": good["controls"]["random_scores"]}}),
        "warnings": json.dumps(good | {"warnings": [1]}),
        "metrics": json.dumps(good | {"test": dict.fromkeys(good["test"], "a")}),
        "text": json.dumps(good | {"test": [1]}),
    }
    for name, text in bad.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(text)
    (tmp_path / "bytes").mkdir()  # of a name that is not UTF-8
    other = good | {"command": f"{good['command']} --config.data.dir=K\udcfchlung.csv"}
    (tmp_path / "bytes" / "results.json").write_text(json.dumps(other))
    write_table(tmp_path / "study.parquet", make_table(result_rows("run", good), "study.py"))
    whole = (tmp_path / "study.parquet").read_bytes()
    tables = {"cut": whole[:-9], "flipped": whole[:200] + b"\0" * 99 + whole[299:], "empty": b"", "text": b"a,b\n"}
    for name, content in tables.items():
        (tmp_path / f"{name}.parquet").write_bytes(content)
    for name in ("seed", "command", "split"):
        table = make_table(result_rows("run", good), "study.py")
        table[name] = [[1]] * len(table)
        write_table(tmp_path / f"no_{name}.parquet", table)
        tables[f"no_{name}"] = b""
    outcome = spear("--mode=compare", f"--workdir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert "K\\udcfchlung" in outcome.out
    lines = outcome.err.splitlines()
    names = [*(f"{name}/results.json" for name in sorted(bad)), *(f"{name}.parquet" for name in sorted(tables))]
    assert len(lines) == len(names), lines
    for line, name in zip(lines, names, strict=True):
        assert line.startswith("left out: ") and f"{tmp_path / name}" in line, line
