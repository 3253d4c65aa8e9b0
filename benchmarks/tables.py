"""Writes the GPU tables of benchmarks/README.md from the files in benchmarks/results/.

python benchmarks/tables.py
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
BEGIN, END = "<!-- from results/, by tables.py -->\n", "<!-- end -->\n"
NOT_MEASURED = "Not measured yet: `bash benchmarks/gpu.sh` on a machine with an NVIDIA GPU writes the figures.\n"
NAMES = {"minilm": "MiniLM", "bert": "BERT-base", "gemma": "Gemma 2B"}
Row = dict[str, Any]


def rows_of(results: Row, part: str) -> list[Row]:
    """Returns the rows of all parts whose name begins with `part`."""
    return [
        row for name, outcome in results["parts"].items() if name.startswith(part) for row in outcome.get("rows", [])
    ]


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a table, or nothing if it has no rows."""
    lines = [list(header), *map(list, rows)]
    if len(lines) == 1:
        return ""
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """Writes a number with some significant digits; '-' if it was not measured."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def fastest(rows: Iterable[Row], model: str, window: int, what: str) -> Row:
    """Returns the row of the batch size with the highest rate; an empty one if none was measured."""
    rows = [row for row in rows if (row["model"], row["window"], row.get("what")) == (model, window, what)]
    return max(
        (row for row in rows if "windows_per_second" in row), key=lambda row: row["windows_per_second"], default={}
    )


def rate_cells(row: Row, tflops: float | None) -> list[str]:
    """Returns the rate and, in percent of the measured matrix product, the use of the device."""
    rate = row.get("windows_per_second")
    if rate is None or not tflops:
        return [number(rate), "-"]
    return [number(rate), f"{100 * rate * row['flops_per_window'] / (1e12 * tflops):.0f} %"]


def speed_table(results: Row, tflops: float | None) -> str:
    """Returns rates, use of the device and memory for each model and window, beside torch."""
    speed, eager, compiled = (rows_of(results, part) for part in ("speed", "torch eager", "torch compile"))
    table = []
    for model, window in dict.fromkeys((row["model"], row["window"]) for row in speed + eager + compiled):
        cells = [f"{NAMES.get(model, model)}, T = {window}"]
        for what in ("training", "scoring"):
            ours = fastest(speed, model, window, what)
            cells += [str(ours.get("batch", "-")), *rate_cells(ours, tflops)]
            cells += [
                number(fastest(rows, model, window, what).get("windows_per_second")) for rows in (eager, compiled)
            ]
        cells.append(number(fastest(speed, model, window, "training").get("peak_gigabytes")))
        table.append(cells)
    columns = ["batch", "windows/s", "MFU", "PEFT eager", "PEFT compiled"]
    header = [
        "bfloat16, m = 20",
        *[f"{what}: {columns[0]}" if i == 0 else columns[i] for what in ("training", "scoring") for i in range(5)],
        "peak GB",
    ]
    return markdown(header, table)


def attention_table(results: Row) -> str:
    """Returns the milliseconds of each variant of attention, forward / forward and gradient."""
    rows = rows_of(results, "attention")
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    table = []
    for model, window in dict.fromkeys((row["model"], row["window"]) for row in rows):
        found = {row["variant"]: row for row in rows if (row["model"], row["window"]) == (model, window)}
        batch = next(iter(found.values()))["batch"]
        cells = [
            f"{number(row['forward_ms'])} / {number(row['gradient_ms'])}"
            if "forward_ms" in row
            else "fails"
            if row
            else "-"
            for row in (found.get(variant, {}) for variant in variants)
        ]
        table.append([f"{NAMES.get(model, model)}, T = {window}, batch {batch}", *cells])
    return markdown(["attention of one layer, ms: forward / with gradient", *variants], table)


def detector_table(results: Row) -> str:
    """Returns the rates of several prompts at once."""
    rows = [row for row in rows_of(results, "detectors") if "windows_per_second" in row]
    table = []
    for prompts in dict.fromkeys(row["prompts"] for row in rows):
        rates = {row["what"]: row["windows_per_second"] for row in rows if row["prompts"] == prompts}
        table.append([str(prompts), number(rates.get("training")), number(rates.get("scoring"))])
    shape: Row = rows[0] if rows else {"model": "", "windows_each": 0}
    name = f"prompts at once, {NAMES.get(shape['model'], shape['model'])}, {shape['windows_each']} windows each"
    return markdown([name, "training windows/s in total", "scoring"], table)


def parity_table(results: Row) -> str:
    """Returns the errors against float32 on the CPU."""
    rows = [row for row in rows_of(results, "parity") if "dtype" in row]
    return markdown(
        ["against float32 on the CPU, relative L2 error", "hidden states", "prompt's gradient"],
        [
            [
                f"{row['dtype']}, precision {row['precision']}",
                f"{row['hidden_states']:.1e}",
                f"{row['prompt_gradient']:.1e}",
            ]
            for row in rows
        ],
    )


def quickstart_table(results: Row) -> str:
    """Returns the seconds and the metrics of the quickstart's runs."""
    table = []
    for name, outcome in results["parts"].items():
        if name.startswith("quickstart") and outcome.get("rows"):
            row = outcome["rows"][0]
            metrics = [number(row["test"][metric]) for metric in ("auroc", "aupr", "vus_pr")]
            table.append([name, f"{outcome['seconds']:.0f}", f"{row['seconds']['training']:.0f}", *metrics])
    return markdown(["run", "seconds", "of them training", "AUROC", "AUPR", "VUS-PR"], table)


def device_table(results: Row) -> str:
    """Returns all tables of a device."""
    facts: Row = {}
    for row in rows_of(results, "rates"):
        facts |= row
    tflops = facts.get("tflops")
    versions = facts.get("versions", {})
    software = ", ".join(
        f"{name} {versions[name]}" for name in ("jax", "torch", "transformers", "peft") if name in versions
    )
    missing = [
        f"{name} ({(outcome.get('failed') or outcome['skipped']).split(' | ')[-1].strip()})"
        for name, outcome in results["parts"].items()
        if "failed" in outcome or "skipped" in outcome
    ]
    title = (
        f"### {facts.get('device', 'unknown device')}\n\n{results['date']}; {software}; {'; '.join(results['driver'])}."
    )
    ceilings = (
        f" Ceilings in the same run: a {facts.get('matmul', 'matrix product')} matrix product"
        f" {number(tflops)} TFLOP/s, a copy {number(facts.get('terabytes_per_second'))} TB/s.\n\n"
    )
    tables = [table(results) for table in (parity_table, quickstart_table, attention_table, detector_table)]
    text = title + ceilings + speed_table(results, tflops) + "".join(tables)
    return text + (f"Not measured: {'; '.join(missing)}.\n".replace("|", "/") if missing else "")


def all_tables(folder: Path = BENCHMARKS / "results") -> str:
    """Returns the tables of all devices, or the command that measures one."""
    files = sorted(folder.glob("*.json"))
    return "\n".join(device_table(json.loads(file.read_text())) for file in files) or NOT_MEASURED


def main() -> None:
    readme = BENCHMARKS / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + all_tables() + END + after)


if __name__ == "__main__":
    main()
