"""Every mode that writes goes on with the same command after kill -9 and a full disk, and ends with the same files."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Run, evaluate, quick
from harness import Children, Ended, started, state

pytestmark = pytest.mark.one_python

Commands = Callable[[Path], tuple[str, ...]]


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with started() as running:
        yield running


@pytest.fixture(scope="module")
def commands(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Commands]:
    """Returns the arguments of each mode that writes, given its folder."""
    table = tmp_path_factory.mktemp("tables") / "t.csv"
    pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["a", "b"]).to_csv(table, index=False)
    detector = f"--detector={finished.workdir}"
    saving = {"train.save_seconds": "0.0", "train.epochs": 2}
    return {
        "train": lambda folder: quick(folder, saving),
        "evaluate": lambda folder: evaluate(finished.workdir, folder),
        "score": lambda folder: ("--mode=score", detector, f"--input={table}", f"--workdir={folder}"),
    }


def check_goes_on(
    children: Children, command: Commands, tmp_path: Path, kind: str, moments: Sequence[int] | slice
) -> list[Ended]:
    """Disturbs a command at the given changes, one at a time, and compares what the same command then leaves."""
    undisturbed = tmp_path / "undisturbed"
    ended = children.run(command(undisturbed), undisturbed)
    assert ended.code == 0, ended.output
    expected = state(undisturbed)
    disturbed = []
    for at in range(1, ended.changes + 1)[moments] if isinstance(moments, slice) else moments:
        folder = tmp_path / "disturbed"
        fault = children.run(command(folder), folder, kind, at)
        # A library may have got over the fault, as over a full disk while it was cleaning up.
        assert fault.code in ((-9,) if kind in ("kill", "torn") else (0, 1)), (at, fault)
        assert "Traceback" not in fault.output, (at, fault)
        again = children.run(command(folder), folder)
        # All was done but the removal of the lock.
        done = again.code == 2 and "new" in again.output.rpartition("--workdir=")[2]
        assert done or again.code == 0, (at, fault, again)
        assert "Traceback" not in again.output, (at, again)
        assert state(folder) == expected, at
        assert done or not list(folder.glob(".*")), at
        shutil.rmtree(folder)
        disturbed.append(fault)
    return disturbed


@pytest.mark.parametrize(
    ("mode", "kind", "moments"),
    [("score", "torn", [5, 10]), ("train", "full", [16]), pytest.param("train", "full", [12], marks=pytest.mark.slow)],
)
def test_the_same_command_goes_on(
    children: Children, commands: dict[str, Commands], tmp_path: Path, mode: str, kind: str, moments: list[int]
) -> None:
    """The disk is full while a checkpoint is written, at 16, or its folder made, at 12."""
    (fault, *_) = check_goes_on(children, commands[mode], tmp_path, kind, moments)
    assert fault.seconds < 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "torn", "full"])
@pytest.mark.parametrize("mode", ["score", "evaluate", "train"])
def test_every_moment(children: Children, commands: dict[str, Commands], tmp_path: Path, mode: str, kind: str) -> None:
    disturbed = check_goes_on(children, commands[mode], tmp_path, kind, slice(None))
    slowest = max(fault.seconds for fault in disturbed)
    print(f"{mode}, {kind}: {len(disturbed)} times; the slowest took {slowest:.1f} s")


@pytest.mark.slow
@pytest.mark.parametrize("pair", range(25))
@pytest.mark.parametrize("mode", ["train", "score"])
def test_of_two_one_wins(
    children: Children, commands: dict[str, Commands], tmp_path: Path, mode: str, pair: int
) -> None:
    """The second differs: it has another seed, or scores another table."""
    folder, alone = tmp_path / "run", [tmp_path / "first", tmp_path / "second"]
    pd.DataFrame(np.random.default_rng(1).normal(size=(150, 2)), columns=["a", "b"]).to_csv(tmp_path / "t.csv")

    def orders(*folders: Path) -> list[dict[str, Any]]:
        other = ["--config.seed=1"] if mode == "train" else [f"--input={tmp_path / 't.csv'}"]
        arguments = [[*commands[mode](folders[0])], [*commands[mode](folders[1]), *other]]
        delays = (0, 0.1 * pair)
        return [
            {"arguments": words, "folder": str(folders[0]), "after": after}
            for words, after in zip(arguments, delays, strict=True)
        ]

    ended = children.together(*orders(folder, folder))
    assert sorted(outcome.code for outcome in ended) == [0, 2], ended
    winner = 0 if ended[0].code == 0 else 1
    (line,) = ended[1 - winner].output.splitlines()
    assert line.startswith("error: ") and ("in use by process" in line or "new or empty" in line or "another" in line)
    undisturbed = children.together(orders(*alone)[winner])
    assert undisturbed[0].code == 0, undisturbed
    assert state(folder) == state(alone[winner])
