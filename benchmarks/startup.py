"""Measures how long a start takes, without and with the compiled programs of an earlier one.

python benchmarks/startup.py [--rounds=3]

all-MiniLM-L6-v2, defaults of configs/files.py on a table of 6,000 generated rows, each start in a new process:
  - from the command to the end of the first of two epochs of --mode=train, a handful of steps;
  - from the command to the first score of --mode=score --input=-;
  - in Python, from the start of the interpreter until load_backbone returns, and until SpearDetector.load and
    decision_function have scored 1,024 rows.
Starts without and with kept programs alternate; medians over rounds, and the range.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 6000
LOAD = 'from spear_jax import load_backbone; load_backbone("sentence-transformers/all-MiniLM-L6-v2"); print("there")'
SCORE = (
    "import sys, numpy as np; from spear_jax import SpearDetector;"
    " SpearDetector.load(sys.argv[1]).decision_function(np.sin(np.arange(1024.0))); print('there')"
)


def seconds_until(command: Sequence[str], sign: str, kept: Path, rows: str = "") -> float:
    """Starts a command and returns the seconds until a line of its output matches `sign`, then ends it."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(kept), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"  # as spear_jax sets it
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin and process.stdout
        if rows:
            process.stdin.write(rows)
            process.stdin.flush()
        output = []
        for line in process.stdout:
            output.append(line)
            if re.search(sign, line):
                seconds = time.perf_counter() - began
                process.kill()
                return seconds
    raise RuntimeError(f"no {sign!r} in {''.join(output)}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        values = np.sin(np.arange(ROWS) / 9) + 0.1 * rng.normal(size=ROWS)
        labels = np.arange(ROWS) % 500 > 480
        values[labels] += 3
        table = folder / "table.csv"
        pd.DataFrame({"value": values.round(4), "label": labels.astype(int)}).to_csv(table, index=False)
        program = [sys.executable, "-m", "spear_jax.main"]
        train = [*program, "--config=configs/files.py:minilm", f"--config.data.dir={table}", "--config.train.epochs=2"]
        subprocess.run([*train, f"--workdir={folder / 'run'}"], check=True, stdout=subprocess.DEVNULL)
        detector = str(folder / "run" / "detector")
        live = "value\n" + "\n".join(map(str, values[:2000].round(4))) + "\n"
        starts = {
            "--mode=train, to the end of the first epoch": (train, "^epoch +1/2", ""),
            "--mode=score --input=-, to the first score": (
                [*program, "--mode=score", f"--detector={detector}", "--input=-"],
                "^input,0,",
                live,
            ),
            "load_backbone": ([sys.executable, "-c", LOAD], "there", ""),
            "SpearDetector.load, decision_function": ([sys.executable, "-c", SCORE, detector], "there", ""),
        }
        for title, (command, sign, rows) in starts.items():
            times: dict[str, list[float]] = {"first start": [], "second start": []}
            for number in range(rounds):
                kept = folder / f"programs_{number}_{len(title)}"
                for start, measured in times.items():
                    workdir = [f"--workdir={folder / f'{number}_{start[:3]}'}"] if "--mode=train" in title else []
                    measured.append(seconds_until([*command, *workdir], sign, kept, rows))
            shown = [
                f"{start} {statistics.median(own):5.1f} s ({min(own):.1f} to {max(own):.1f})"
                for start, own in times.items()
            ]
            print(f"{title:45} {', '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
