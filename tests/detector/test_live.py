"""Live rows: each gets its score as soon as its window is complete, and the one that the whole file would give it."""

import io
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome, Run, Spear, check_refusal, quick, results
from test_file_scoring import write

from spear_jax.model import placed

pytestmark = pytest.mark.one_python

Come = Callable[..., None]
ROWS = 150
FIRST = 256  # rows that the scale is taken from
PATIENCE = 120.0  # seconds until anything here counts as hung


class Drop(io.FileIO):
    """Lines that come one by one."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) if size == 1 else self.readline()


@pytest.fixture
def come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Come:
    """Puts lines on standard input; all at once, or as `kind` gives them."""

    def put(text: str | bytes, kind: type[io.FileIO] = io.FileIO) -> None:
        file = tmp_path / "standard_input"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(kind(file))))

    return put


@pytest.fixture(scope="module", params=[("train", 1), ("window", 1), ("train", 9)])
def trained(request: pytest.FixtureRequest, spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the scale of its quantizer and the smoothing of its scores."""
    scale, smoothing = request.param
    workdir = tmp_path_factory.mktemp(scale) / "run"
    fields = {"quantizer.scale": scale, "quantizer.reference_steps": "64", "score.smoothing": smoothing}
    outcome = spear(*quick(workdir, fields))
    assert outcome.code == 0, outcome.err
    return workdir


@pytest.mark.parametrize("stride", [32, 5, 1])
def test_live_scores_are_those_of_the_file(
    spear: Spear, trained: Path, tmp_path: Path, come: Come, stride: int
) -> None:
    table = write(tmp_path / "t.csv", ROWS)
    common = ("--mode=score", f"--detector={trained}", f"--config.score.stride={stride}")
    come(table.read_bytes())
    told = spear(*common, "--input=-")
    assert told.code == 0, told.err
    wait = stride - 1 + results(trained)["readout"]["smoothing"] // 2
    then = f"a row waits for at most {wait} more" if wait else "each row is scored at once"
    assert f"from then on {then} (windows of" in told.err
    live = pd.read_csv(io.StringIO(told.out), parse_dates=["timestamp"])
    whole = spear(*common, f"--input={table}", f"--workdir={tmp_path / 'o'}", "--config.score.overlap=first")
    assert whole.code == 0, whole.err
    batch = pd.read_parquet(tmp_path / "o" / "scores.parquet")
    assert live["series"].str.removeprefix("input").tolist() == batch["series"].str.removeprefix("t").tolist()
    for column in ("step", "timestamp", "predicted"):
        assert live[column].tolist() == batch[column].tolist()
    np.testing.assert_allclose(live["score"], batch["score"], atol=1e-6)
    np.testing.assert_allclose(live["value"], batch["value"])


def test_blank_lines_and_labels_make_no_difference_live(
    spear: Spear, finished: Run, tmp_path: Path, come: Come
) -> None:
    def live(text: str) -> str:
        come(text)
        told = spear("--mode=score", f"--detector={finished.workdir}", "--input=-")
        assert told.code == 0, told.err
        return told.out

    names, *rows = write(tmp_path / "t.csv", ROWS).read_text().splitlines()
    expected = live("\n".join([names, *rows]))
    assert live("\n\n" + names + "\n \n\n" + "\n".join(rows) + "\n\n") == expected
    marked = [f"{names},label", *(f"{row},{'unknown' if i % 3 else ''}" for i, row in enumerate(rows))]
    assert live("\n".join(marked)) == expected


def test_all_times_have_one_form(spear: Spear, finished: Run, tmp_path: Path, come: Come) -> None:
    times = pd.date_range("2024-01-02 23:00", periods=100, freq="30min") + pd.to_timedelta(np.arange(100) % 2 / 2, "s")
    table = pd.DataFrame({"time": times, "a": np.sin(np.arange(100))})
    come(table.to_csv(index=False))
    told = spear("--mode=score", f"--detector={finished.workdir}", "--input=-", "--config.score.stride=1")
    assert told.code == 0, told.err
    assert pd.to_datetime(pd.read_csv(io.StringIO(told.out))["timestamp"]).tolist() == times.tolist()


def test_dates_and_times_in_two_columns_are_one(spear: Spear, finished: Run, come: Come) -> None:
    times = pd.Series(pd.date_range("2024-01-20 23:00", periods=100, freq="30min"))
    clock, date = times.dt.strftime("%H.%M.%S"), times.dt.strftime("%d/%m/%Y")
    come(pd.DataFrame({"Date": date, "Time": clock, "a": np.sin(np.arange(100))}).to_csv(index=False, sep=";"))
    told = spear("--mode=score", f"--detector={finished.workdir}", "--input=-", "--config.score.stride=1")
    assert told.code == 0, told.err
    assert pd.to_datetime(pd.read_csv(io.StringIO(told.out))["timestamp"]).tolist() == times.tolist()
    assert "left out" not in told.err


class Live:
    """The program in a process of its own, which scores the rows that it is sent: windows of 32, one every 8 rows."""

    def __init__(self, run: Run) -> None:
        command = [sys.executable, "-m", "spear_jax.main", "--mode=score", f"--detector={run.workdir}", "--input=-"]
        self.process = subprocess.Popen(
            [*command, "--config.score.stride=8"],
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

    def receive(self, count: int) -> None:
        """Waits for so many lines; more must not have come by then."""
        deadline = time.monotonic() + PATIENCE
        while count > 0:
            if select.select([self.stdout], [], [], 1)[0]:
                count -= (came := os.read(self.stdout.fileno(), 1 << 16)).count(b"\n")
                assert came, self.stderr.read()
            assert time.monotonic() < deadline
        assert count == 0

    def silent(self, seconds: float) -> bool:
        """True where nothing comes for so long."""
        return not select.select([self.stdout], [], [], seconds)[0]

    def end(self) -> tuple[int, int, str]:
        """Waits for its end; returns exit code, how many lines came until then, and what it said."""
        code = self.process.wait(PATIENCE)
        return code, 0 if self.stdout.closed else self.stdout.read().count(b"\n"), self.stderr.read().decode()


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    """A line of column names, and 300 of rows."""
    return write(tmp_path / "t.csv", 300, columns=1).read_bytes().splitlines(keepends=True)


def test_a_row_goes_out_as_soon_as_its_window_is_complete(finished: Run, lines: list[bytes]) -> None:
    with Live(finished) as live:
        live.send(lines[: 1 + FIRST])
        live.receive(1 + FIRST)  # a head, and what is complete
        live.send([*lines[1 + FIRST : 8 + FIRST], lines[8 + FIRST][:9]])  # seven rows and the beginning of one
        assert live.silent(1)
        live.send([lines[8 + FIRST][9:]])
        live.receive(8)
        live.stdin.close()
        assert live.end()[:2] == (0, 0)


@pytest.mark.parametrize("which", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_gives_out_the_rows_that_are_left(finished: Run, lines: list[bytes], which: signal.Signals) -> None:
    with Live(finished) as live:
        live.send(lines[: 1 + FIRST + 3])
        live.receive(1 + FIRST)
        live.process.send_signal(signal.SIGSTOP)
        live.send([*lines[1 + FIRST + 3 : 1 + FIRST + 5], lines[1 + FIRST + 5][:-3]])  # unread; the last is not whole
        live.process.send_signal(which)
        live.process.send_signal(signal.SIGCONT)
        code, left, said = live.end()
        assert (code, left) == (0, 5), said
        assert "Traceback" not in said


@pytest.mark.parametrize("kind", [Drop, io.FileIO], ids=["one by one", "at once"])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            b"2024-01-02 00:00:00,broken\n",
            "row 101, column 'a': 'broken' is not a number; data.missing_values names words",
        ),
        (b"yesterday,1\n", "row 101, column 'time': 'yesterday' is not a time"),
        (b"2024-01-02 00:00:00,1,2\n", "row 101: cannot be read as CSV (rows have more fields than there"),
        (b'2024-01-02 00:00:00,"1\n', "row 101: cannot be read as CSV ("),
        (b"2024-01-02 00:00:00,\xff1\n", "row 101: cannot be read as CSV ("),
    ],
    ids=["value", "time", "fields", "quote", "bytes"],
)
def test_rows_before_one_that_cannot_be_read_get_their_scores(
    spear: Spear, finished: Run, come: Come, kind: type[io.FileIO], bad: bytes, said: str
) -> None:
    times = pd.date_range("2024-01-01", periods=150, freq="min")
    rows = [f"{time},{np.sin(i):.3f}\n".encode() for i, time in enumerate(times)]

    def score(lines: list[bytes]) -> Outcome:
        come(b"time,a\n" + b"".join(lines), kind)
        return spear("--mode=score", f"--detector={finished.workdir}", "--input=-")

    whole = score(rows[:100])
    assert whole.code == 0 and whole.out.count("\n") == 101
    broken = score([*rows[:50], b"\n", *rows[50:100], bad, *rows[100:]])  # a blank line is no row
    assert broken.code == 2 and broken.out == whole.out
    assert broken.err.splitlines()[-1].startswith(f"error: standard input: {said}")


@pytest.mark.parametrize("kind", [Drop, io.FileIO], ids=["one by one", "at once"])
def test_a_decimal_comma_may_come_late(spear: Spear, finished: Run, come: Come, kind: type[io.FileIO]) -> None:
    come("a;b\n20;1\n20,125;2\n21,5;3\n", kind)
    outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-")
    assert outcome.code == 0, outcome.err
    assert pd.read_csv(io.StringIO(outcome.out))["value"].tolist() == [20, 1, 20.125, 2, 21.5, 3]


def test_closed_standard_streams_are_one_line(spear: Spear, finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-")
    check_refusal(outcome, "--input=-: standard input or output is closed")


def test_ctrl_c_before_the_first_row_is_one_line(spear: Spear, finished: Run, come: Come) -> None:
    class Waiting(io.FileIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    come("", Waiting)
    outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-")
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "stopped: Ctrl-C\n")


@pytest.mark.slow
def test_it_ends_quietly_where_nobody_reads_on(finished: Run, lines: list[bytes]) -> None:
    with Live(finished) as live:
        live.send(lines[: 1 + FIRST])
        live.receive(1 + FIRST)
        live.stdout.close()
        live.send(lines[1 + FIRST : 1 + FIRST + 8])
        code, _, said = live.end()
        assert code == 0 and "the first scores come after 256 rows" in said.splitlines()[-1], said


@pytest.mark.parametrize("kind", [Drop, io.FileIO], ids=["one by one", "at once"])
def test_live_rows_are_scored_by_one_compiled_program(
    spear: Spear, finished: Run, tmp_path: Path, come: Come, kind: type[io.FileIO]
) -> None:
    come(write(tmp_path / "t.csv", 500).read_bytes(), kind)
    placed.apply_batch.clear_cache()
    outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-", "--config.score.stride=3")
    assert outcome.code == 0 and outcome.out.count("\n") == 1 + 1000
    assert placed.apply_batch._cache_size() == 1


def test_what_cannot_be_done_live_is_refused(spear: Spear, finished: Run, tmp_path: Path, come: Come) -> None:
    common = ("--mode=score", f"--detector={finished.workdir}", "--input=-")
    check_refusal(spear(*common, f"--workdir={tmp_path / 'o'}"), "--workdir does not apply to --input=-")
    for text, said in (
        ("", "standard input: is empty"),
        ("t1,t2\n", "standard input: has a header but no rows"),
        ("1,2\n3,4\n", "standard input: row 1 is '1,2'; expected a header line"),
        ("a,b\nx,y\n", "standard input: no column of values"),
    ):
        come(text)
        outcome = spear(*common)
        assert outcome.code == 2 and said in outcome.err and outcome.out == ""
    come("time,a\n2024-01-01,1\n2024-01-02,broken\n")
    outcome = spear(*common)
    assert outcome.code == 2 and "standard input: row 2, column 'a': 'broken' is not a number" in outcome.err
    check_refusal(spear(*common, "--config.score.format=csv"), "--config.score.format")
    check_refusal(spear(*common, "--config.score.stride=33"), "config.score.stride=33 must be at most")


@pytest.mark.parametrize("field", ["score.batch_size=3", "score.format=parquet", "alarms.merge_gap=1"])
def test_what_makes_no_difference_live_is_refused(spear: Spear, finished: Run, field: str) -> None:
    outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-", f"--config.{field}")
    check_refusal(outcome, f"--config.{field.partition('=')[0]} has no effect with --input=-, which ")


def warnings(outcome: Outcome) -> list[str]:
    """Returns the warnings about standard input."""
    head = "WARNING: standard input: "
    return [line.removeprefix(head) for line in outcome.err.splitlines() if line.startswith(head)]


def test_what_is_odd_about_live_rows_is_said_once_and_at_the_end_if_there_was_more(
    spear: Spear, finished: Run, come: Come
) -> None:
    seconds = np.arange(300)
    seconds[100:] += 60
    seconds[200:] += 60
    seconds[250] = seconds[249]
    values = [f"{value:.3f}" for value in np.sin(seconds)]
    values[7] = "inf"
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s")
    rows = [f"{time},{value},1.5,x" for time, value in zip(times, values, strict=True)]
    text = "\n".join(["time,a,level,note", *rows]) + "\n"
    come(text, Drop)
    outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-")
    assert outcome.code == 0, outcome.err
    assert warnings(outcome) == [
        "up to row 1: columns that are left out: note (text, such as 'x')",
        "up to row 8: 1 infinite value (beyond 1e100) is taken as missing",
        "up to row 101: 1 gap, where the usual step is 1 s",
        "up to row 251: 1 time stamp comes twice",
        "3 gaps, where the usual step is 1 s",
        "column 'level' is constant (1.5)",
    ]


@pytest.mark.slow
def test_days_and_months_are_told_apart_by_the_first_row_that_can(spear: Spear, finished: Run, come: Come) -> None:
    def score(first: str, form: str) -> tuple[Outcome, list[int]]:
        days = pd.date_range(first, periods=300, freq="D")
        text = "time,a\n" + "".join(f"{day},{np.sin(i):.3f}\n" for i, day in enumerate(days.strftime(form)))
        come(text, Drop)
        outcome = spear("--mode=score", f"--detector={finished.workdir}", "--input=-")
        assert outcome.code == 0, outcome.err
        read = pd.read_csv(io.StringIO(outcome.out), parse_dates=["timestamp"])["timestamp"]
        return outcome, (read != days).to_numpy().nonzero()[0].tolist()

    open_yet = "times are read as %d/%m/%Y; the first row could be %m/%d/%Y as well (ISO 8601 is never mistaken)"
    outcome, wrong = score("2025-03-04", "%m/%d/%Y")
    assert wrong == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    mistaken = "row 10: '03/13/2025' does not fit %d/%m/%Y; from row 10 on times are read as %m/%d/%Y: day"
    assert warnings(outcome)[0] == open_yet
    assert any(said.startswith(mistaken) for said in warnings(outcome))
    outcome, wrong = score("2025-03-04", "%d/%m/%Y")
    assert wrong == [] and warnings(outcome) == [open_yet]
    outcome, wrong = score("2025-03-25", "%m/%d/%Y")
    assert wrong == [] and warnings(outcome) == []


def test_a_detector_that_looks_ahead_is_refused(spear: Spear, tmp_path: Path) -> None:
    assert spear(*quick(tmp_path / "run", {"quantizer.scale": "series"})).code == 0
    common = ("--mode=score", f"--detector={tmp_path / 'run'}", "--input=-")
    check_refusal(spear(*common), "quantizer.scale='series' looks ahead; allowed: train, window")
