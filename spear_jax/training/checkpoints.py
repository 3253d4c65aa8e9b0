"""Saves and restores the state of training, with Orbax behind one small class."""

import contextlib
import dataclasses
import gc
import hashlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from spear_jax import parallel
from spear_jax.errors import InputError
from spear_jax.model import Params
from spear_jax.storage import content_sha256, sealed
from spear_jax.training.progress import Progress

KEEP = 3
_ARRAYS = "arrays_sha256"


class Checkpoints:
    """The last few checkpoints of a run, written in the background and atomically."""

    def __init__(self, folder: epath.Path) -> None:
        """Opens the folder, and removes checkpoints that a killed run left half-written."""
        self._quiet = _QuietArrays()
        self._quiet.__enter__()
        self._manager = ocp.CheckpointManager(
            folder if "://" in str(folder) else folder.resolve(),  # Orbax requires absolute paths
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEEP, enable_async_checkpointing=True, cleanup_tmp_directories=True
            ),
        )

    def latest(self) -> int | None:
        """Returns the step of the last complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: Any, progress: Progress) -> None:
        """Starts writing a checkpoint, unless there is one for this step; every process must call it."""
        if self.latest() == progress.step and progress.step_in_epoch:
            return
        self._manager.save(
            progress.step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                progress=ocp.args.JsonSave(sealed({**dataclasses.asdict(progress), _ARRAYS: _digests(state)})),
            ),
            force=True,
        )

    def restore(self, like: Any) -> tuple[Any, Progress]:
        """Reads the last checkpoint that is not damaged, and puts damaged ones aside with a warning.

        Args:
          like: a state of the same structure, shapes and shardings.

        Raises:
          InputError: all of them are damaged.
        """
        folder, like = epath.Path(self._manager.directory), jax.tree.map(_abstract, like)
        while (step := self.latest()) is not None:
            try:
                state, progress = _restore(self._manager, step, like, folder / str(step))
            except InputError as error:
                aside = folder / f"damaged_{step}_{time.time():.0f}"
                parallel.warn(f"{error}; it is now {aside.name}, and training goes on from the one before it")
                parallel.barrier("damaged")
                if parallel.is_main():
                    (folder / str(step)).rename(aside)
                parallel.barrier("aside")
                self._manager.reload()
                continue
            names = [field.name for field in dataclasses.fields(Progress)]  # earlier versions stored more
            return state, Progress(**{name: progress[name] for name in names if name in progress})
        raise InputError(f"{folder}: every checkpoint is damaged; use a new --workdir to train again")

    def wait(self) -> None:
        """Waits until pending checkpoints are complete."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        # After an exception too: the folder may be removed next, while threads still write to it.
        self.wait()
        self._manager.close()
        self._quiet.__exit__(*exception)


def read_trainable(path: epath.Path) -> Params:
    """Reads the trainable tree from a run's checkpoint into host memory, without changing the run's folder.

    Raises:
      InputError: there is no such checkpoint, or it cannot be read.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    folder = path.parent if "://" in str(path) else path.parent.resolve()
    manager = ocp.CheckpointManager(folder, options=options) if folder.is_dir() else None
    steps = sorted(manager.all_steps()) if manager else []
    if manager is None or path.name not in map(str, steps):
        raise InputError(f"{path}: no such checkpoint; there are {', '.join(map(str, steps)) or 'none'}")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with manager:
        with _one_line_errors(path):
            saved = manager.item_metadata(int(path.name)).state
            like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved)
        state, _ = _restore(manager, int(path.name), like, path, parts=("trainable",))
    return jax.device_get(state["trainable"])


def _restore(
    manager: ocp.CheckpointManager, step: int, like: Any, path: Any, parts: Sequence[str] = ()
) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint and checks the digests it was saved with, those of all arrays or of the named parts.

    Raises:
      InputError: it cannot be read, or is not what was saved. Earlier versions saved no digests.
    """
    with _one_line_errors(path):
        restored = manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore())
        )
        progress, state = restored.progress, restored.state
        if _ARRAYS in progress or "sha256" in progress:
            now = _digests({part: state[part] for part in parts or state})
            then = {part: progress[_ARRAYS].get(part) for part in now}
            if progress["sha256"] != content_sha256(progress) or now != then:
                raise ValueError("its content is not what was saved")
    return state, progress


def _digests(state: Mapping[str, Any]) -> dict[str, str]:
    """Returns a digest of names, shapes, types and values of the arrays in each part of a state."""
    digests = {}
    for part, tree in state.items():
        digest = hashlib.sha256()
        for name, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            array = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(name)} {array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digests[part] = digest.hexdigest()
    return digests


@contextlib.contextmanager
def _one_line_errors(checkpoint: Any) -> Iterator[None]:
    """Turns any exception inside into one line."""
    reason = ""
    with _QuietArrays():
        try:
            yield
        except Exception as error:  # Orbax raises plain Exception if an array's data are truncated
            reason = " ".join(str(error).split())[:300] or type(error).__name__
        if reason:
            gc.collect()  # collects the coroutines that nobody will await, now that the exception is released
            raise InputError(f"checkpoint {checkpoint}: damaged ({reason})")


class _QuietArrays:
    """Silences the readers and writers of arrays that a failed restore or save leaves behind.

    When one array fails, Orbax gives up on all of them: the readers or writers of the others still report to an event
    loop that is closed by then, and print tracebacks that nobody can catch. They have three ways to do so (asyncio's
    log, collected coroutines, threads of their own) and may be late, so the filters stay after a failure; every other
    exception is reported as usual.
    """

    def __enter__(self) -> None:
        self._before = sys.unraisablehook, sys.excepthook
        unraisable, uncaught = self._before
        logging.getLogger("asyncio").addFilter(_is_unrelated)
        sys.unraisablehook = lambda report: None if _is_abandoned(report.exc_value) else unraisable(report)
        sys.excepthook = lambda kind, error, trace: None if _is_abandoned(error) else uncaught(kind, error, trace)

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            logging.getLogger("asyncio").removeFilter(_is_unrelated)
            sys.unraisablehook, sys.excepthook = self._before


def _is_unrelated(record: logging.LogRecord) -> bool:
    return not (record.exc_info and _is_abandoned(record.exc_info[1]))


def _is_abandoned(error: BaseException | None) -> bool:
    return str(error).startswith(("Event loop is closed", "Encountered error while reading array"))


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=getattr(leaf, "sharding", None))
