"""Runs the same code on one device or on many processes, and prints from one of them."""

import contextlib
import hashlib
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from spear_jax.errors import InputError, one_line, plain

_MOST_BYTES = 2**30  # of compiled programs that are kept; those that were not used for longest go
_LEAST_SECONDS = 0.1  # of compiling, for a program to be kept


def join_processes(distributed: str) -> None:
    """Joins the other processes of the run; must be the program's first JAX call.

    Args:
      distributed: 'off' runs in this process only. 'on' needs a cluster that JAX detects (Cloud TPU, Slurm, Kubernetes,
        Open MPI), or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment. 'auto' is 'on'
        in such an environment and 'off' elsewhere.

    Raises:
      InputError: 'on', but there is no cluster; or the environment variables are incomplete, or name no device here.
    """
    cluster = _cluster_variable()
    if distributed == "off" or (distributed == "auto" and not cluster):
        check_devices()
        return
    explicit: dict[str, Any] = {}
    if cluster == "JAX_COORDINATOR_ADDRESS":
        missing = [key for key in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID") if not os.environ.get(key, "").isdigit()]
        if missing:
            raise InputError(f"JAX_COORDINATOR_ADDRESS is set, but {' and '.join(missing)} must be a whole number")
        explicit = {
            "coordinator_address": os.environ["JAX_COORDINATOR_ADDRESS"],
            "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
            "process_id": int(os.environ["JAX_PROCESS_ID"]),
            # Otherwise JAX still queries the cluster: Kubernetes' API needs a package and a role that pods lack.
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**explicit)
    except ValueError as error:
        raise InputError(
            f"--distributed={distributed} needs a cluster, and none was found ({one_line(error)}); set"
            " JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or use --distributed=off"
        ) from error
    check_devices()
    logging.info("process %d of %d (%s)", jax.process_index(), jax.process_count(), cluster or "detected by JAX")


def check_devices() -> None:
    """Checks that JAX finds a device; the environment variable JAX_PLATFORMS may name one that is not there."""
    global _process
    check_not_forked()
    try:
        jax.devices()
        _process = os.getpid()
    except (AssertionError, RuntimeError) as error:  # JAX asserts that its CUDA plugin is installed
        asked = f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}: " if os.environ.get("JAX_PLATFORMS") else ""
        reason = f" ({one_line(error)[:160]})" if str(error) else ""
        raise InputError(f"{asked}JAX finds no such device here{reason}; unset it, or install JAX for it") from error


def keep_programs() -> None:
    """Lets JAX keep compiled programs in ~/.cache/spear_jax/programs, so that the next start need not compile them.

    The environment variable JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps
    none. A folder that cannot be made is done without.
    """
    if jax.config.values["jax_compilation_cache_dir"] or not jax.config.values["jax_enable_compilation_cache"]:
        return
    # Programs for one CPU may not run on another one that shares the home folder.
    cpu = Path("/proc/cpuinfo")
    features = re.search("^(flags|Features).*", cpu.read_text(), re.MULTILINE) if cpu.is_file() else None
    kind = hashlib.sha256((features[0] if features else platform.processor()).encode()).hexdigest()[:12]
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        folder = Path("~/.cache/spear_jax/programs").expanduser() / kind
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
        compilation_cache.reset_cache()  # JAX decides once, at its first program, whether there is one


_process = 0
"""The process that JAX computes in, once it does."""


def check_not_forked() -> None:
    """Checks that this is no forked child of a process that used JAX: it would wait for threads that it does not have.

    Raises:
      InputError: it is.
    """
    if _process not in (0, os.getpid()):
        raise InputError(
            "JAX cannot compute in a forked child of a process that has used it: start processes with"
            " multiprocessing.get_context('spawn'), or fork before the first model is loaded"
        )


def check_alone(mode: str) -> None:
    """Checks that this is the only process, for a mode that cannot be distributed."""
    if jax.process_count() > 1:
        raise InputError(
            f"--mode={mode} must run in one process, not {jax.process_count()}; start it once, with --distributed=off,"
            " and it uses all devices of its machine"
        )


def _cluster_variable() -> str:
    """Returns the environment variable that identifies this as one process of several, or ''."""
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return "JAX_COORDINATOR_ADDRESS"
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        number = os.environ.get(name) or "1"
        if not number.isdecimal():
            raise InputError(f"the environment variable {name}={number} must be a whole number")
        if int(number) > 1:
            return name
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "TPU_WORKER_HOSTNAMES"
    if os.environ.get("JOB_COMPLETION_INDEX") and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "JOB_COMPLETION_INDEX"
    return ""


def make_mesh(shards: int = 1) -> Mesh:
    """Returns a mesh of all devices of all processes, with the axes 'data' and 'model'.

    Batches are divided over both, the matrices of a frozen backbone over the second alone, which has `shards` devices.

    Raises:
      InputError: the number of devices is no multiple of `shards`.
    """
    check_devices()
    return divide(np.array(jax.devices()), shards)


def divide(devices: Shaped[np.ndarray, "devices"], shards: int) -> Mesh:
    """Returns the mesh of `make_mesh` on some devices."""
    if len(devices) % shards:
        raise InputError(f"config.backbone.shards={shards} must divide the number of devices, {len(devices)}")
    return Mesh(devices.reshape(-1, shards), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that are the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def window_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding of arrays whose windows, along an axis, are divided over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, mesh.axis_names))


def frozen_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """Returns the sharding of a frozen parameter.

    The stacked matrices of a backbone's layers [layers, rows, columns] are divided by columns, if these can be divided
    evenly; all else is small, and the same on every device.
    """
    shards = mesh.shape["model"]
    if shards == 1 or len(shape) < 3 or shape[-1] % shards:
        return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(None, None, "model"))


def gathering(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which programs are traced that gather what is divided, see `gather`."""
    return jax.set_mesh(mesh) if mesh.shape["model"] > 1 else contextlib.nullcontext()


def gather(matrix: Array | np.ndarray) -> Array | np.ndarray:
    """Gathers a matrix that may be divided, within a program that is traced in `gathering`, and returns it.

    Left to itself, XLA would rather exchange activations, which are larger.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return matrix
    return jax.lax.with_sharding_constraint(matrix, PartitionSpec())


def place_frozen(tree: Any, mesh: Mesh) -> Any:
    """Puts frozen parameters onto the devices, each with its sharding, see `place`."""
    return jax.tree.map(lambda leaf: place(leaf, frozen_sharding(mesh, np.shape(leaf))), tree)


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays, which every process holds in full, onto the devices, unless they have that sharding already."""

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        return jax.make_array_from_callback(np.shape(leaf), sharding, lambda part: np.asarray(leaf)[part])

    return jax.tree.map(put, tree)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh, axis: int) -> dict[str, jax.Array]:
    """Divides a batch over the devices, along the axis of its windows.

    Windows of zeros, masked, are added up to a multiple of the number of devices.
    """
    return place({name: _pad(array, mesh.size, axis) for name, array in batch.items()}, window_sharding(mesh, axis))


def _pad(array: Shaped[np.ndarray, "..."], divisor: int, axis: int) -> Shaped[np.ndarray, "..."]:
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, -array.shape[axis] % divisor)
    return np.pad(array, padding)


def is_main() -> bool:
    """Returns whether this is the process that writes files."""
    return jax.process_index() == 0


def agree(value: float) -> float:
    """Returns the maximum over all processes, so that a signal counts whichever process receives it."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.process_allgather(np.float32(value)).max())


def barrier(name: str) -> None:
    """Waits until every process has reached the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences `say` and progress bars within a with block."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


def say(text: str) -> None:
    """Prints lines, in the main process only."""
    if is_main() and not _quiet.get():
        print(plain(text, keep="\n"), flush=True)


def warn(text: object) -> None:
    """Prints a warning as one line, in the main process only."""
    say(f"WARNING: {plain(str(text))}")


def no_bar() -> bool | None:
    """Returns tqdm's `disable`: bars are drawn in the main process only, and (None) only on a terminal."""
    return None if is_main() and not _quiet.get() else True


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Says what the with block did and how long it took, unless a progress bar on a terminal shows it."""
    began = time.monotonic()
    yield
    if not sys.stderr.isatty():
        say(f"{what} ({time.monotonic() - began:.0f} s)")


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints warnings as one plain line each within a with block."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: warn(message)
        yield
