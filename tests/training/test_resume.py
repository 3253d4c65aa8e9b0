"""A run that is killed, stopped or damaged goes on with the same command to the same numbers."""

import dataclasses
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import plain_environment
from etils import epath

from spear_jax.errors import InputError
from spear_jax.training.checkpoints import KEEP, Checkpoints, read_trainable
from spear_jax.training.log import Log
from spear_jax.training.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0  # seconds that anything here may take before it counts as hung
EPOCHS = 6
# 16 windows in batches of 3 are 6 steps an epoch, the last one padded; every second step is saved.
LAST_STEP = 6 * EPOCHS
SAVED_EVERY = 2
TINY = (
    "--config=configs/quickstart.py:debug",
    "--config.data.synthetic.series=6",
    "--config.data.synthetic.length=256",
    "--config.data.window=64",
    "--config.data.stride=64",
    "--config.train.batch_size=3",
    "--config.train.steps_per_call=2",
    "--config.train.save_seconds=0.0",
)
RUN = (*TINY, f"--config.train.epochs={EPOCHS}", "--config.train.early_stopping.patience=99")


def start(folder: Path, arguments: tuple[str, ...] = RUN) -> subprocess.Popen[str]:
    """Starts the program; its output is added to a file beside the run's folder."""
    with output_of(folder).open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "spear_jax.main", *arguments, f"--workdir={folder}"],
            cwd=ROOT,
            env={**plain_environment(), "JAX_PLATFORMS": "cpu"},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def output_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".log")


def finish(process: subprocess.Popen[str]) -> int:
    """Waits for the program's end; returns its exit code."""
    try:
        return process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


def run(folder: Path, arguments: tuple[str, ...] = RUN) -> tuple[int, str]:
    """Runs the program to its end; returns its exit code and its new output."""
    before = len(output_of(folder).read_text()) if output_of(folder).exists() else 0
    code = finish(start(folder, arguments))
    return code, output_of(folder).read_text()[before:]


def wait_for(process: subprocess.Popen[str], folder: Path, seen: Callable[[], bool]) -> None:
    """Looks every 2 ms, until something is seen; the program must still be running then."""
    end = time.monotonic() + PATIENCE
    while not seen():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"not seen before the program's end:\n{output_of(folder).read_text()[-4000:]}")
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE) == -signal.SIGKILL


def saved(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def half_saved(folder: Path) -> list[str]:
    """Returns the checkpoints being written: Orbax renames such a folder once it is complete."""
    return [path.name for path in (folder / "checkpoints").glob("*.orbax-checkpoint-tmp*")]


def last_saved(folder: Path) -> int:
    return max(saved(folder), default=0)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def results(folder: Path) -> dict[str, Any]:
    """Returns the results without times and memory, which may differ, and the digest, in which these are."""
    content = json.loads((folder / "results.json").read_text())
    other = ("seconds", "throughput", "memory", "cpu_seconds", "sha256")
    return {key: content[key] for key in content if key not in other}


def assert_same_end(folder: Path, undisturbed: Path) -> None:
    """Two folders hold the same run, bit for bit, and no step twice."""
    logged = [(line["kind"], line["step"]) for line in lines(folder)]
    assert len(logged) == len(set(logged))
    assert [step for kind, step in logged if kind == "train"] == list(range(SAVED_EVERY, LAST_STEP + 1, SAVED_EVERY))
    assert lines(folder) == lines(undisturbed)
    assert results(folder) == results(undisturbed)
    parameters = Path("detector/detector.safetensors")
    assert (folder / parameters).read_bytes() == (undisturbed / parameters).read_bytes()
    assert not half_saved(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nothing happened to; read-only."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    code, output = run(folder)
    assert code == 0, output
    assert last_saved(folder) == LAST_STEP
    return folder


@pytest.fixture
def unfinished(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of that run as it was after its last checkpoint, before the results."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "results.json").unlink()
    return folder


@pytest.mark.slow
@pytest.mark.one_python
def test_kill_nine_at_five_moments_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    seed = 0
    rng = random.Random(seed)
    folder = tmp_path / "run"
    between = []  # kills after the first and before the last checkpoint
    targets = [SAVED_EVERY * n for n in sorted(rng.sample(range(1, LAST_STEP // 4), 3))]
    print(f"seed {seed}, kills between checkpoints from steps {targets} on")

    def note(moment: str) -> None:
        print(f"{moment}: complete {saved(folder)}, half {half_saved(folder)}")

    # 1. Somewhere before, at or soon after the first checkpoint.
    process = start(folder)
    wait_for(process, folder, (folder / "config.json").exists)
    time.sleep(rng.uniform(0, 1.5))
    kill(process)
    note("early")

    # 2 and 3. Between two checkpoints, wherever the program is by then.
    for target in targets[:2]:
        process = start(folder)
        wait_for(process, folder, lambda target=target: last_saved(folder) >= target)
        time.sleep(rng.uniform(0, 0.1))
        kill(process)
        note(f"from step {target} on")
        between.append(last_saved(folder))

    # 4. During a save. Stopped first, so that the folder still shows it when the kill comes.
    process = start(folder)
    while True:
        wait_for(process, folder, lambda: last_saved(folder) >= targets[2] and bool(half_saved(folder)))
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        if half_saved(folder):
            break
        process.send_signal(signal.SIGCONT)
    kill(process)
    note("during a save")
    assert half_saved(folder)
    between.append(last_saved(folder))

    # 5. After the last checkpoint, before the results.
    process = start(folder)
    wait_for(process, folder, lambda: last_saved(folder) == LAST_STEP)
    time.sleep(rng.uniform(0, 0.2))
    kill(process)
    note("before the results")
    assert not (folder / "results.json").exists()

    assert len(between) == 3
    assert all(0 < step < LAST_STEP for step in between), between
    code, output = run(folder)
    assert code == 0, output
    assert f"resuming at step {LAST_STEP}" in output
    assert_same_end(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_nine_again_and_again_changes_nothing(undisturbed: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "run"
    kills = 0
    while (before := last_saved(folder)) < LAST_STEP:
        process = start(folder)
        wait_for(process, folder, lambda before=before: last_saved(folder) > before)
        time.sleep(rng.uniform(0, 0.15))
        kill(process)
        kills += 1
        print(f"kill {kills}: complete {saved(folder)}, half {half_saved(folder)}")
    assert kills >= 5
    code, output = run(folder)
    assert code == 0, output
    assert_same_end(folder, undisturbed)


@pytest.mark.one_python
@pytest.mark.landing
@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(process, folder, lambda: last_saved(folder) >= 6)
    process.terminate()
    assert finish(process) == 1
    output = output_of(folder).read_text()
    stopped = last_saved(folder)
    assert 0 < stopped < LAST_STEP
    assert f"stopped: by a signal at step {stopped}" in output
    assert "Traceback" not in output
    assert lines(folder)[-1]["step"] == stopped  # what was done was saved

    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "train", "st')  # as a crash would leave it
    code, output = run(folder)
    assert code == 0, output
    assert f"resuming at step {stopped}" in output
    assert_same_end(folder, undisturbed)


def test_the_command_of_a_finished_run_shows_its_results_and_writes_nothing(
    undisturbed: Path,
) -> None:
    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in undisturbed.rglob("*")}

    before = files()
    code, output = run(undisturbed)
    assert code == 0, output
    assert "this run is done" in output
    assert "SPEAR" in output
    assert files() == before


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_put_aside_and_the_one_before_it_taken(
    undisturbed: Path, unfinished: Path
) -> None:
    damaged = unfinished / "checkpoints" / str(LAST_STEP)
    for path in damaged.glob("state/ocdbt.process_0/d/*"):
        os.truncate(path, path.stat().st_size // 2)
    code, output = run(unfinished)
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("WARNING: checkpoint")]
    assert f"{damaged}: damaged" in line
    assert "Traceback" not in output
    assert f"resuming at step {LAST_STEP - SAVED_EVERY}" in output
    assert_same_end(unfinished, undisturbed)


def restore(folder: Path, like: Any) -> tuple[Any, Progress]:
    with Checkpoints(epath.Path(folder)) as checkpoints:
        return checkpoints.restore(like)


STATE = {"trainable": {"prompt": jnp.arange(640.0)}, "best": {"prompt": jnp.ones(640)}}
PROGRESS = Progress(step=3, epoch=1, best={"value": 0.7})


def save_one(folder: Path, step: int = 3) -> None:
    with Checkpoints(epath.Path(folder)) as checkpoints:
        checkpoints.save(STATE, dataclasses.replace(PROGRESS, step=step))


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {
    "missing": lambda path, rng: path.unlink(),
    "empty": lambda path, rng: os.truncate(path, 0),
    "half": lambda path, rng: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip,
}


@pytest.fixture
def own_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    for hook in ("unraisablehook", "excepthook"):  # put back when the test is over
        monkeypatch.setattr(sys, hook, getattr(sys, hook))


@pytest.mark.parametrize(
    ("damage", "times"),
    [
        pytest.param("missing", 1, marks=pytest.mark.slow),
        *(pytest.param(*given, marks=pytest.mark.slow) for given in (("empty", 1), ("half", 1))),
        ("flipped", 1),
        pytest.param("flipped", 60, marks=pytest.mark.slow),
    ],
)
def test_every_damage_to_a_checkpoint_is_seen_or_harmless(
    tmp_path: Path, damage: str, times: int, own_hooks: None
) -> None:
    intact, rng = tmp_path / "intact", random.Random(0)
    save_one(intact)
    seen, tried = set(), 0
    for name in times * sorted(path.relative_to(intact) for path in intact.rglob("*") if path.is_file()):
        folder = tmp_path / "damaged"
        shutil.copytree(intact, folder)
        if not (folder / name).stat().st_size:
            continue
        DAMAGES[damage](folder / name, rng)
        tried += 1
        try:
            trained = read_trainable(epath.Path(folder) / "3")
            np.testing.assert_array_equal(trained["prompt"], STATE["trainable"]["prompt"])
        except InputError as error:
            assert str(folder / "3") in str(error) or "no such checkpoint" in str(error)
            assert "\n" not in str(error)
        try:
            restored, progress = restore(folder, STATE)
        except InputError as error:
            assert f"{folder}: every checkpoint is damaged" in str(error)
            seen.add(name.parts[1])
        else:
            assert progress == PROGRESS, name
            jax.tree.map(np.testing.assert_array_equal, restored, STATE)
        shutil.rmtree(folder)
    gc.collect()
    assert {"progress", "state"} <= seen
    print(f"{damage}: {tried} times")


def test_of_two_checkpoints_the_intact_one_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own_hooks: None
) -> None:
    save_one(tmp_path, step=3)
    save_one(tmp_path, step=6)
    for path in tmp_path.glob("6/state/ocdbt.process_0/d/*"):
        flip(path, random.Random(0))
    _, progress = restore(tmp_path, STATE)
    assert progress.step == 3
    (line,) = capsys.readouterr().out.splitlines()
    assert f"WARNING: checkpoint {tmp_path}/6: damaged (" in line and "goes on from the one before it" in line
    assert saved(tmp_path.parent) == [] and [path.name[:9] for path in tmp_path.glob("d*")] == ["damaged_6"]


def test_other_faults_are_shown_before_and_after_a_damaged_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for hook in ("unraisablehook", "excepthook"):
        monkeypatch.setattr(sys, hook, getattr(sys, f"__{hook}__"))
    state = {"prompt": jnp.arange(640.0)}
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        checkpoints.save(state, Progress(step=3))
    restore(tmp_path, state)
    assert sys.excepthook is sys.__excepthook__
    assert sys.unraisablehook is sys.__unraisablehook__

    for path in tmp_path.glob("3/state/ocdbt.process_0/d/*"):
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError):
        restore(tmp_path, state)
    for error in (RuntimeError("Event loop is closed"), RuntimeError("the disk is on fire")):
        sys.excepthook(RuntimeError, error, None)
    output = capsys.readouterr().err
    assert "the disk is on fire" in output
    assert "Event loop" not in output


def test_a_checkpoint_holds_its_own_step_though_the_next_call_begins_at_once(
    tmp_path: Path,
) -> None:
    call = jax.jit(lambda array: array + 1, donate_argnums=0)
    array = jnp.zeros(300_000)
    with Checkpoints(epath.Path(tmp_path) / "checkpoints") as checkpoints:
        for step in range(1, 6):
            array = call(array)
            checkpoints.save({"trainable": {"prompt": array}}, Progress(step=step))
            for _ in range(10):  # the buffer that is being saved is donated and overwritten
                array = call(array)
            array = jnp.full_like(array, step)
    assert len(saved(tmp_path)) == KEEP
    for step in saved(tmp_path):
        restored = read_trainable(epath.Path(tmp_path) / "checkpoints" / str(step))
        np.testing.assert_array_equal(restored["prompt"], float(step))
    assert restore(tmp_path / "checkpoints", {"trainable": {"prompt": array}})[1].step == max(saved(tmp_path))


def test_only_the_last_few_checkpoints_are_kept(undisturbed: Path) -> None:
    assert saved(undisturbed) == [LAST_STEP - SAVED_EVERY * n for n in reversed(range(KEEP))]


def test_a_half_written_line_and_later_steps_are_dropped_from_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    line = {"kind": "train", "step": 2, "epoch": 1, "loss": 0.5}
    log = Log(epath.Path(path), step=0)
    log.write(line)
    before, digest = path.read_text(), log.digest
    path.write_text(before + json.dumps(line | {"step": 4}) + '\n{"kind": "tra')
    log = Log(epath.Path(path), 2, digest)
    assert path.read_text() == before
    assert capsys.readouterr().out == ""
    log.write(line | {"step": 4})
    assert [json.loads(text)["step"] for text in path.read_text().splitlines()] == [2, 4]

    path.write_text(path.read_text().replace("0.5", "0.7").replace('"epoch"', "[" * 10**5 + '"') + "\xff\n[]\n{}\n")
    Log(epath.Path(path), 4, log.digest)
    assert f"WARNING: {path}: damaged or edited" in capsys.readouterr().out
    assert path.read_text() == ""


# Such a weight decay makes the head's weights some 100 000 times larger at every step.
DIVERGING = (
    *TINY,
    "--config.embedding.kind=ordinal",
    "--config.train.prompt_learning_rate=0.02",
    "--config.train.epochs=10",
    "--config.train.warmup_steps=0",
    "--config.train.weight_decay=1000",
)


# With a prompt, its gradient overflows first; without one, the validation scores do.
@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize(
    ("arguments", "rate"),
    [
        pytest.param((), 1000, marks=[pytest.mark.landing, pytest.mark.slow]),
        pytest.param(("--config.prompt.length=0", "--config.train.batch_size=16"), 450, marks=pytest.mark.slow),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_a_finite_checkpoint(
    tmp_path: Path, arguments: tuple[str, ...], rate: int
) -> None:
    folder = tmp_path / "run"
    code, output = run(folder, (*DIVERGING, *arguments, f"--config.train.head_learning_rate={rate}"))
    assert code == 1, output
    assert "Traceback" not in output
    error = output.splitlines()[-1]
    assert error.startswith("stopped: the loss is not finite at step ")
    assert f"train.head_learning_rate={rate}" in error
    assert "train.prompt_learning_rate=0.02" in error
    step = last_saved(folder)
    assert step > 0
    assert f"the last finite checkpoint is step {step}" in error
    assert step < int(error.split("at step ")[1].split()[0]) <= step + 1 + SAVED_EVERY
    assert not (folder / "results.json").exists()
    assert all(np.isfinite(line["loss"]) for line in lines(folder))
    for leaf in jax.tree.leaves(restored_arrays(folder, step)):
        assert np.isfinite(leaf).all()


def restored_arrays(folder: Path, step: int) -> Any:
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointer().restore(folder / "checkpoints" / str(step) / "state")
