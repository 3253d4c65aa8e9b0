"""Measures the latency of live scores, and its cost compared with scoring a whole file.

    python benchmarks/live_scoring.py DETECTOR [--rows=2000] [--stride=1]

DETECTOR is a detector or run folder. One column, a new window every `stride` rows, the first score of each row; once in
Python (`Stream.add`), once through the program's standard input and output.
"""

import argparse
import subprocess
import sys
import time

import jax
import numpy as np
from etils import epath

from spear_jax.detector import Column, Detector, Scorer, Stream
from spear_jax.methods import load_method_backbone

NO_TIMES = np.zeros(0, np.int64)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("detector")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--stride", type=int, default=1)
    flags = parser.parse_args()
    detector = Detector.load(epath.Path(flags.detector))
    scorer = Scorer.place(detector, load_method_backbone(detector.config), 1)
    columns = [Column("series", "value")]
    values = np.cumsum(np.random.default_rng(0).normal(size=(flags.rows, 1)), axis=0)

    def run(scorer: Scorer, stride: int, pieces: int) -> np.ndarray:
        """Seconds of each call that gave rows out."""
        stream, seconds = Stream(scorer, columns, stride=stride, overlap="first"), []
        for begin in range(0, flags.rows, pieces):
            began = time.perf_counter()
            if len(stream.add(values[begin : begin + pieces], NO_TIMES).scores):
                seconds.append(time.perf_counter() - began)
        return np.array(seconds)

    def run_program() -> np.ndarray:
        """Seconds from the line of CSV that completes a window to the line with its score."""
        command = [sys.executable, "-m", "spear_jax.main", "--mode=score", f"--detector={flags.detector}", "--input=-"]
        lines = [f"{value}\n".encode() for (value,) in values]
        first = max(scorer.window, scorer.scaler(columns).awaited_rows)
        first += -(first - scorer.window) % flags.stride  # until a window is complete
        with subprocess.Popen(
            [*command, f"--config.score.stride={flags.stride}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin and process.stdout

            def pass_through(rows: list[bytes], lines_out: int) -> float:
                process.stdin.writelines(rows[:-1])
                process.stdin.flush()
                began = time.perf_counter()
                process.stdin.write(rows[-1])
                process.stdin.flush()
                for _ in range(lines_out):
                    process.stdout.readline()
                return time.perf_counter() - began

            pass_through([b"value\n", *lines[:first]], 1 + first)  # compiles
            begins = range(first, flags.rows - flags.stride + 1, flags.stride)
            seconds = [pass_through(lines[begin : begin + flags.stride], flags.stride) for begin in begins]
            process.stdin.close()
        return np.array(seconds)

    run(scorer, flags.stride, 1)  # compiles
    live = run(scorer, flags.stride, 1)[1:]  # the first call scores all that the scale had waited for
    whole = scorer.with_batch_size(detector.config.score.batch_size)
    run(whole, flags.stride, flags.rows)
    batch = run(whole, flags.stride, flags.rows).sum() / (flags.rows / flags.stride)
    name = f"{detector.backbone['name']}, window {scorer.window}, stride {flags.stride}"
    print(f"{name}; jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}")
    for what, seconds in (("in Python", live), ("whole program, CSV line in to score line out", run_program())):
        p50, p99 = 1e3 * np.quantile(seconds, (0.5, 0.99))
        print(f"live, {what}: {p50:.1f} ms (median), {p99:.1f} ms (99 %) from the row that completes a window")
    print(f"a window of the whole file at once: {1e3 * batch:.1f} ms, {np.median(live) / batch:.2f} times as fast")


if __name__ == "__main__":
    main()
