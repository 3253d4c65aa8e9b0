"""What the tests of faults share: the program in a child process with a fault, and what its folders hold at the end."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from conftest import plain_environment

TIMES = ("seconds", "cpu_seconds", "throughput", "memory", "sha256")
"""Parts of results.json that differ from run to run; the digest is of all of it."""


class Ended(NamedTuple):
    """How a child ended: exit code (negative: a signal), output, seconds, changes to the folder (-1: unknown)."""

    code: int
    output: str
    seconds: float
    changes: int


class Children:
    """Runs the program in children of a process that has imported it already."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def together(self, *orders: dict[str, Any]) -> list[Ended]:
        """Runs several commands at the same time; for the keys of an order, see `run` and child.py."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        ended = []
        for answer in json.loads(self._process.stdout.readline()):
            output, _, last = answer["output"].rstrip("\n").rpartition("\n")
            counted = last.isdigit()
            changes = int(last) if counted else -1
            ended.append(Ended(answer["code"], output if counted else answer["output"], answer["seconds"], changes))
        return ended

    def run(self, arguments: Sequence[str], folder: Path, kind: str = "", at: int = 0, **order: Any) -> Ended:
        """Runs a command, with a fault at the n-th change below a folder."""
        return self.together({"arguments": [*arguments], "folder": str(folder), "kind": kind, "at": at, **order})[0]


@contextlib.contextmanager
def started() -> Iterator[Children]:
    """Starts the process that children are forked from."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("child.py"))],
        env={**plain_environment(), "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Children(process)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(60)


def state(folder: Path) -> dict[str, Any]:
    """Returns what a finished folder holds, without times, checkpoints and report: all of it must be the same again."""
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.startswith(("checkpoints/", ".spear_jax.")) or name == "report.html":
            continue
        if name == "results.json":
            content = json.loads(path.read_text())
            files[name] = {key: value for key, value in content.items() if key not in TIMES}
        else:
            files[name] = path.read_bytes()
    return files
