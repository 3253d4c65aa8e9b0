"""Measures how fast one core computes the views of a series' past.

python benchmarks/views.py [--steps=200000]

Prints the seconds that a million steps of a file take, against a reference of 4 096 steps; how long the nearest
neighbours take by matrix products in float32, which are less accurate; and the milliseconds that a row of a stream
takes. Times are the processor's, since others may use the same core.
"""

import argparse
import os
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

from spear_jax.data import Reference, ViewStream, view_numbers  # noqa: E402

WIDTHS = (8, 32, 128)
BLOCK = 128  # windows in a matrix product; the distances fit into the cache
ROWS = 300  # of the stream


def find_by_products(values: np.ndarray, past: np.ndarray) -> None:
    """Finds the distance of each window to the nearest of the past by matrix products in float32."""
    for width in WIDTHS:
        windows, others = (
            np.lib.stride_tricks.sliding_window_view(part.astype(np.float32), width) for part in (values, past)
        )
        factors = np.ascontiguousarray(np.vstack([-2 * others.T, (others**2).sum(axis=1)]))
        for begin in range(0, len(windows), BLOCK):
            block = windows[begin : begin + BLOCK]
            bracket = np.column_stack([block, np.ones(len(block), np.float32)]) @ factors
            np.sqrt(np.maximum(bracket.min(axis=1) + (block**2).sum(axis=1), 0))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200_000)
    steps = parser.parse_args().steps
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    past, values = rng.normal(size=4096), rng.normal(size=steps)
    began = time.process_time()
    reference = Reference.fit(past)
    print(f"a reference of 4096 steps: {time.process_time() - began:.2f} s, {len(reference.values) * 4 // 1024} KB")

    kinds = {kind: [f"{kind}_{width}" for width in WIDTHS] for kind in ("reference", "past")}
    rates = {}
    for kind, names in {
        "deviation, spread": ["deviation", "spread"],
        **kinds,
        "all": [*kinds["reference"], *kinds["past"]],
    }.items():
        began = time.process_time()
        view_numbers(names, values, reference)
        rates[kind] = (time.process_time() - began) * 1e6 / steps
        print(f"{kind:17} {rates[kind]:6.1f} s per million steps")
    began = time.process_time()
    find_by_products(values[: steps // 4], past)
    products = (time.process_time() - began) * 4e6 / steps
    print(f"matrix products   {products:6.1f}, {products / rates['reference']:.2f} times as long as the first three")

    for kind, names in kinds.items():
        stream, seconds = ViewStream(names, reference), []
        stream.append(values[:5000])
        for row in values[5000 : 5000 + ROWS, None]:
            began = time.process_time()
            stream.append(row)
            seconds.append(time.process_time() - began)
        middle, late = np.quantile(seconds, [0.5, 0.99]) * 1e3
        print(f"a live row, {kind:9} {middle:6.2f} ms (99th percentile {late:.2f})")


if __name__ == "__main__":
    main()
