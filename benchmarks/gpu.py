"""Runs the parts of the GPU benchmark, each in a process of its own, and writes results/DEVICE.json after each.

    bash benchmarks/gpu.sh [--budget=330] [--only=WORDS] [--results=FOLDER] [--cpu]

Parts are ordered by value. A part that does not fit into what is left of the budget is skipped; one that fails or
outlasts its limit leaves what it measured until then, and the reason. This process never touches the GPU.
"""

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import tables
from gpu_shapes import BATCHES

BENCHMARKS = Path(__file__).resolve().parent
RESULTS = BENCHMARKS / "results"
TINY_RUN = (
    "--config.data.synthetic.series=6",
    "--config.data.synthetic.length=256",
    "--config.data.synthetic.past=64",
    "--config.data.window=32",
    "--config.data.stride=32",
    "--config.controls.head_only=false",
    "--config.train.epochs=1",
    "--config.train.batch_size=8",
    "--config.score.batch_size=8",
    "--config.prompt.length=4",
)


class Part(NamedTuple):
    """A part of the benchmark.

    Attributes:
      name: its key in the results.
      command: words after `python`; 'FILE' stands for the file of its rows, 'FOLDER' for a new folder.
      expected: seconds it will probably take; it does not start with less time left.
      limit: seconds after which it is stopped.
    """

    name: str
    command: tuple[str, ...]
    expected: float
    limit: float


def jax_part(words: str, expected: float, limit: float) -> Part:
    """Returns a part that gpu_jax.py measures."""
    return Part(words, (str(BENCHMARKS / "gpu_jax.py"), "FILE", *words.split()), expected, limit)


def torch_part(words: str, expected: float, limit: float) -> Part:
    """Returns a part that gpu_torch.py measures."""
    return Part(f"torch {words}", (str(BENCHMARKS / "gpu_torch.py"), "FILE", *words.split()), expected, limit)


def quickstart_part(name: str, arg: str, fields: tuple[str, ...], limit: float) -> Part:
    """Returns a run of the quickstart, with the program as shipped."""
    config = f"--config=configs/quickstart.py{arg}"
    words = ("-m", "spear_jax.main", config, "--workdir=FOLDER", *fields)
    return Part(f"quickstart {name}", words, limit / 4, limit)


def list_parts(cpu: bool) -> list[Part]:
    """Lists the parts, the most valuable first."""
    if cpu:
        return [
            jax_part("rates", 1, 60),
            jax_part("parity", 1, 120),
            jax_part("speed tiny-bert 12", 1, 120),
            quickstart_part("debug", ":debug", TINY_RUN, 120),
            jax_part("attention", 1, 120),
            jax_part("speed tiny-gemma 12", 1, 120),
            jax_part("detectors", 1, 120),
            torch_part("eager tiny-bert 12", 1, 120),
            torch_part("eager tiny-gemma 12", 1, 120),
        ]
    shapes = [f"{model} {window}" for model, window in BATCHES if not model.startswith("tiny")]
    first = ["minilm 128", "bert 128"]
    rest = ["gemma 128", "bert 492", "minilm 492", "gemma 492"]
    assert sorted(first + rest) == sorted(shapes)
    return [
        jax_part("rates", 8, 60),
        jax_part("parity", 10, 90),
        *[jax_part(f"speed {shape}", 8, 60) for shape in first],
        quickstart_part("debug", ":debug", (), 60),
        quickstart_part("float32", "", (), 120),
        jax_part("attention", 15, 75),
        *[jax_part(f"speed {shape}", 10, 60) for shape in rest],
        jax_part("detectors", 10, 60),
        *[torch_part(f"eager {shape}", 10, 40) for shape in first + rest],
        quickstart_part("bfloat16", "", ("--config.backbone.dtype=bfloat16",), 100),
        *[torch_part(f"compile {shape}", 20, 70) for shape in first + rest],
    ]


def run_part(part: Part, limit: float) -> dict[str, Any]:
    """Runs a part and returns its rows, its seconds, and the reason if it did not end well."""
    folder = Path(tempfile.mkdtemp(prefix="spear_gpu_"))
    rows, run, log = folder / "rows.json", folder / "run", folder / "log"
    words = [word.replace("FILE", str(rows)).replace("FOLDER", str(run)) for word in part.command]
    # torch and JAX never share the card, so JAX may take nearly all of its memory.
    began = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=BENCHMARKS.parent,
            env={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", **os.environ},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    outcome: dict[str, Any] = {"seconds": round(time.perf_counter() - began, 1)}
    if rows.exists():
        outcome["rows"] = json.loads(rows.read_text())
    if (run / "results.json").exists():
        outcome["rows"] = [summarize_run(json.loads((run / "results.json").read_text()))]
    if code != 0:
        lines = log.read_text(errors="replace").strip().splitlines()[-4:]
        outcome["failed"] = f"time limit of {limit:.0f} s" if code is None else f"exit code {code}: {' | '.join(lines)}"
    return outcome


def summarize_run(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of a run that the benchmark keeps."""
    return {
        "backbone": results["backbone"],
        "test": {name: results["test"][name] for name in ("auroc", "aupr", "vus_pr", "f1", "event_f1")},
        "seconds": results["seconds"],
        "throughput": results["throughput"],
        "memory": results.get("memory"),
        "device": results["versions"]["device"],
    }


def read_driver() -> list[str]:
    """Returns the card, the driver and the memory as nvidia-smi names them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip().splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return []


def file_name(device: str) -> str:
    """Returns the name of a device's file: nvidia-h200.json."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=330, help="seconds of the whole benchmark")
    parser.add_argument("--only", default="", help="a regular expression: the parts to run, e.g. 'rates|attention'")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU")
    flags = parser.parse_args()
    if flags.cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    began = time.perf_counter()
    results: dict[str, Any] = {
        "schema": 1,
        "date": datetime.date.today().isoformat(),
        "command": "bash benchmarks/gpu.sh " + " ".join(word for word in sys.argv[1:] if "--results" not in word),
        "driver": [] if flags.cpu else read_driver(),
        "parts": {},
    }
    file = flags.results / "unknown-device.json"
    flags.results.mkdir(parents=True, exist_ok=True)
    for part in list_parts(flags.cpu):
        if not re.search(flags.only, part.name):
            continue
        left = flags.budget - (time.perf_counter() - began)
        if part.name.startswith("torch") and not (find_spec("torch") and find_spec("peft")):
            outcome: dict[str, Any] = {"skipped": "torch or PEFT is not installed"}
        elif left < part.expected:
            outcome = {"skipped": "budget"}
        else:
            outcome = run_part(part, min(part.limit, left))
        results["parts"][part.name] = outcome
        if part.name == "rates" and outcome.get("rows"):
            file = flags.results / file_name(outcome["rows"][0]["device"])
        results["seconds"] = round(time.perf_counter() - began, 1)
        file.write_text(json.dumps(results, indent=1) + "\n")
        status = outcome.get("failed") or outcome.get("skipped") or f"{len(outcome.get('rows', []))} rows"
        print(f"{results['seconds']:6.1f} s  {part.name}: {status}", flush=True)
    print(f"\n{file}\n\n{tables.device_table(results)}")


if __name__ == "__main__":
    main()
