"""Runs the program in forked children, with a fault at the n-th change to a folder.

A process that has imported everything waits for orders, a line of JSON each, and forks a child for each of them: that
takes a second where a new process takes ten. Changes are the calls of Python that create, open for writing, rename,
remove or make folders, as its audit events tell of them; those of Orbax's Python code are among them.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SECONDS = 60


class Fault:
    """Counts the changes below a folder, and does something instead of the n-th.

    'kill' ends the process as kill -9 does; 'torn' first cuts the file that was written last in half; 'full' fails that
    call and all that create something after it, as on a full disk; 'terminate' and 'interrupt' send a signal.
    """

    def __init__(self, folder: str, kind: str, at: int) -> None:
        self.folder, self.kind, self.at = folder, kind, at
        self.count, self.last = 0, ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in (*CHANGES, "open"):
            return
        path = arguments[0]
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.at and self.kind in ("kill", "torn"):
            if self.kind == "torn" and os.path.isfile(self.last):  # noqa: PTH113
                os.truncate(self.last, os.stat(self.last).st_size // 2)  # noqa: PTH116
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.count == self.at and self.kind in ("terminate", "interrupt"):
            os.kill(os.getpid(), signal.SIGTERM if self.kind == "terminate" else signal.SIGINT)
        elif self.count >= self.at and self.kind == "full" and event in ("open", "os.mkdir"):
            raise OSError(28, "No space left on device", os.fsdecode(path))
        appends = event == "open" and arguments[2] & os.O_APPEND
        self.last = os.fsdecode(path) if event == "open" and not appends else ""


def end_after(text: str) -> None:
    """Ends this process with code 0 once it has printed a text."""
    write = sys.stdout.write

    def watched(piece: str) -> int:
        written = write(piece)
        if text in piece:
            sys.stdout.flush()
            os._exit(0)
        return written

    sys.stdout.write = watched  # type: ignore[method-assign]


def run(order: dict[str, Any], output: Any) -> None:
    """Runs the program as an order says, and ends this process; the output ends with the number of changes."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.setsid()
    if order.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], order["file_bytes"]))
    if order.get("memory_bytes"):
        resource.setrlimit(resource.RLIMIT_DATA, (order["memory_bytes"], order["memory_bytes"]))
    if order.get("until"):
        end_after(order["until"])
    fault = Fault(order["folder"], order.get("kind", ""), order.get("at", 0))
    from spear_jax.main import program

    sys.addaudithook(fault)
    try:
        code = program(order["arguments"])
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    print(f"\n{fault.count}", flush=True)
    sys.exit(code)


def main() -> None:
    """Forks a child for each order, and answers with its exit code (negative: the signal), output and seconds."""
    from matplotlib.figure import Figure
    from PIL import Image

    import spear_jax.commands.evaluate
    import spear_jax.commands.export
    import spear_jax.commands.preview
    import spear_jax.commands.score
    import spear_jax.commands.train
    import spear_jax.studies  # noqa: F401

    Figure.savefig = lambda self, file, **options: Image.new("L", (1, 1)).save(file, format="png")  # type: ignore
    for line in sys.stdin:
        orders = json.loads(line)
        children = []
        for order in orders:  # at the same time
            output = tempfile.TemporaryFile("w+")  # noqa: SIM115
            time.sleep(order.get("after", 0))
            child = os.fork()
            if not child:
                run(order, output)
            children.append((child, output, time.monotonic()))
        answers = []
        for child, output, began in children:
            status = wait(child, began)
            output.seek(0)
            seconds = time.monotonic() - began
            answers.append({"code": os.waitstatus_to_exitcode(status), "output": output.read(), "seconds": seconds})
        print(json.dumps(answers), flush=True)


def wait(child: int, began: float) -> int:
    """Waits for a child, and kills it after a while."""
    while time.monotonic() - began < SECONDS:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
