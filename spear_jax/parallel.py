"""Devices and processes: one code path from one device to a pod."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from spear_jax.errors import InputError

DISTRIBUTED = ("auto", "on", "off")


def start(distributed: str) -> None:
    """Joins the other processes of the run; must be the program's first JAX call.

    Args:
      distributed: 'off' is one process. 'on' needs a cluster that JAX knows (Cloud TPU, Slurm, Kubernetes, Open
        MPI), or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment. 'auto' is 'on'
        where such an environment is seen.

    Raises:
      InputError: 'on', and no cluster is found.
    """
    found = _cluster()
    if distributed == "off" or (distributed == "auto" and not found):
        return
    explicit: dict[str, Any] = {}
    if found == "JAX_COORDINATOR_ADDRESS":
        missing = [key for key in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID") if not os.environ.get(key, "").isdigit()]
        if missing:
            raise InputError(f"JAX_COORDINATOR_ADDRESS is set, but {' and '.join(missing)} is no whole number")
        explicit = {
            "coordinator_address": os.environ["JAX_COORDINATOR_ADDRESS"],
            "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
            "process_id": int(os.environ["JAX_PROCESS_ID"]),
            # Else JAX still asks the cluster around it: Kubernetes' API needs a package and a role that pods lack.
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**explicit)
    except ValueError as fault:
        raise InputError(
            f"--distributed={distributed}: no cluster found ({fault}); set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"
            " and JAX_PROCESS_ID, or use --distributed=off"
        ) from fault
    logging.info("process %d of %d (%s)", jax.process_index(), jax.process_count(), found or "found by JAX")


def check_alone(mode: str) -> None:
    """For what one process does.

    Raises:
      InputError: there are several.
    """
    if jax.process_count() > 1:
        raise InputError(
            f"--mode={mode} runs in one process, on all devices of its machine; this is one of {jax.process_count()}:"
            " start it once, with --distributed=off"
        )


def _cluster() -> str:
    """What in the environment says that this is one process of several, or ''."""
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return "JAX_COORDINATOR_ADDRESS"
    if int(os.environ.get("SLURM_NTASKS", "1") or 1) > 1:
        return "SLURM_NTASKS"
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1") or 1) > 1:
        return "OMPI_COMM_WORLD_SIZE"
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "TPU_WORKER_HOSTNAMES"
    if os.environ.get("JOB_COMPLETION_INDEX") and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "JOB_COMPLETION_INDEX"
    return ""


def make_mesh() -> Mesh:
    """All devices of all processes on one axis, 'data'."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays that every process holds whole onto the devices; what lies there already stays."""

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        return jax.make_array_from_callback(np.shape(leaf), sharding, lambda part: np.asarray(leaf)[part])

    return jax.tree.map(put, tree)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh, axis: int) -> dict[str, jax.Array]:
    """Divides a batch over the devices.

    Args:
      batch: arrays whose `axis` counts windows; what is added to make that divisible is 0, that is, masked.
      mesh: from `make_mesh`.
      axis: the windows' axis.

    Returns:
      Global arrays, sharded along `axis`.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return place({name: _fill_up(array, mesh.size, axis) for name, array in batch.items()}, sharding)


def _fill_up(array: Shaped[np.ndarray, "..."], divisor: int, axis: int) -> Shaped[np.ndarray, "..."]:
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, -array.shape[axis] % divisor)
    return np.pad(array, padding)


def is_main() -> bool:
    """True in the one process that writes files."""
    return jax.process_index() == 0


def agree(value: float) -> float:
    """The largest of all processes' values, in every process: a signal counts whichever process it reaches."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.process_allgather(np.float32(value)).max())


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside it `say` says nothing, and no bar is drawn."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


def say(text: str) -> None:
    """Prints a line, in the main process only."""
    if is_main() and not _quiet.get():
        print(text, flush=True)


def no_bar() -> bool | None:
    """What tqdm's `disable` is: a bar is for the main process, and for a terminal."""
    return None if is_main() and not _quiet.get() else True


class plain_warnings(warnings.catch_warnings):  # noqa: N801
    """Warnings as one plain line each."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.showwarning = lambda message, *_, **__: say(f"WARNING: {message}")
        return entered
