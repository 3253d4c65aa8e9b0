"""Helpers and fixtures shared by several test files: running the program in place, tiny data sets, finished runs."""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

# Tests run side by side, and OpenMP's threads wait for one another by spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most of the time goes into compiling, and a third of that into optimizing what runs once. XLA_FLAGS= compiles as users
# have it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# All processes of a test run share what they compiled, those that pytest-xdist and the tests start included.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="spear_jax_compiled_")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# They share the bytecode of modules too, where Python is told to write none: without it each process takes 10 s instead
# of 3 to import JAX and the rest.
if sys.dont_write_bytecode:
    bytecode = tempfile.mkdtemp(prefix="spear_jax_bytecode_")
    atexit.register(shutil.rmtree, bytecode, ignore_errors=True)
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = bytecode
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from beartype import BeartypeConf, FrozenDict, beartype
from matplotlib.figure import Figure
from PIL import Image

# NumPy's numbers pass as Python's, and whole numbers as floats.
TYPES = BeartypeConf(hint_overrides=FrozenDict({int: int | np.integer, float: float | int | np.number}))


checked: dict[tuple[object, ...], Callable[..., Any]] = {}


def check_types(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that raises if an argument or its result is not what the annotation says."""
    if function.__qualname__ == "SpearDetector.__init__":  # scikit-learn wants any value taken here, and refused in fit
        return function
    # A check is made when it is first needed, and only once for a nested function, which is defined anew with each call
    # of the outer one: making checks takes longer than running them.
    key = (function.__module__, function.__qualname__, function.__code__.co_varnames)

    def check(*arguments: Any, **named: Any) -> Any:
        if key not in checked:
            # Self means nothing to beartype outside a class, and jaxtyping passes it one method at a time.
            hints = {name: Any if hint is Self else hint for name, hint in function.__annotations__.items()}
            function.__annotations__ = hints
            checked[key] = beartype(function, conf=TYPES)
        return checked[key](*arguments, **named)

    return check


# Every annotation of the package is checked when its function is called, shapes of arrays included. This must come
# before anything of it is imported. Processes that tests start go unchecked.
jaxtyping.install_import_hook("spear_jax", "conftest.check_types")

from spear_jax.backbones import choose_dtype
from spear_jax.config import load_valid_config, to_json
from spear_jax.config.fields import FIELDS
from spear_jax.data.sources import prepared
from spear_jax.main import main, parse_flags

# Drawing takes more than half of a small run's time. Runs in this process write empty images, unless the test has the
# mark 'figures'.
draw_figure = Figure.savefig
figures_drawn = False


def save_figure(self: Figure, file: Any, **options: Any) -> None:
    """Draws a figure, or writes an empty image in its place."""
    if figures_drawn:
        draw_figure(self, file, **options)
    else:
        Image.new("L", (1, 1)).save(file, format="png")


Figure.savefig = save_figure  # type: ignore[method-assign]


# Files that take longest. They come first, so that no process is left alone with one in the end.
LONGEST = (
    "test_resume",
    "test_devices",
    "test_processes",
    "test_notebook",
    "test_studies",
    "test_detector",
    "test_live",
    "test_views_and_patches",
    "test_decoder",
    "test_trained",
    "test_variable_length",
    "test_zero_shot_api",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the files that take longest to the front."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draws the figures of tests that are about them."""
    global figures_drawn
    figures_drawn = item.get_closest_marker("figures") is not None


SPLITS = ("train", "validation", "test")
REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"

# One shape of batch for all runs, so that they share what XLA compiled.
TINY = {
    "backbone.name": "random:tiny",
    "controls.head_only": "false",
    "data.fractions": "(0.6, 0.2, 0.2)",
    "data.gap": "0",
    "data.stride": "32",
    "data.window": "32",
    "embedding.kind": "ordinal",
    "prompt.length": "4",
    "quantizer.bins": "100",
    "quantizer.patch": "1",
    "quantizer.views": "value",
    "score.batch_size": "8",
    "score.distance_weight": "0",
    "score.smoothing": "1",
    "train.batch_size": "8",
    "train.epochs": "1",
    "train.prompt_learning_rate": "0.01",
    "train.steps_per_call": "4",
}
SYNTHETIC = TINY | {
    "data.synthetic.series": "6",
    "data.synthetic.length": "256",
    "data.synthetic.past": "64",
}

Channels: TypeAlias = Mapping[str, Sequence[tuple[int, int]]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


Spear: TypeAlias = Callable[..., Outcome]


def plain_environment() -> dict[str, str]:
    """Returns the environment without what names a cluster or sets up JAX, but with the tests' compilation cache."""
    removed = ("JAX_", "XLA_", "SLURM_", "OMPI_", "TPU_", "KUBERNETES_", "JOB_COMPLETION_INDEX")
    kept = ("JAX_COMPILATION_CACHE_", "JAX_PERSISTENT_CACHE_")
    return {name: value for name, value in os.environ.items() if name.startswith(kept) or not name.startswith(removed)}


def command(config: str, fields: Mapping[str, object] | None = None, **flags: object) -> tuple[str, ...]:
    """Returns command-line arguments; `config` is 'name' or 'name:argument' of configs/."""
    name, colon, argument = config.partition(":")
    return (
        f"--config={CONFIGS / name}.py{colon}{argument}",
        *(f"--{name}={value}" for name, value in flags.items()),
        *(f"--config.{name}={value}" for name, value in (fields or {}).items()),
    )


def quick(workdir: Path | str, fields: Mapping[str, object] | None = None) -> tuple[str, ...]:
    """Returns the arguments of a run on generated telemetry that takes about a second."""
    return command("quickstart:debug", SYNTHETIC | dict(fields or {}), workdir=workdir)


def quick_on(nasa: Path, workdir: Path, fields: Mapping[str, object] | None = None) -> tuple[str, ...]:
    """Returns the arguments of a run on a NASA-like folder, split in time, that takes about a second."""
    data = {"data.dir": nasa, "data.split": "time"}
    return command("nasa:debug", TINY | data | dict(fields or {}), workdir=workdir)


def results(workdir: Path) -> dict[str, Any]:
    """Reads a run's results.json."""
    return json.loads((workdir / "results.json").read_text())


def log(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, tuple[int, bytes]] | bytes | None:
    """Returns all files in a folder with their modification time, or the bytes of a file; None if there is neither.

    A lock comes and goes, and with it the modification time of the folder.
    """
    if folder.is_file():
        return folder.read_bytes()
    if not folder.exists():
        return None
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns if path.is_file() else 0,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


def write_nasa(root: Path, channels: Channels, steps: int = 160) -> Path:
    """Writes a folder in telemanom's layout: noise with a jump at each anomalous range, ends inclusive."""
    rng = np.random.default_rng(0)
    rows = ["chan_id,spacecraft,anomaly_sequences,class,num_values"]
    for name, ranges in channels.items():
        for part, length in (("train", 64), ("test", steps)):
            array = rng.normal(0, 0.1, (length, 3))
            for start, end in ranges if part == "test" else ():
                array[start : end + 1, 0] += 1
            (root / part).mkdir(parents=True, exist_ok=True)
            np.save(root / part / f"{name}.npy", array)
        rows.append(f'{name},SMAP,"{json.dumps(ranges)}",[point],{steps}')
    (root / "labeled_anomalies.csv").write_text("\n".join(rows) + "\n")
    return root


def stamp(row: int) -> str:
    """Returns the time of a row in NAB's format."""
    time = np.datetime64("2014-02-14 14:30:00") + np.timedelta64(5 * row, "m")
    return str(time).replace("T", " ")


def write_nab(root: Path, files: Mapping[str, tuple[int, Sequence[tuple[int, int]]]]) -> Path:
    """Writes a folder in NAB's layout: noise with a jump at each anomaly window.

    Args:
      root: where it goes.
      files: by file name, the number of rows and the anomaly windows as first and last row.
    """
    rng = np.random.default_rng(0)
    windows, points = {}, {}
    for name, (rows, ranges) in files.items():
        values = rng.uniform(0, 8.6e8, rows)
        for first, last in ranges:
            values[first : last + 1] += 5e8
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{stamp(row)},{float(values[row])!r}" for row in range(rows)]
        path.write_text("\n".join(["timestamp,value", *lines]) + "\n")
        windows[name] = [[f"{stamp(first)}.000000", f"{stamp(last)}.000000"] for first, last in ranges]
        points[name] = [stamp((first + last) // 2) for first, last in ranges]
    (root / "labels").mkdir()
    (root / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    (root / "labels" / "combined_labels.json").write_text(json.dumps(points))
    return root


@pytest.fixture(scope="session")
def spear() -> Spear:
    """Returns a function that runs the program in this process."""

    def run(*arguments: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """Writes the folder of a BERT with one small layer."""
    hidden, inner, vocabulary, positions = 16, 24, 1000, 64
    shape = {
        "model_type": "bert",
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    layer = "encoder.layer.0"
    matrices = {
        f"{layer}.attention.self.query": (hidden, hidden),
        f"{layer}.attention.self.key": (hidden, hidden),
        f"{layer}.attention.self.value": (hidden, hidden),
        f"{layer}.attention.output.dense": (hidden, hidden),
        f"{layer}.intermediate.dense": (inner, hidden),
        f"{layer}.output.dense": (hidden, inner),
    }
    norms = ["embeddings.LayerNorm", f"{layer}.attention.output.LayerNorm"]
    norms.append(f"{layer}.output.LayerNorm")
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary, hidden),
        "embeddings.position_embeddings.weight": (positions, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
    }
    for name, (out, into) in matrices.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.1, size).astype(np.float32) for name, size in shapes.items()}
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shape))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(vocabulary - 5))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a finished run and what it printed."""

    workdir: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def finished(spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a finished run with the head-only control; tests must not write to it."""
    global figures_drawn
    workdir = tmp_path_factory.mktemp("finished") / "run"
    before, figures_drawn = figures_drawn, True
    outcome = spear(*quick(workdir, {"controls.head_only": "true"}))
    figures_drawn = before
    assert outcome.code == 0, outcome.err
    return Run(workdir, outcome)


@pytest.fixture
def nasa(tmp_path: Path) -> Path:
    """Writes six channels with an anomaly in each third of the time."""
    ranges = [(10, 20), (40, 49), (100, 110), (140, 150)]
    return write_nasa(tmp_path / "nasa", {f"A-{i}": ranges for i in range(6)})


def check_refusal(outcome: Outcome, *parts: object) -> None:
    """Checks for exit code 2 and a single error line that contains all parts."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.endswith("\n") and outcome.err.count("\n") == 1
    for part in parts:
        assert str(part) in outcome.err


def begun(arguments: tuple[str, ...], workdir: Path) -> Path:
    """Writes a run folder as the command leaves it when interrupted before its first checkpoint."""
    flags = parse_flags(arguments)
    config = load_valid_config(flags.config, flags.overrides)
    workdir.mkdir()
    config.backbone.dtype = choose_dtype(config.backbone.dtype)
    (workdir / "config.json").write_text(to_json(config))
    (workdir / "metrics.jsonl").write_text("")
    return workdir


def refuse_untouched(spear: Spear, arguments: tuple[str, ...], *parts: object) -> None:
    """Checks that the command is refused and writes nothing, in a new folder and in that of an interrupted run."""
    workdir = Path(parse_flags(arguments).workdir)
    check_refusal(spear(*arguments), *parts)
    assert not workdir.exists()
    before = contents(begun(arguments, workdir))
    check_refusal(spear(*arguments), *parts)
    assert contents(workdir) == before


def evaluate(detector: Path, workdir: Path, fields: dict[str, object] | None = None) -> tuple[str, ...]:
    """Returns the arguments that apply a detector to the data it was trained on."""
    parts = ("data.", "score.")  # the rest comes from the detector, and so does what it carries of these
    data = {name: value for name, value in SYNTHETIC.items() if name.startswith(parts) and not FIELDS[name].carried}
    return command(
        "quickstart:debug",
        data | (fields or {}),
        mode="evaluate",
        detector=detector,
        workdir=workdir,
    )


def truncate(file: Path) -> None:
    """Cuts a file in half."""
    os.truncate(file, file.stat().st_size // 2)


def check_scores(workdir: Path, head: str = "step") -> dict[str, pd.DataFrame]:
    """Checks that scores/*.parquet have a row per step and agree with results.json."""
    content = results(workdir)
    tables = {split: pd.read_parquet(workdir / "scores" / f"{split}.parquet") for split in SPLITS}
    for split, table in tables.items():
        columns = ["series", "step", "timestamp", "value", "score", "predicted", "label"]
        assert list(table.columns) == columns
        sizes = content["splits"][split]
        assert len(table) == sizes["steps"]
        assert table["label"].sum() == sizes["anomalous_steps"]
        assert table["series"].nunique() == sizes["series"]
        assert not table.duplicated(["series", "step"]).any()
        assert table["score"].between(0, 1 if content["trained"] else np.finfo(np.float32).max).all()
        above = table["score"] >= np.float32(content["threshold"]["value"])
        assert (table["predicted"] == above).mean() > 0.999  # stored in float32
        accuracy = (table["predicted"] == table["label"]).mean()
        assert content[split]["accuracy"] == pytest.approx(accuracy)
        assert content[split]["base_rate"] == pytest.approx(table["label"].mean())
    return tables


def check_log(workdir: Path, epochs: int) -> None:
    """Checks that metrics.jsonl holds each step once per kind, and an evaluation for each epoch."""
    lines = log(workdir)
    for kind in ("train", "evaluation"):
        steps = [line["step"] for line in lines if line["kind"] == kind]
        assert steps == sorted(set(steps))
    epochs_evaluated = [line["epoch"] for line in lines if line["kind"] == "evaluation"]
    assert epochs_evaluated == list(range(1, epochs + 1))


class Mirror(http.server.ThreadingHTTPServer):
    """Serves a folder and counts requests."""

    def __init__(self, folder: Path) -> None:
        self.requests = 0
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.requests += 1
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


OnlyMirror: TypeAlias = Callable[[type, Path], Mirror]


@pytest.fixture
def tfds_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points TFDS at an empty folder and hides local copies of data sets."""
    from tensorflow_datasets.core import constants

    folder = tmp_path / "tfds"
    monkeypatch.delenv("SPEAR_DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(constants, "DATA_DIR", str(folder))
    return folder


@pytest.fixture
def only_mirror(tfds_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnlyMirror]:
    """Returns a function that makes a folder the only mirror of a data set's builder."""
    with contextlib.ExitStack() as stack:

        def serve(builder: type, folder: Path) -> Mirror:
            mirror = stack.enter_context(Mirror(folder))
            thread = threading.Thread(target=mirror.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(mirror.shutdown)
            checksums = {
                path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in folder.rglob("*.*")
            }
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            monkeypatch.setattr(builder, "MIRRORS", (mirror.address,))
            monkeypatch.setattr(prepared, "pinned_checksums", lambda name: checksums)
            return mirror

        yield serve
