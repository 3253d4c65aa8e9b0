"""Tests what TPU's compiler makes of the programs for training and scoring; needs libtpu, but no TPU."""

import importlib.util
import re
import types

import jax
import pytest
from conftest import CONFIGS, Spear, command
from jax.sharding import Mesh

from spear_jax import parallel
from spear_jax.commands import topology
from spear_jax.commands.memory import byte_count
from spear_jax.commands.programs import Programs, describe, lower_programs
from spear_jax.commands.topology import collectives, find_topology
from spear_jax.config import load_valid_config

compiler = importlib.util.find_spec("libtpu")
needs_compiler = pytest.mark.skipif(compiler is None, reason="TPU's compiler is not installed: pip install '.[aot]'")
TOPOLOGY = "v5e:2x4"


@pytest.fixture(scope="module")
def programs() -> Programs:
    """Lowers the quickstart's programs, on MiniLM, for eight chips."""
    fields = {"backbone.dtype": "bfloat16", "train.batch_size": "64", "score.batch_size": "64"}
    config = load_valid_config(str(CONFIGS / "quickstart.py"), fields)
    mesh = find_topology(TOPOLOGY)
    assert isinstance(mesh, Mesh) and mesh.size == 8
    return lower_programs(config, describe(config), mesh)


@needs_compiler
@pytest.mark.tpu_compiler
def test_training_exchanges_nothing_but_the_gradient(programs: Programs) -> None:
    compiled = programs.training.compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()

    # The gradient, the loss and the number of time steps are added up over the chips; nothing is gathered or moved.
    exchanged, trainable = collectives(text), byte_count(programs.trainable)
    assert exchanged == {"all-reduce": trainable + 2 * 4}
    paths = re.findall(r' all-reduce(?:-start)?\(.*op_name="([^"]*)"', text)
    assert paths and all(path.count("while/body") == 1 for path in paths)  # in a step, but in no layer

    # Every array that is donated is used for a result.
    donated = jax.tree.leaves((programs.trainable, programs.optimizer))
    assert len(re.findall(r"\{\d+\}: \(\d+, \{\}, m(?:ay|ust)-alias\)", text.partition("\n")[0])) == len(donated)
    assert memory.alias_size_in_bytes >= byte_count(donated)
    results = jax.tree.leaves(compiled.output_shardings)
    assert all(sharding.is_fully_replicated for sharding in results)

    check_numbers(text)
    check_products(programs.training.as_text())


@needs_compiler
@pytest.mark.tpu_compiler
def test_scoring_gathers_nothing_but_the_scores(programs: Programs) -> None:
    text = programs.scoring.compile().as_text()
    assert collectives(text) == {"all-gather": 4 * programs.batch["mask"].size}
    check_numbers(text)
    check_products(programs.scoring.as_text())


def check_numbers(compiled: str) -> None:
    """Checks that a program has no numbers of 64 bits, which a TPU emulates, and waits for no host."""
    assert not re.findall(r"\b[fsuc](?:64|128)\[", compiled)
    assert not re.findall(
        r" (?:infeed|outfeed|send|recv)(?:-start|-done)?\(|MoveToHost|MoveToDevice|callback", compiled
    )


def check_products(lowered: str) -> None:
    """Checks that matrix products are in bfloat16.

    Two kinds have operands in float32, which a TPU rounds to bfloat16 unless a precision is asked for: the head's, with
    one number per step, and those of attention's gradient, which have batch dimensions.
    """
    products = re.findall(r"dot_general (.*) : \((.*)\) -> ", lowered)
    wide = [(how, operands) for how, operands in products if "f32" in operands]
    assert len(products) > len(wide) > 0
    assert all("batching_dims" in how or re.search(r"(?:<|x)1x", operands) for how, operands in wide), wide
    assert all("precision = [DEFAULT, DEFAULT]" in how for how, _ in products)


@needs_compiler
@pytest.mark.tpu_compiler
@pytest.mark.parametrize("name", ["v9:2x2", "v5e:3x3", "v5e:2x4,slices=0", "v5e", "v5p-8"])
def test_a_topology_that_does_not_exist_is_refused(name: str, spear: Spear) -> None:
    outcome = spear(*command("quickstart:debug", mode="memory", topology=name))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: --topology={name}") and outcome.err.count("\n") == 1


def test_the_compiler_must_be_installed(spear: Spear, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name))
    outcome = spear(*command("quickstart:debug", mode="memory", topology=TOPOLOGY))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: --topology needs TPU's compiler: pip install '.[aot]'\n"


def test_a_topology_only_applies_to_memory(spear: Spear) -> None:
    outcome = spear(*command("quickstart:debug", mode="preview", topology=TOPOLOGY))
    assert (outcome.code, outcome.out) == (2, "")
    assert "--topology only applies to --mode=memory" in outcome.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%a = f32[] all-reduce(%x), to_apply=%sum", {"all-reduce": 4}),
        ("%a = (bf16[8,2]{1,0}, pred[3]{0}) all-gather-start(%x, %y)", {"all-gather": 35}),
        ("%a = f32[2] get-tuple-element(%all-reduce.1), index=0", {}),
        ("%a = s32[2,2]{1,0:T(8,128)} ragged-all-to-all(%x)", {"ragged-all-to-all": 16}),
    ],
)
def test_collectives_are_counted_in_bytes(line: str, expected: dict[str, int]) -> None:
    assert collectives(f"  {line}\n") == expected


def test_a_collective_in_a_layer_counts_once_per_layer() -> None:
    paths = ("jit(call)/while/body/head", "jit(call)/while/body/backbone/while/body/key")
    text = "".join(f'  %a = f32[2] all-reduce(%x), metadata={{op_name="{path}"}}\n' for path in paths)
    assert collectives(text, (1, 11)) == {"all-reduce": 8 + 88}


def test_a_collective_that_is_spread_over_other_operations_counts_once() -> None:
    text = "".join(f"  %a = f32[2] all-gather(%x), channel_id={number}\n" for number in (1, 2, 2, 12))
    assert collectives(text) == {"all-gather": 3 * 8}


def test_a_program_that_does_not_fit_ends_in_one_line(spear: Spear, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow() -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM: 26.02G exceeds 15.75G.")

    program = types.SimpleNamespace(compile=overflow)
    monkeypatch.setattr(topology, "lower_programs", lambda *_: types.SimpleNamespace(training=program))
    monkeypatch.setattr(topology, "find_topology", lambda *_: parallel.make_mesh())
    outcome = spear(*command("quickstart:debug", mode="memory", topology=TOPOLOGY))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: training does not fit: Ran out of memory on HBM: 26.02G exceeds 15.75G.")
