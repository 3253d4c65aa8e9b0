"""Orbax behind one small class: the training state and what it takes to go on from it."""

import contextlib
import dataclasses
import gc
import logging
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from spear_jax.errors import InputError
from spear_jax.model import Params
from spear_jax.training.progress import Progress

KEEP = 3


class Checkpoints:
    """The checkpoints of one run: written in the background, whole or not at all, the last few kept."""

    def __init__(self, folder: epath.Path) -> None:
        """Opens the folder, and clears what a killed run left half-written in it."""
        self._manager = ocp.CheckpointManager(
            folder if "://" in str(folder) else folder.resolve(),  # Orbax takes no relative path
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEEP, enable_async_checkpointing=True, cleanup_tmp_directories=True
            ),
        )

    def latest(self) -> int | None:
        """The step of the last whole checkpoint."""
        return self._manager.latest_step()

    def save(self, state: Any, progress: Progress) -> None:
        """Starts to write a checkpoint; every process must call it. A step that is there already stays."""
        if self.latest() == progress.step and progress.step_in_epoch:
            return
        self._manager.save(
            progress.step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
            force=True,
        )

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, Progress]:
        """Reads a checkpoint.

        Args:
          like: a state of the same structure, shapes and shardings.
          step: which one; the last by default.

        Raises:
          InputError: it cannot be read.
        """
        step = self.latest() if step is None else step
        with _reading(f"{self._manager.directory}/{step}"):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(jax.tree.map(_abstract, like)),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        return restored.state, Progress(**restored.progress)

    def wait(self) -> None:
        """Until what is being written is whole."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *fault: object) -> None:
        # After a fault too: the folder may be removed next, under the threads that write.
        self.wait()
        self._manager.close()


def read_trainable(path: epath.Path) -> Params:
    """The parameters that a run was training when it wrote a checkpoint, on the host; its folder is left as it is.

    Args:
      path: a run's checkpoints/<step>, written on any number of devices.

    Raises:
      InputError: there is no such checkpoint, or it cannot be read.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    folder = path.parent if "://" in str(path) else path.parent.resolve()
    manager = ocp.CheckpointManager(folder, options=options) if folder.is_dir() else None
    steps = sorted(manager.all_steps()) if manager else []
    if manager is None or path.name not in map(str, steps):
        raise InputError(f"{path}: no such checkpoint; there are {', '.join(map(str, steps)) or 'none'}")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with manager, _reading(path):
        saved = manager.item_metadata(int(path.name)).state
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved)
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        found = jax.device_get(manager.restore(int(path.name), args=wanted).state["trainable"])
    return found


@contextlib.contextmanager
def _reading(checkpoint: Any) -> Iterator[None]:
    """Turns whatever goes wrong inside into one line.

    Raises:
      InputError: the checkpoint cannot be read.
    """
    reason = ""
    with _AbandonedReaders():
        try:
            yield
        except Exception as fault:  # Orbax raises Exception itself where an array's data is cut short
            reason = " ".join(str(fault).split())[:300] or type(fault).__name__
        if reason:
            gc.collect()  # the fault is let go of here, and with it the coroutines that nobody awaits any more
            raise InputError(
                f"checkpoint {checkpoint}: cannot be read ({reason}); use the one before: a run goes on from it once"
                " this folder is removed"
            )


class _AbandonedReaders:
    """Keeps quiet about the array readers that a failed restore leaves behind.

    Where one array cannot be read, Orbax gives up on all: the readers of the others still report to an event loop that
    is closed by then, and print tracebacks that nobody can catch. They do so by three ways (asyncio's log, collected
    coroutines, threads of their own) and may come late, so the filters stay after a failure; whatever else is raised
    goes where it always went.
    """

    def __enter__(self) -> None:
        self._before = sys.unraisablehook, sys.excepthook
        unraisable, uncaught = self._before
        logging.getLogger("asyncio").addFilter(_is_wanted)
        sys.unraisablehook = lambda said: None if _is_abandoned(said.exc_value) else unraisable(said)
        sys.excepthook = lambda kind, fault, trace: None if _is_abandoned(fault) else uncaught(kind, fault, trace)

    def __exit__(self, kind: type[BaseException] | None, *fault: object) -> None:
        if kind is None:
            logging.getLogger("asyncio").removeFilter(_is_wanted)
            sys.unraisablehook, sys.excepthook = self._before


def _is_wanted(record: logging.LogRecord) -> bool:
    return not (record.exc_info and _is_abandoned(record.exc_info[1]))


def _is_abandoned(fault: BaseException | None) -> bool:
    return str(fault).startswith(("Event loop is closed", "Encountered error while reading array"))


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=getattr(leaf, "sharding", None))
