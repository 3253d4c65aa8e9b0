"""Live rows: each gets its score as soon as its window is complete, and the one that the whole file would give it."""

import io
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Run, Spear, check_refusal, quick
from test_file_scoring import write

pytestmark = pytest.mark.one_python

ROWS = 150


@pytest.fixture(scope="module", params=["train", "window"])
def trained(request: pytest.FixtureRequest, spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the scale of its quantizer."""
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    fields = {"quantizer.scale": request.param, "quantizer.reference_steps": "64"}
    outcome = spear(*quick(workdir, fields))
    assert outcome.code == 0, outcome.err
    return workdir


@pytest.mark.parametrize("stride", [32, 5, 1])
def test_live_scores_are_those_of_the_file(
    spear: Spear, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    table = write(tmp_path / "t.csv", ROWS)
    common = ("--mode=score", f"--detector={trained}", f"--config.score.stride={stride}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table.read_bytes())))
    told = spear(*common, "--input=-")
    assert told.code == 0, told.err
    assert f"from then on a row waits for at most {stride - 1} more" in told.err
    live = pd.read_csv(io.StringIO(told.out), parse_dates=["timestamp"])
    whole = spear(*common, f"--input={table}", f"--workdir={tmp_path / 'o'}", "--config.score.overlap=first")
    assert whole.code == 0, whole.err
    batch = pd.read_parquet(tmp_path / "o" / "scores.parquet")
    assert live["series"].str.removeprefix("input").tolist() == batch["series"].str.removeprefix("t").tolist()
    for column in ("step", "timestamp", "predicted"):
        assert live[column].tolist() == batch[column].tolist()
    np.testing.assert_allclose(live["score"], batch["score"], atol=1e-6)
    np.testing.assert_allclose(live["value"], batch["value"])


class Live:
    """The program in a process of its own, which scores the rows that it is sent: windows of 32, one every 8 rows."""

    def __init__(self, run: Run, *arguments: str) -> None:
        command = [sys.executable, "-m", "spear_jax.main", "--mode=score", f"--detector={run.workdir}", "--input=-"]
        self.process = subprocess.Popen(
            [*command, "--config.score.stride=8", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *fault: object) -> None:
        self.process.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()
        self.process.wait()

    def send(self, rows: list[bytes]) -> None:
        self.stdin.write(b"".join(rows))
        self.stdin.flush()

    def wait(self) -> None:
        """Until something comes."""
        deadline = time.monotonic() + 120
        while not select.select([self.stdout], [], [], 1)[0]:
            assert time.monotonic() < deadline and self.process.poll() is None, self.stderr.read()

    def receive(self, seconds: float) -> int:
        """Lines that come, until none has come for so long."""
        count = 0
        while select.select([self.stdout], [], [], seconds)[0]:
            came = os.read(self.stdout.fileno(), 1 << 16)
            if not came:
                break
            count += came.count(b"\n")
        return count


FIRST = 256  # rows that the scale is taken from


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    """A line of column names, and 300 of rows."""
    return write(tmp_path / "t.csv", 300, columns=1).read_bytes().splitlines(keepends=True)


def test_a_row_goes_out_as_soon_as_its_window_is_complete(finished: Run, lines: list[bytes]) -> None:
    with Live(finished) as live:
        live.send(lines[: 1 + FIRST])
        live.wait()
        assert live.receive(3) == 1 + FIRST  # a head, and what is complete
        live.send([*lines[1 + FIRST : 8 + FIRST], lines[8 + FIRST][:9]])  # seven rows and the beginning of one
        assert live.receive(1) == 0
        live.send([lines[8 + FIRST][9:]])
        assert live.receive(3) == 8
        live.stdin.close()
        assert live.receive(10) == 0
        assert live.process.wait(20) == 0


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_out_the_rows_that_are_left(finished: Run, lines: list[bytes], which: signal.Signals) -> None:
    with Live(finished) as live:
        live.send(lines[: 1 + FIRST + 3])
        live.wait()
        assert live.receive(3) == 1 + FIRST
        live.process.send_signal(signal.SIGSTOP)
        live.send(
            [*lines[1 + FIRST + 3 : 1 + FIRST + 5], lines[1 + FIRST + 5][:-3]]
        )  # unread yet; the last is not whole
        live.process.send_signal(which)
        live.process.send_signal(signal.SIGCONT)
        assert live.receive(20) == 5
        assert live.process.wait(20) == 0
        assert b"Traceback" not in live.stderr.read()


def test_ctrl_c_before_the_first_row_is_one_line(spear: Spear, finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Waiting(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Waiting()))
    outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-")
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "stopped: Ctrl-C\n")


def test_it_ends_quietly_where_nobody_reads_on(finished: Run, lines: list[bytes]) -> None:
    with Live(finished) as live:
        live.send(lines[: 1 + FIRST])
        live.wait()
        live.stdout.close()
        live.send(lines[1 + FIRST : 1 + FIRST + 8])
        assert live.process.wait(20) == 0
        said = live.stderr.read().decode()
        assert "the first scores come after 256 rows" in said.splitlines()[-1]


def test_what_cannot_be_done_live_is_refused(
    spear: Spear, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    common = ("--mode=score", f"--detector={finished.workdir}", "--input=-")
    check_refusal(spear(*common, f"--workdir={tmp_path / 'o'}"), "--workdir is not of --input=-")
    for text, said in (
        ("", "standard input: is empty"),
        ("1,2\n3,4\n", "standard input: row 1 is '1,2'; needed is a line of column names"),
        ("a,b\nx,y\n", "standard input: no column of numbers"),
    ):
        give(text)
        outcome = spear(*common)
        assert outcome.code == 2 and said in outcome.err and outcome.out == ""
    give("time,a\n2024-01-01,1\n2024-01-02,broken\n")
    outcome = spear(*common)
    assert outcome.code == 2 and "standard input: row 2, column 'a': 'broken' is no number" in outcome.err
    check_refusal(spear(*common, "--config.score.format=csv"), "--config.score.format")
    check_refusal(spear(*common, "--config.score.stride=33"), "config.score.stride=33: allowed is at most")


def test_a_detector_that_looks_ahead_is_refused(spear: Spear, tmp_path: Path) -> None:
    assert spear(*quick(tmp_path / "run", {"quantizer.scale": "series"})).code == 0
    common = ("--mode=score", f"--detector={tmp_path / 'run'}", "--input=-")
    check_refusal(spear(*common), "quantizer.scale='series' looks ahead; allowed are train, window")
