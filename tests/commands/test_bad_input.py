"""Bad input ends in one line, before anything is written."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hub_server
import numpy as np
import pytest
import safetensors.numpy
from conftest import (
    CONFIGS,
    Run,
    Spear,
    check_log,
    check_refusal,
    check_scores,
    command,
    contents,
    evaluate,
    plain_environment,
    quick,
    quick_on,
    refuse_untouched,
    results,
    truncate,
)

# --- Fields, config files and data ---------------------------------------

FIELDS: list[tuple[dict[str, object], list[str]]] = [
    ({"train.epoch": 3}, ["--config.train.epoch does not exist", "did you mean train.epochs"]),
    ({"train.epochs": "many"}, ["--config.train.epochs=many", "a whole number"]),
    ({"train.prompt_learning_rate": "nan"}, ["train.prompt_learning_rate=nan", "finite"]),
    ({"quantizer.bins": 0}, ["config.quantizer.bins=0", "must be 2 to 10000"]),
    ({"data.window": 1}, ["config.data.window=1", "must be at least 2, or 0"]),
    ({"data.fractions": "(1,0,0)"}, ["config.data.fractions=(1, 0, 0)", "sum to 1"]),
    ({"data.split": "shuffle"}, ["config.data.split='shuffle'", "series, time, random"]),
    ({"prompt.init": "zeros"}, ["config.prompt.init='zeros'", "vocabulary, words"]),
]


@pytest.mark.parametrize(("fields", "parts"), FIELDS, ids=lambda x: str(x)[:40])
def test_bad_field(spear: Spear, finished: Run, tmp_path: Path, fields: dict[str, object], parts: list[str]) -> None:
    check_refusal(spear(*quick(tmp_path / "run", fields)), *parts)
    assert not (tmp_path / "run").exists()
    before = contents(finished.workdir)
    check_refusal(spear(*quick(finished.workdir, fields)), *parts)
    assert contents(finished.workdir) == before


LATER: list[tuple[dict[str, object], list[str]]] = [
    ({"prompt.length": 511}, ["config.prompt.length=511", "at most 510", "512 positions"]),
    (
        {"data.window": 509, "data.synthetic.length": 600},
        ["config.data.window=509", "at most 508", "512 positions, of which the prompt takes 4"],
    ),
    ({"data.limit_series": 1}, ["nothing is left for", "1 series", "use more series"]),
    (
        {"embedding.kind": "consecutive", "embedding.first_row": 950},
        ["embedding.first_row=950", "quantizer.bins=100", "1000 rows"],
    ),
    ({"prompt.init": "/no/such.npy"}, ["prompt.init='/no/such.npy'", "No such file"]),
    ({"backbone.name": "/no/such/folder"}, ["'/no/such/folder'", "neither an existing folder"]),
    ({"backbone.name": "random:huge"}, ["backbone.name 'random:huge': 'huge' is neither", "'random:tiny'"]),
]


@pytest.mark.parametrize(("fields", "parts"), LATER, ids=lambda x: str(x)[:40])
def test_field_that_does_not_fit_data_or_backbone(
    spear: Spear, tmp_path: Path, fields: dict[str, object], parts: list[str]
) -> None:
    refuse_untouched(spear, quick(tmp_path / "run", fields), *parts)


def test_prompt_without_words(spear: Spear, tmp_path: Path) -> None:
    fields = {"prompt.init": "words", "prompt.words": ""}
    refuse_untouched(spear, quick(tmp_path / "run", fields), "prompt.words")


PROMPTS: dict[str, Callable[[Path], object]] = {
    "another shape": lambda file: np.save(file, np.zeros((3, 32))),
    "not finite": lambda file: np.save(file, np.full((4, 32), np.nan)),
    "text": lambda file: file.write_text("prompt"),
    "an object": lambda file: np.save(file, np.array([None])),
    "truncated": lambda file: (np.save(file, np.zeros((4, 32))), os.truncate(file, 200)),
    "a folder": lambda file: file.mkdir(),
    "empty": lambda file: file.touch(),
    "words": lambda file: np.save(file, np.full((4, 32), "a")),
}


@pytest.mark.parametrize(
    "case",
    list(PROMPTS),
)
def test_bad_prompt_file(spear: Spear, tmp_path: Path, case: str) -> None:
    file = tmp_path / "prompt.npy"
    PROMPTS[case](file)
    refuse_untouched(spear, quick(tmp_path / "run", {"prompt.init": file}), f"prompt.init='{file}'")


CONFIG_FILES: dict[str, tuple[str | None, list[str]]] = {
    "none": (None, ["no such file", "looked for"]),
    "syntax": ("def get_config(:", ["SyntaxError", "line 1"]),
    "empty": ("", ["get_config"]),
    "binary": ("x = '\0'", ["null bytes"]),
    "no argument taken": ("def get_config(): pass", ["TypeError", "get_config()"]),
    "dict": ("def get_config(arg): return {'seed': 1}", ["a ConfigDict, not dict"]),
    "nothing": ("def get_config(arg): pass", ["a ConfigDict, not NoneType"]),
    "import": ("import no_such_package", ["ModuleNotFoundError", "no_such_package"]),
    "lines": ("def get_config(arg): raise ValueError('two\\nlines')", ["ValueError: two lines"]),
    "exit": ("raise SystemExit(3)", ["SystemExit: 3"]),
    "other fields": (
        "from ml_collections import ConfigDict\ndef get_config(arg): return ConfigDict({'a': 1})",
        ["config.a does not exist"],
    ),
    "other value": (
        "from spear_jax.config import default_config\n"
        "def get_config(arg):\n    c = default_config()\n    c.quantizer.bins = 0\n    return c",
        ["config.quantizer.bins=0", "must be 2 to 10000"],
    ),
}


@pytest.mark.parametrize("case", CONFIG_FILES)
def test_bad_config_file(spear: Spear, finished: Run, tmp_path: Path, case: str) -> None:
    text, parts = CONFIG_FILES[case]
    file = tmp_path / "experiment.py"
    if text is not None:
        file.write_text(text)
    before = contents(finished.workdir)
    for workdir in (tmp_path / "run", finished.workdir):
        outcome = spear(f"--config={file}", f"--workdir={workdir}")
        check_refusal(outcome, *parts, *([] if "does not exist" in str(parts) or "bins" in str(parts) else [file]))
    assert not (tmp_path / "run").exists()
    assert contents(finished.workdir) == before


def test_unknown_config_argument(spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*command("nasa:foo,debug", workdir=tmp_path / "run"))
    check_refusal(outcome, "nasa.py:foo,debug", "'foo' does not exist", "minilm, bert,", "gemma", "debug")
    assert not (tmp_path / "run").exists()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def truncated_zip(root: Path) -> None:
    archive = Path(shutil.make_archive(str(root / "data"), "zip", root))
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")
    truncate(archive)


DATA: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (shutil.rmtree, ["nasa: no such folder", "data/train, data/test"]),
    "truncated npy": (
        lambda root: truncate(root / "test" / "A-1.npy"),
        ["test/A-1.npy: not a complete .npy file"],
    ),
    "truncated zip": (truncated_zip, ["data.zip: not a complete zip file"]),
    "label beyond the array": (
        lambda root: edit(root / "labeled_anomalies.csv", "[140, 150]", "[140, 160]"),
        ["labeled_anomalies.csv: channel 'A-0'", "[140, 160] does not fit 160 steps", "159"],
    ),
    "no column": (
        lambda root: edit(root / "labeled_anomalies.csv", "anomaly_sequences", "ranges"),
        ["labeled_anomalies.csv: no column 'anomaly_sequences'", "found chan_id"],
    ),
    "no labels": (
        lambda root: (root / "labeled_anomalies.csv").unlink(),
        ["labeled_anomalies.csv: no such file"],
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data(spear: Spear, nasa: Path, tmp_path: Path, case: str) -> None:
    damage, parts = DATA[case]
    damage(nasa)
    refuse_untouched(spear, quick_on(nasa, tmp_path / "run"), nasa, *parts)


def test_missing_column(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    arguments = quick_on(nasa, tmp_path / "run", {"data.nasa.column": 3})
    refuse_untouched(spear, arguments, "config.data.nasa.column=3", "columns 0 to 2")


# --- Weights ------------------------------------------------------------


def without(file: Path, name: str) -> None:
    tensors = safetensors.numpy.load_file(file)
    del tensors[name]
    safetensors.numpy.save_file(tensors, file)


WEIGHTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "truncated": (
        lambda folder: truncate(folder / "model.safetensors"),
        ["model.safetensors: truncated or not a safetensors file", "file not fully covered"],
    ),
    "missing tensor": (
        lambda folder: without(folder / "model.safetensors", "encoder.layer.0.output.dense.bias"),
        ["1 missing: encoder.layer.0.output.dense.bias"],
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        ["no model.safetensors"],
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["has no config.json"]),
    "no tokenizer": (lambda folder: (folder / "vocab.txt").unlink(), ["no tokenizer"]),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_bad_weights(spear: Spear, bert: Path, tmp_path: Path, case: str) -> None:
    damage, parts = WEIGHTS[case]
    damage(bert)
    refuse_untouched(spear, quick(tmp_path / "run", {"backbone.name": bert}), bert, *parts)


def test_window_must_leave_room_in_the_positions_of_a_local_model(spear: Spear, bert: Path, tmp_path: Path) -> None:
    fields = {"backbone.name": bert, "data.window": 61}
    arguments = quick(tmp_path / "run", fields)
    refuse_untouched(spear, arguments, "data.window=61", "64 positions", "at most 60")


def test_local_model_is_pretrained_and_a_detector_is_tied_to_its_weights(
    spear: Spear, bert: Path, tmp_path: Path
) -> None:
    outcome = spear(*quick(tmp_path / "run", {"backbone.name": bert}))
    assert (outcome.code, outcome.err) == (0, "")
    assert "RANDOM" not in outcome.out
    backbone = results(tmp_path / "run")["backbone"]
    assert (backbone["pretrained"], backbone["revision"]) == (True, "local")

    tensors = safetensors.numpy.load_file(bert / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] += 1
    safetensors.numpy.save_file(tensors, bert / "model.safetensors")
    outcome = spear(*evaluate(tmp_path / "run", tmp_path / "other"))
    check_refusal(outcome, "trained with", backbone["sha256"], bert)
    assert not (tmp_path / "other").exists()


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty cache, and a Hub at a port where nobody listens."""
    hub_server.leave(tmp_path, monkeypatch)
    return hub_server.NOWHERE


def test_unreachable_hub(spear: Spear, no_hub: str, tmp_path: Path) -> None:
    refuse_untouched(
        spear,
        quick(tmp_path / "run", {"backbone.name": "some/model"}),
        "'some/model' was not found",
        f"the cache {tmp_path / 'hub'}",
        f"the Hub {no_hub}",
        "a local folder with config.json, tokenizer.json and model.safetensors is allowed too",
    )


# --- The folder of a run ------------------------------------------------


def test_workdir_that_is_a_file(spear: Spear, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    check_refusal(spear(*quick(tmp_path / "run")), f"--workdir={tmp_path / 'run'}", "is a file")
    assert (tmp_path / "run").read_text() == "mine"


def test_workdir_of_an_evaluation_that_is_a_file(spear: Spear, finished: Run, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    outcome = spear(*evaluate(finished.workdir, tmp_path / "run"))
    check_refusal(outcome, f"--workdir={tmp_path / 'run'}", "is a file")
    assert (tmp_path / "run").read_text() == "mine"


def test_workdir_of_no_run(spear: Spear, finished: Run, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    before = contents(tmp_path)
    parts = (f"--workdir={tmp_path}", "is not empty", "new folder")
    check_refusal(spear(*quick(tmp_path)), *parts)
    check_refusal(spear(*evaluate(finished.workdir, tmp_path)), *parts)
    assert contents(tmp_path) == before


def test_workdir_with_a_damaged_config(spear: Spear, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"seed": 0,')
    before = contents(tmp_path)
    check_refusal(spear(*quick(tmp_path)), tmp_path / "config.json", "cannot be read as JSON")
    assert contents(tmp_path) == before


def test_workdir_that_cannot_be_created(spear: Spear, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = spear(*quick(tmp_path / "file" / "run"))
    assert outcome.code in (1, 2)
    assert outcome.err.count("\n") == 1
    assert "Not a directory" in outcome.err and str(tmp_path / "file") in outcome.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts, or grows, a disk of a given size; skips where one may not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = False

    def mount(size: str) -> Path:
        nonlocal mounted
        options = f"size={size}" + (",remount" if mounted else "")
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("a full disk needs a tmpfs, and mounting one is not allowed here")
        mounted = True
        return disk

    yield mount
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


# Lines that tensorstore still writes after Orbax has failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", ["16k", "100k"])
def test_full_disk_is_reported_and_the_same_command_resumes(
    spear: Spear, finished: Run, small_disk: Callable[[str], Path], size: str
) -> None:
    run = small_disk(size) / "run"
    arguments = quick(run, {"controls.head_only": "true"})
    outcome = spear(*arguments)
    assert outcome.code == 1
    (line,) = [x for x in outcome.err.splitlines() if x.startswith("stopped: ")]
    assert "No space left on device" in line and str(run) in line and "the same command resumes" in line
    assert not (run / "results.json").exists()

    small_disk("64m")
    outcome = spear(*arguments)
    assert outcome.code == 0, outcome.err
    assert results(run)["test"] == results(finished.workdir)["test"]
    check_log(run, epochs=1)
    check_scores(run)
    assert not list(run.rglob("*.tmp"))


def test_a_cluster_of_no_number_of_processes(spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "abc")
    refuse_untouched(spear, quick(tmp_path / "run"), "the environment variable SLURM_NTASKS=abc must be a whole number")


COMMANDS_WITHOUT_A_DEVICE = """
import sys
import numpy as np
from spear_jax import SpearDetector, errors, main
for mode in ("memory", "preview", "train"):
    main.main([f"--mode={mode}", f"--config={sys.argv[1]}", f"--workdir={sys.argv[2]}"])
try:
    SpearDetector("random:tiny", window=16).fit(np.arange(200.0) % 7, np.arange(200) % 20 > 17)
except errors.InputError as error:
    print("error: fit:", error, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    """In a process of its own, since JAX looks for devices once."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS_WITHOUT_A_DEVICE, f"{CONFIGS}/quickstart.py:debug", str(tmp_path / "run")],
        env={**plain_environment(), "JAX_PLATFORMS": "nonsense"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode and not (tmp_path / "run").exists()
    lines = done.stderr.splitlines()
    assert len(lines) == 4, done.stderr
    for line in lines:
        assert line.startswith("error: ") and "JAX_PLATFORMS=nonsense: JAX finds no such device here" in line
        assert "unset it" in line
