"""Compiles a config's programs for TPUs that are not here, with TPU's own compiler; nothing is loaded, nothing runs."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from spear_jax.backbones import BackboneShape
from spear_jax.commands.memory import readable
from spear_jax.commands.programs import describe, lower_programs
from spear_jax.errors import InputError, one_line
from spear_jax.parallel import divide


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates of a chip, per second.

    Attributes:
      flops: operations of bfloat16 matrix products.
      bandwidth: bytes from or to its memory.
      interconnect: bytes to or from other chips.
      memory: size of its memory.
    """

    flops: float
    bandwidth: float
    interconnect: float
    memory: int


CHIPS = {
    "TPU v4": Chip(275e12, 1228e9, 300e9, 32 * 2**30),
    "TPU v5 lite": Chip(197e12, 819e9, 200e9, 16 * 2**30),
    "TPU v5": Chip(459e12, 2765e9, 600e9, 95 * 2**30),
    "TPU v6 lite": Chip(918e12, 1638e9, 400e9, 32 * 2**30),
}
"""By JAX's name of the device; from docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e, links counted one way."""

_TOPOLOGY = re.compile(r"(?P<name>[a-z0-9]+:[0-9]+(?:x[0-9]+)*)(?:,slices=(?P<slices>[1-9][0-9]{0,2}))?")
_COLLECTIVE = re.compile(
    r" = (?P<shapes>.+?) (?P<name>all-reduce|all-gather|reduce-scatter|collective-permute|collective-broadcast"
    r"|(?:ragged-)?all-to-all)(?:-start)?\("
)
_CHANNEL = re.compile(r"\bchannel_id=[0-9]+")
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(?P<bits>[0-9]+)[a-z0-9]*)\[(?P<shape>[0-9,]*)\]")


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """What the compiler says of a program, per chip; rates are of an optimizer step or of a batch that is scored.

    Attributes:
      windows: windows of a step or batch, on a chip.
      arguments, temporaries, peak: bytes of the chip's memory; the peak includes the program's code.
      flops: operations, as XLA counts them.
      traffic: bytes read and written, as XLA counts them: those that stay in the chip's cache included.
      collectives: bytes that each kind of exchange between chips yields.
      seconds: how long compiling took.
      text: the program.
    """

    windows: int
    arguments: int
    temporaries: int
    peak: int
    flops: float
    traffic: float
    collectives: dict[str, int]
    seconds: float
    text: str = dataclasses.field(repr=False)

    def roofline(self, chip: Chip) -> dict[str, float]:
        """Returns the seconds that operations, traffic and exchange each take on a chip at its peak rates."""
        # An all-reduce sends each byte twice.
        exchanged = sum(size * (2 if name == "all-reduce" else 1) for name, size in self.collectives.items())
        return {
            "operations": self.flops / chip.flops,
            "memory traffic": self.traffic / chip.bandwidth,
            "exchange": exchanged / chip.interconnect,
        }


def compiled_table(config: ConfigDict, topology: str) -> str:
    """Compiles a config's programs for a topology and describes them per chip."""
    mesh, backbone = find_topology(topology, config.backbone.shards), describe(config, "tpu")
    kind = mesh.devices.flat[0].device_kind
    chip = CHIPS.get(kind)
    columns = {}
    for what in ("training", "scoring"):
        program = compile_program(config, backbone, mesh, what)
        name = f"{what}, {program.windows} windows"
        columns[name] = {
            "arguments": readable(program.arguments),
            "temporaries": readable(program.temporaries),
            "peak": readable(program.peak) + (f" of {readable(chip.memory)}" if chip else ""),
            "GFLOP": f"{program.flops / 1e9:,.1f}",
            "memory traffic": readable(program.traffic),
            "collectives": ", ".join(f"{key} {readable(size)}" for key, size in program.collectives.items()) or "none",
            "compile time": f"{program.seconds:.0f} s",
        }
        if chip:
            seconds = program.roofline(chip)
            columns[name] |= {f"{part} at peak": f"{1000 * peak:.3g} ms" for part, peak in seconds.items()}
            columns[name]["roofline, all chips"] = (
                f"{mesh.size * program.windows / max(seconds.values()):,.0f} windows/s"
            )
    weights = "pretrained" if backbone.pretrained else "RANDOM WEIGHTS"
    return (
        f"{backbone.name} ({weights}, {backbone.dtype}, int8: {backbone.int8}), windows of {config.data.window} steps,"
        f" per chip of {topology} ({mesh.size} x {kind})\n"
        f"compiled by libtpu {importlib.metadata.version('libtpu')}, not run; an optimizer step, and a scored batch\n\n"
        f"{pd.DataFrame(columns).to_string()}"
    )


def find_topology(topology: str, shards: int = 1) -> Mesh:
    """Returns the mesh of `parallel.make_mesh` on the chips of a topology, such as 'v5e:2x4' or 'v5e:16x16,slices=2'.

    Raises:
      InputError: libtpu is not installed, or knows no such topology; or the number of chips is no multiple of `shards`.
    """
    match = _TOPOLOGY.fullmatch(topology)
    if not match:
        raise InputError(f"--topology={topology} must be such as v5e:2x4, v6e:16x16, v5p:2x2x1 or v5e:16x16,slices=2")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("--topology needs TPU's compiler: pip install '.[aot]'")
    jax.config.update("jax_platforms", "cpu")  # no device of this machine is used
    # libtpu looks for the machine that it is on, and complains if there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    options: dict[str, Any] = {"num_slices": int(match["slices"])} if match["slices"] else {}
    generation, _, sizes = match["name"].partition(":")
    if set(sizes) <= set("1x"):
        options["chips_per_host_bounds"] = (1, 1, 1)
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # two cores are one device, as on Cloud TPU
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=match["name"], **options)
    except Exception as error:  # its kind differs between versions
        raise InputError(f"--topology={topology}: {one_line(error)}") from error
    return divide(np.array(described.devices), shards)


def compile_program(config: ConfigDict, backbone: BackboneShape, mesh: Mesh, what: str) -> CompiledProgram:
    """Compiles a config's program for 'training' or 'scoring'.

    XLA counts the body of a loop once. All layers but the last are a loop, so a layer is the difference to a model with
    one layer, which has no loop. Members are a loop around everything that counts.

    Raises:
      InputError: the program does not fit into the chip's memory.
    """
    layers, members = backbone.config.layers, config.prompt.members
    compiled, seconds = _compile(config, backbone, mesh, what)
    once, memory, text = compiled.cost_analysis(), compiled.memory_analysis(), compiled.as_text()
    single = once if layers == 1 else _compile(config, backbone.last_layers(1), mesh, what)[0].cost_analysis()

    def count(name: str) -> float:
        return members * (single[name] + (layers - 1) * (once[name] - single[name]))

    training = what == "training"
    size = config.train.batch_size if training else config.score.batch_size
    loops = [*[1] * training, *[members] * (members > 1), layers - 1]  # over steps, of which one counts
    return CompiledProgram(
        windows=-(-size // mesh.size),
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes,
        flops=count("flops"),
        traffic=count("bytes accessed"),
        collectives=collectives(text, loops),
        seconds=seconds,
        text=text,
    )


def _compile(config: ConfigDict, backbone: BackboneShape, mesh: Mesh, what: str) -> tuple[Any, float]:
    lowered = getattr(lower_programs(config, backbone, mesh), what)
    began = time.monotonic()
    try:
        return lowered.compile(), time.monotonic() - began
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        reason = one_line(error).removeprefix("RESOURCE_EXHAUSTED: ")
        raise InputError(f"{what} does not fit: {reason} docs/troubleshooting.md says what to reduce") from error


def collectives(text: str, loops: Sequence[int] = ()) -> dict[str, int]:
    """Returns the bytes that each kind of collective in a compiled program yields.

    `loops` are the rounds of the program's nested loops, from the outermost one. A collective that is spread over other
    operations stands in each of them, and counts once.
    """
    sizes: Counter[str] = Counter()
    channels: set[str] = set()
    for line in text.splitlines():
        if match := _COLLECTIVE.search(line):
            channel = _CHANNEL.search(line)
            if channel and channel[0] in channels:
                continue
            channels |= {channel[0]} if channel else set()
            rounds = math.prod(loops[: line.count("while/body")])
            sizes[match["name"]] += rounds * sum(
                math.prod(int(size) for size in array["shape"].split(",") if size)
                * max(int(array["bits"] or 8) // 8, 1)
                for array in _ARRAY.finditer(match["shapes"])
            )
    return dict(sizes)
