"""Compiles the training and scoring programs of three backbones for TPUs, and writes docs/results/tpu.md.

    python benchmarks/tpu.py [--only=bert] [--minutes=60]    needs pip install '.[aot]', but no TPU

Every program that compiles is added to results/tpu_programs.jsonl, from which the page is built; those that are there
are not compiled again. Weights are not needed: all is computed from shapes.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from spear_jax.commands.programs import describe
from spear_jax.commands.topology import CHIPS, compile_program, find_topology
from spear_jax.config import default_config
from spear_jax.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = REPOSITORY / "benchmarks" / "results" / "tpu_programs.jsonl"
PAGE = REPOSITORY / "docs" / "results" / "tpu.md"
BEGIN, END = "<!-- from benchmarks/results/, by benchmarks/tpu.py -->\n", "<!-- end -->\n"
BACKBONES = {
    "BERT-base": "random:google-bert/bert-base-uncased",
    "Llama-3.2-1B": "random:meta-llama/Llama-3.2-1B",
    "Gemma 2B": "random:google/gemma-2b",
}
TOPOLOGIES = {"v5e-1": "v5e:1x1", "v5e-8": "v5e:2x4", "v5e-256": "v5e:16x16", "v6e-8": "v6e:2x4", "v5p-8": "v5p:2x2x1"}
"""By Google's names, which count the cores of a v5p chip: a v5p-8 has four chips."""
ADVICE = " docs/troubleshooting.md says what to reduce"
HOP = 1e-6  # seconds that we assume for a message to the next chip, on top of its bytes
Row = dict[str, Any]


def plan() -> list[Row]:
    """Returns the programs to compile, the most telling first.

    A program depends on the windows of a chip and on the kind of chip; more chips only change what is exchanged.
    """
    groups = [
        (("v5e-8",), BACKBONES, "training", (32, 128)),
        (("v5e-8",), BACKBONES, "scoring", (128,)),
        (("v6e-8", "v5p-8"), BACKBONES, "training", (128,)),
        (("v5e-256", "v5e-1"), ("BERT-base", "Gemma 2B"), "training", (32,)),
        (("v6e-8", "v5p-8"), BACKBONES, "scoring", (128,)),
        (("v5e-8",), BACKBONES, "training", (8,)),
    ]
    return [
        {"backbone": backbone, "topology": topology, "what": what, "per_chip": per_chip}
        for topologies, backbones, what, sizes in groups
        for per_chip in sizes
        for topology in topologies
        for backbone in backbones
    ]


def compile_row(row: Row) -> Row:
    """Compiles a program; returns what the compiler says of it."""
    mesh = find_topology(TOPOLOGIES[row["topology"]])
    config = default_config()
    config.backbone.update(name=BACKBONES[row["backbone"]], dtype="bfloat16")
    config.data.window = 128
    config.train.batch_size = config.score.batch_size = mesh.size * row["per_chip"]
    facts: Row = {"chips": mesh.size, "kind": mesh.devices.flat[0].device_kind}
    try:
        program = compile_program(config, describe(config), mesh, row["what"])
    except InputError as error:
        return (
            row
            | facts
            | {"does_not_fit": str(error).removeprefix(f"{row['what']} does not fit: ").removesuffix(ADVICE)}
        )
    for name in ("arguments", "temporaries", "peak", "flops", "traffic", "collectives", "seconds"):
        facts[name] = getattr(program, name)
    return row | facts | {"roofline": program.roofline(CHIPS[facts["kind"]])}


def key(row: Row) -> tuple[Any, ...]:
    return row["backbone"], row["topology"], row["what"], row["per_chip"]


def read_rows() -> dict[tuple[Any, ...], Row]:
    lines = PROGRAMS.read_text().splitlines() if PROGRAMS.exists() else []
    return {key(row): row for row in map(json.loads, lines)}


def cells(row: Row) -> list[str]:
    """Returns a line of the table."""
    head = [row["backbone"], row["topology"], row["what"], str(row["per_chip"])]
    if "does_not_fit" in row:
        return [*head, f"does not fit: {row['does_not_fit']}", *["-"] * 6]
    roofline = row["roofline"]
    seconds = max(roofline.values())
    return [
        *head,
        f"{row['peak'] / 2**30:.1f} of {CHIPS[row['kind']].memory / 2**30:.0f}",
        f"{row['flops'] / 1e12:.3g}",
        f"{1e3 * roofline['operations']:.3g}",
        f"{1e3 * roofline['memory traffic']:.3g}",
        f"{row['chips'] * row['per_chip'] / seconds:,.0f}",
        " + ".join(f"{name} {size / 1024:.3g}" for name, size in row["collectives"].items()) or "none",
        f"{row['seconds']:.0f}",
    ]


def efficiency(rows: list[Row]) -> list[list[str]]:
    """Returns, for training BERT-base on one pod of v5e, the share of the time that is not spent on exchange.

    A step has two exchanges: the number of steps, then gradient and loss. Decoders have more, in every layer.
    """
    lines = []
    for row in rows:
        if (row["backbone"], row["topology"], row["what"]) != ("BERT-base", "v5e-8", "training"):
            continue
        step, line = max(row["roofline"]["operations"], row["roofline"]["memory traffic"]), []
        for side in ((1, 1), (2, 4), (4, 4), (8, 8), (16, 16)):
            # A ring along each axis: every chip sends its part to the next one, twice around.
            hops = sum(2 * (length - 1) for length in side)
            exchange = 2 * hops * HOP + (row["roofline"]["exchange"] if hops else 0)
            line.append(f"{100 * step / (step + exchange):.2f} %")
        lines.append([row["backbone"], str(row["per_chip"]), f"{1e3 * step:.3g}", *line])
    return lines


def markdown(header: list[str], lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, ["---"] * len(header), *lines]) + "\n"


def write_page(rows: list[Row]) -> None:
    """Writes the tables into the page."""
    header = [
        "backbone",
        "topology",
        "program",
        "windows per chip",
        "peak GiB",
        "TFLOP",
        "operations, ms",
        "traffic, ms",
    ]
    tables = markdown([*header, "roofline windows/s", "collectives, KiB", "compiled in, s"], list(map(cells, rows)))
    tables += markdown(
        ["backbone", "windows per chip", "roofline step, ms", "1 chip", "8", "16", "64", "256"], efficiency(rows)
    )
    missing = [row for row in plan() if key(row) not in set(map(key, rows))]
    if missing:
        tables += "Left out, since compiling takes minutes: "
        tables += "; ".join(" ".join(map(str, key(row))) for row in missing) + ".\n"
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + tables + END + rest.partition(END)[2])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of a backbone's name")
    parser.add_argument("--minutes", type=float, default=60.0, help="no program is begun after so many")
    flags = parser.parse_args()
    began, rows = time.monotonic(), read_rows()
    for row in plan():
        if key(row) in rows or flags.only.lower() not in row["backbone"].lower():
            continue
        if time.monotonic() - began > 60 * flags.minutes:
            break
        rows[key(row)] = compile_row(row)
        PROGRAMS.parent.mkdir(parents=True, exist_ok=True)
        with PROGRAMS.open("a") as file:
            file.write(json.dumps(rows[key(row)]) + "\n")
        print(" | ".join(cells(rows[key(row)])), flush=True)
    write_page([rows[key(row)] for row in plan() if key(row) in rows])


if __name__ == "__main__":
    main()
