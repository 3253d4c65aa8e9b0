"""Measures how time and memory of a run's parts grow with steps, series and the length of windows.

python benchmarks/scaling.py [--most=10000000]

Each row is one run of the program in a process of its own, on generated telemetry, with random:tiny, so that the parts
beside the model show: loading (generating, splitting, quantizing), training (one epoch), scoring (all splits),
evaluation (metrics, VUS, controls, bootstrap over series), and the rest (start, compiling, figures, report, files).
Prints seconds, the largest resident memory, and the exponent by which each part has grown since the row before: 1 is
linear. At 10^7 steps, a run takes about 2 GB.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARTS = ("loading", "training", "scoring", "evaluation", "rest")
STEPS = [10**power for power in range(4, 9)]


def run(series: int, length: int, window: int) -> tuple[dict[str, float], float]:
    """Returns the seconds of each part of a run, and the largest resident memory in MB."""
    fields = {
        "data.synthetic.series": series,
        "data.synthetic.length": length,
        "data.synthetic.past": min(length, 1024),
        "data.window": window,
        "data.stride": window,
        "train.epochs": 1,
        "controls.head_only": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "spear_jax.main", "--config=configs/quickstart.py:debug"]
        command += [f"--config.{name}={value}" for name, value in fields.items()] + [f"--workdir={folder}/run"]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            raise SystemExit(f"{command} failed")
        parts: dict[str, float] = json.loads((Path(folder) / "run" / "results.json").read_text())["seconds"]
    parts["rest"] = seconds - sum(parts.values())
    return parts, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10**7, help="steps of the largest run")
    most = parser.parse_args().most
    sizes = [steps for steps in STEPS if steps <= most]
    tables = {
        "steps, in 10 series, windows of 64": [(steps, 10, steps // 10, 64) for steps in sizes],
        "series, a million steps together, windows of 64": [
            (count, count, 10**6 // count, 64) for count in (10, 100, 1000, 10000) if most >= 10**6
        ],
        "steps in a window, a million steps in 10 series": [
            (window, 10, 10**5, window) for window in (64, 256, 1024, 4096, 8192) if most >= 10**6
        ],
    }
    for title, rows in tables.items():
        print(f"\n| {title} | {' | '.join(PARTS)} | memory |\n|{'---|' * (len(PARTS) + 2)}", flush=True)
        before: tuple[int, dict[str, float]] | None = None
        for size, series, length, window in rows:
            parts, megabytes = run(series, length, window)
            cells = []
            for part in PARTS:
                grown = ""
                if before and before[1][part] > 0 and parts[part] > 0:
                    grown = f" ({math.log(parts[part] / before[1][part]) / math.log(size / before[0]):.1f})"
                cells.append(f"{parts[part]:.1f} s{grown}")
            print(f"| {size:,} | {' | '.join(cells)} | {megabytes:,.0f} MB |", flush=True)
            before = size, parts


if __name__ == "__main__":
    main()
