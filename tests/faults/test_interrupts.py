"""Ctrl-C ends the program with exit code 130 and one line, whatever it is doing."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SYNTHETIC, Run, command, plain_environment, quick
from harness import Children, Ended, started, state

pytestmark = pytest.mark.one_python

AT_IMPORT = """
import os, runpy, signal, sys
module, *sys.argv = sys.argv[1:]
sys.addaudithook(lambda event, arguments: event == "import" and arguments[0] == module and os.kill(os.getpid(), 2))
runpy.run_module("spear_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["ml_collections", "jax"])
def test_while_modules_are_imported(tmp_path: Path, module: str) -> None:
    """The first is one of those that the command line needs, before anything is set up."""
    ended = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, module, "main", *quick(tmp_path / "run")],
        env=plain_environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "stopped: Ctrl-C\n")
    assert not (tmp_path / "run").exists()


def test_a_closed_standard_error_changes_nothing_else() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "spear_jax.main", "--mode=nothing"],
        env=plain_environment(),
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
    )
    assert (ended.returncode, ended.stdout) == (2, b"")


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with started() as running:
        yield running


def check_interrupted(ended: Ended) -> None:
    said = [line for line in ended.output.splitlines() if line.startswith(("stopped: ", "Traceback", "error: "))]
    assert said == ["stopped: Ctrl-C"], ended
    assert ended.code == 130 and ended.seconds < 10


@pytest.mark.parametrize("number", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_while_files_are_written(children: Children, finished: Run, tmp_path: Path, number: int) -> None:
    table, score = tmp_path / "t.csv", ("--mode=score", f"--detector={finished.workdir}")
    pd.DataFrame({"a": np.sin(np.arange(200.0))}).to_csv(table, index=False)
    folder = tmp_path / "scored"
    arguments = (*score, f"--input={table}", f"--workdir={folder}")
    whole = children.run(arguments, folder)
    assert whole.code == 0, whole.output
    expected = state(folder)
    shutil.rmtree(folder)
    for at in list(range(1, whole.changes))[3 :: max(1, whole.changes // number)]:
        check_interrupted(children.run(arguments, folder, "interrupt", at))
        again = children.run(arguments, folder)
        assert again.code == 0, (at, again)
        assert state(folder) == expected and not list(folder.glob(".*"))
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "preview", "score"])
def test_at_any_moment_of_a_start(finished: Run, tmp_path: Path, mode: str) -> None:
    """A real process, from when Python has started; a run that trains saves and can be resumed, with exit code 1."""
    table, folder, rng, counts = tmp_path / "t.csv", tmp_path / "run", random.Random(0), {130: 0, 1: 0, 0: 0}
    pd.DataFrame({"a": np.sin(np.arange(200.0))}).to_csv(table, index=False)
    arguments = {
        "train": quick(folder),
        "preview": command("quickstart:debug", SYNTHETIC, mode="preview"),
        "score": ("--mode=score", f"--detector={finished.workdir}", f"--input={table}", f"--workdir={folder}"),
    }[mode]
    for _ in range(60):
        process = subprocess.Popen(
            [sys.executable, "-m", "spear_jax.main", *arguments],
            env={**plain_environment(), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        time.sleep(0.3 + rng.random() * 9)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = process.communicate()
        assert time.monotonic() - began < 10
        assert process.returncode in counts, errors
        assert process.returncode == 0 or (errors.startswith("stopped: ") and errors.count("\n") == 1), errors
        assert mode == "train" or process.returncode != 1
        counts[process.returncode] += 1
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{mode}: {counts[130]} ended by Ctrl-C, {counts[1]} saved, {counts[0]} done before, on {os.cpu_count()} cores"
    )
