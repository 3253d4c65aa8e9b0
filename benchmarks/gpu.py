"""Compiles and then measures the parts of the GPU benchmark, and writes results/DEVICE.json after every row.

    bash benchmarks/gpu.sh [--budget=600] [--only=WORDS] [--results=FOLDER] [--cpu]
    bash benchmarks/gpu.sh --compile-only --cache=FOLDER [--jobs=8]
    bash benchmarks/gpu.sh --cache=FOLDER

Compiling takes far longer than measuring, so all programs are first compiled at once, each part in a process of its
own, into a cache. The GPU may be busy meanwhile. Then one process at a time has the GPU, and measures several parts;
the next ones import their packages meanwhile. The first command does both, the others one each.

Parts are ordered by value. A process may take half of what is left of the budget; a part that fails or is stopped
leaves what it measured until then, and the reason. Parts of an earlier run that are not measured again are kept. This
process never touches the GPU.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tables

BENCHMARKS = Path(__file__).resolve().parent
RESULTS = BENCHMARKS / "results"
SMALLEST_LIMIT = 25.0  # seconds that a process gets if they are left
AHEAD = 2  # processes that import their packages before it is their turn
Group = list[str]  # parts that one process measures

GROUPS: list[Group] = [
    ["rates"],
    ["speed minilm 128", "speed bert 128"],
    ["torch eager minilm 128", "torch eager bert 128"],
    ["parity"],
    ["quickstart float32"],
    ["attention minilm 128", "attention bert 492", "attention bert 128", "attention gemma 492"],
    ["speed minilm 492", "speed bert 492"],
    ["speed gemma 128"],
    ["torch eager gemma 128"],
    ["detectors 1", "detectors 4", "detectors 16"],
    ["speed gemma 492"],
    ["torch eager minilm 492", "torch eager bert 492", "torch eager gemma 492"],
    ["torch compile minilm 128", "torch compile bert 128"],
    ["quickstart bfloat16"],
]
CPU_GROUPS: list[Group] = [
    ["rates"],
    ["speed tiny-bert 12", "speed tiny-gemma 12"],
    ["torch eager tiny-bert 12", "torch eager tiny-gemma 12"],
    ["parity"],
    ["quickstart debug"],
    ["attention tiny-bert 12", "attention tiny-gemma 12"],
    ["detectors 1", "detectors 4"],
]


def cache_variables(cache: Path, compiling: bool) -> dict[str, str]:
    """Returns the environment in which programs are compiled into a cache, or taken from it."""
    shares = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if compiling else {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    return {
        **shares,
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
    }


class Process:
    """A process that measures or compiles parts; it imports its packages at once and waits for its turn."""

    def __init__(self, parts: Group, cache: Path, *options: str) -> None:
        self.parts = parts
        self.folder = Path(tempfile.mkdtemp(prefix="spear_gpu_"))
        self.began = time.perf_counter()
        program = "gpu_torch.py" if parts[0].startswith("torch") else "gpu_jax.py"
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(BENCHMARKS / program), "--wait", *options, str(self.folder / "rows"), *parts],
                cwd=BENCHMARKS.parent,
                env={**os.environ, **cache_variables(cache, "--compile-only" in options)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Lets the process use the GPU."""
        self.began = time.perf_counter()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"go\n")
            self.process.stdin.close()

    def stop(self) -> None:
        """Kills the process and its children, if it still runs."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def outcomes(self) -> dict[str, Any]:
        """Returns what was measured until now: rows, seconds, and the reason if a part did not end well."""
        file = self.folder / "rows"
        outcomes: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        code = self.process.poll()
        if code is None:
            return outcomes
        for part in self.parts:
            outcome = outcomes.setdefault(part, {"rows": []})
            if "seconds" in outcome:
                continue
            lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()[-4:]
            taken = f"stopped after {time.perf_counter() - self.began:.0f} s"
            outcome["failed"] = taken if code == -signal.SIGKILL else f"exit code {code}: {' | '.join(lines)}"
        return outcomes


def describe(part: str, outcome: dict[str, Any]) -> str:
    """Returns a line about a part that ended."""
    hits, misses = outcome.get("cache_hits", 0), outcome.get("cache_misses", 0)
    status = outcome.get("failed") or outcome.get("skipped") or f"{outcome['seconds']:.1f} s"
    return f"{part}: {status}; {len(outcome.get('rows', []))} rows; programs in the cache {hits}, not {misses}"


def compile_parts(groups: list[Group], cache: Path, jobs: int, budget: float) -> None:
    """Compiles the parts, several at once, each in its own process; reports them in compile.json in the cache."""
    began = time.perf_counter()
    waiting = [part for group in groups for part in group if not part.startswith("torch eager")]
    running: list[Process] = []
    report: dict[str, Any] = {}
    try:
        while (waiting or running) and time.perf_counter() - began < budget:
            while waiting and len(running) < jobs:
                running.append(Process([waiting.pop(0)], cache, "--compile-only"))
                running[-1].start()
            time.sleep(0.2)
            for process in [process for process in running if process.process.poll() is not None]:
                running.remove(process)
                report |= process.outcomes()
                (cache / "compile.json").write_text(json.dumps(report, indent=1) + "\n")
                part = process.parts[0]
                print(f"{time.perf_counter() - began:6.1f} s  compiled {describe(part, report[part])}", flush=True)
    finally:
        for process in running:
            process.stop()
    for part in [part for process in running for part in process.parts] + waiting:
        print(f"{time.perf_counter() - began:6.1f} s  not compiled: {part}", flush=True)


def measure_parts(groups: list[Group], cache: Path, budget: float, report: Callable[[dict[str, Any]], None]) -> None:
    """Measures the parts, one process at a time; reports the outcomes of a process whenever they change."""
    began = time.perf_counter()
    processes = [Process(group, cache) for group in groups[: 1 + AHEAD]]
    try:
        for i, group in enumerate(groups):
            left = budget - (time.perf_counter() - began)
            if left < 2:
                report({part: {"skipped": "budget"} for part in group})
                continue
            limit = min(left, max(SMALLEST_LIMIT, left / 2))
            process, seen = processes[i], ""
            process.start()
            while process.process.poll() is None:
                time.sleep(0.1)
                if time.perf_counter() - process.began > limit:
                    process.stop()
                outcomes = process.outcomes()
                if json.dumps(outcomes) != seen:
                    seen = json.dumps(outcomes)
                    report(outcomes)
            outcomes = process.outcomes()
            report(outcomes)
            for part, outcome in outcomes.items():
                print(f"{time.perf_counter() - began:6.1f} s  {describe(part, outcome)}", flush=True)
            processes += [Process(group, cache) for group in groups[len(processes) : len(processes) + 1]]
    finally:
        for process in processes:
            process.stop()


def merge_outcomes(parts: dict[str, Any], outcomes: dict[str, Any]) -> None:
    """Puts outcomes in the place of those of the same parts, unless these have rows and the new ones have none."""
    for part, outcome in outcomes.items():
        if outcome.get("rows") or not parts.get(part, {}).get("rows"):
            parts[part] = outcome


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


def choose_groups(cpu: bool, only: str) -> Iterator[Group]:
    """Yields the groups of parts whose names match and whose packages are installed."""
    torch = find_spec("torch") and find_spec("peft")
    for group in CPU_GROUPS if cpu else GROUPS:
        chosen = [part for part in group if re.search(only, part) and (torch or not part.startswith("torch"))]
        if chosen:
            yield chosen


def read_flags() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=600, help="seconds of the whole benchmark")
    parser.add_argument("--only", default="", help="a regular expression: the parts to run, e.g. 'rates|attention'")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--compile-only", action="store_true", help="only fill the cache")
    parser.add_argument("--cache", type=Path, help="folder of compiled programs; if given, nothing is compiled ahead")
    parser.add_argument("--jobs", type=int, default=8, help="processes that compile at once")
    return parser.parse_args()


def main() -> None:
    flags = read_flags()
    if flags.cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes that were started are stopped
    began = time.perf_counter()
    cache = (flags.cache or Path(tempfile.mkdtemp(prefix="spear_cache_"))).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    groups = list(choose_groups(flags.cpu, flags.only))
    if flags.compile_only or not flags.cache:
        compile_parts(groups, cache, flags.jobs, flags.budget if flags.compile_only else flags.budget / 2)
    if flags.compile_only:
        return
    driver = [] if flags.cpu else read_driver()
    flags.results.mkdir(parents=True, exist_ok=True)
    file = flags.results / file_name(driver[0].split(",")[0] if driver else "cpu")
    words = [word for word in sys.argv[1:] if not word.startswith(("--results", "--cache"))]
    results: dict[str, Any] = {
        "schema": 1,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["bash benchmarks/gpu.sh", *words]),
        "driver": driver,
        "parts": {},
    }
    if file.exists():
        known = {part for group in [*GROUPS, *CPU_GROUPS] for part in group}
        kept = json.loads(file.read_text())["parts"].items()
        results["parts"] = {part: outcome for part, outcome in kept if part in known and outcome.get("rows")}

    def report(outcomes: dict[str, Any]) -> None:
        merge_outcomes(results["parts"], outcomes)
        results["seconds"] = round(time.perf_counter() - began, 1)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=1) + "\n")
        partial.replace(file)

    measure_parts(groups, cache, flags.budget - (time.perf_counter() - began), report)
    print(f"\n{file}\n\n{tables.device_table(results)}")


if __name__ == "__main__":
    main()
