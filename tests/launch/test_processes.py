"""Runs processes.sh: several processes on the CPU give the numbers of one."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import LAUNCH, Fakes
from conftest import REPOSITORY, SPLITS, Run, quick, results

pytestmark = pytest.mark.one_python

TOLERANCE = 1e-6
PATIENCE = 200.0  # seconds until a process counts as hung


def start(folder: Path, count: int, *arguments: str) -> subprocess.Popen[str]:
    """Starts the launcher on the CPU; its output goes to folder/output.log."""
    settings = {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    with (folder / "output.log").open("w") as output:
        return subprocess.Popen(
            ["bash", str(LAUNCH / "processes.sh"), str(count), *arguments],
            env=Fakes(folder).environment | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            # Bash cannot trap a signal that was ignored when it started, as SIGINT is in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def launch(folder: Path, count: int, *arguments: str) -> tuple[int, str]:
    """Runs the launcher to its end; returns exit code and output."""
    launcher = start(folder, count, *arguments)
    try:
        code = launcher.wait(PATIENCE)
    finally:
        launcher.terminate()
    return code, (folder / "output.log").read_text()


def numbers(run: Path) -> dict[tuple[str, ...], float]:
    """Returns all metrics of a run, of the method and its controls; undefined ones are NaN."""
    content = results(run)
    rows = {(split,): content[split] for split in SPLITS}
    rows |= {(control, split): of[split] for control, of in content["controls"].items() for split in SPLITS}
    return {
        (*row, metric): math.nan if value is None else value
        for row, metrics in rows.items()
        for metric, value in metrics.items()
    }


def check_same_metrics(folder: Path, count: int, single: Path) -> None:
    code, output = launch(folder, count, *quick(folder / "run", {"controls.head_only": "true"}))
    assert code == 0, output
    assert f"devices: {count} x cpu" in output
    assert output.count("devices:") == 1  # only process 0 prints
    metrics, expected = numbers(folder / "run"), numbers(single)
    assert len(metrics) > 100
    assert metrics == pytest.approx(expected, abs=TOLERANCE, rel=0, nan_ok=True)


@pytest.mark.landing
@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(tmp_path: Path, finished: Run) -> None:
    check_same_metrics(tmp_path, 2, finished.workdir)


@pytest.mark.slow
def test_four_processes_give_the_metrics_of_one(tmp_path: Path, finished: Run) -> None:
    check_same_metrics(tmp_path, 4, finished.workdir)


@pytest.mark.slow
def test_bad_input_is_exit_code_2(tmp_path: Path) -> None:
    code, output = launch(tmp_path, 2, *quick(tmp_path / "run", {"train.epochs": "0"}))
    assert code == 2
    assert set(output.splitlines()) == {"error: config.train.epochs=0 must be at least 1"}
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("live", [False, True])
def test_scoring_in_several_processes_is_refused(tmp_path: Path, finished: Run, live: bool) -> None:
    (tmp_path / "t.csv").write_text("a\n" + "1\n" * 99)
    where = ("--input=-",) if live else (f"--input={tmp_path / 't.csv'}", f"--workdir={tmp_path / 'o'}")
    code, output = launch(tmp_path, 2, "--mode=score", f"--detector={finished.workdir}", *where)
    assert code == 2, output
    (line,) = set(output.splitlines())
    assert line.startswith("error: --mode=score must run in one process") and "--distributed=off" in line
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_all_and_the_same_command_goes_on(tmp_path: Path, which: signal.Signals) -> None:
    long = {"train.epochs": "60", "train.early_stopping.patience": "60"}
    launcher = start(tmp_path, 2, *quick(tmp_path / "run", long))
    end = time.monotonic() + PATIENCE
    while not any((tmp_path / "run" / "checkpoints").glob("[0-9]")):
        assert launcher.poll() is None and time.monotonic() < end, (tmp_path / "output.log").read_text()
        time.sleep(0.02)
    launcher.send_signal(which)
    assert launcher.wait(PATIENCE) == 1, (tmp_path / "output.log").read_text()
    output = (tmp_path / "output.log").read_text()
    assert "by a signal at step" in output
    code, output = launch(tmp_path, 2, *quick(tmp_path / "run", long))
    assert code == 0, output
    assert "resuming at step" in output


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_along(tmp_path: Path) -> None:
    long = {"train.epochs": "2000", "train.early_stopping.patience": "2000"}
    launcher = start(tmp_path, 2, *quick(tmp_path / "run", long))
    end = time.monotonic() + PATIENCE
    while not any((tmp_path / "run" / "checkpoints").glob("[0-9]")):
        assert launcher.poll() is None and time.monotonic() < end, (tmp_path / "output.log").read_text()
        time.sleep(0.02)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    assert launcher.wait(PATIENCE) not in (0, 2)
