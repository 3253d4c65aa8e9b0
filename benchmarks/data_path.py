"""Measures how fast one core cuts, scales and quantizes raw values.

python benchmarks/data_path.py

Prints millions of time steps per second for bins of equal width and quantile bins (windows of 128, stride 128) and for
a tokenizer that is called once per value, as text models usually are; and how much faster the context rules are than
scipy called once per window. With $SPEAR_DATA_DIR, also prints the time from NASA's zip and NAB's folder to examples.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

from spear_jax.backbones import load_backbone  # noqa: E402
from spear_jax.config import load_config  # noqa: E402
from spear_jax.data import (  # noqa: E402
    Quantizer,
    Scaler,
    Series,
    apply_rules,
    build_dataset,
    cut_windows,
    load_series,
)

T, BINS, STEPS = 128, 100, 20_000_000


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """Returns the seconds of the fastest of several calls."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main() -> None:
    """Measures and prints."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    series = [
        Series(f"s{i}", rng.normal(size=STEPS // 20).astype(np.float32), np.zeros(STEPS // 20, bool)) for i in range(20)
    ]
    names = [item.name for item in series]
    scaler = Scaler.fit("train", series, [], reference_steps=1000, margin=0.0)

    def quantize(quantizer: Quantizer) -> np.ndarray:
        return quantizer(scaler(cut_windows(series, names, T, T)))

    scaled = scaler(cut_windows(series, names, T, T))
    rates = {}
    for kind in ("equal_width", "quantile"):
        quantizer = Quantizer.fit(kind, BINS, scaled[:2000])
        rates[kind] = STEPS / best(lambda quantizer=quantizer: quantize(quantizer), 3)
        alone = scaled.size / best(lambda quantizer=quantizer: quantizer(scaled), 3)
        print(f"{kind:12} {rates[kind] / 1e6:8.1f} million steps/s (the quantizer alone {alone / 1e6:.1f})")

    backbone = load_backbone("random:tiny")
    values = scaled.reshape(-1)[:20_000]
    naive = len(values) / best(lambda: [backbone.tokenize(str(int(min(max(x, 0), 0.999) * BINS))) for x in values], 3)
    print(f"{'a tokenizer':12} {naive / 1e6:8.3f} million steps/s, once per value")
    print(f"equal-width bins are {rates['equal_width'] / naive:.0f} times as fast as a tokenizer per value")

    windows = rng.normal(size=(300, T))

    def by_scipy() -> None:
        for window in windows:
            stats.linregress(np.arange(T), window)
            stats.ttest_ind(window[: T // 2], window[T // 2 :])
            stats.levene(window[: T // 2], window[T // 2 :])

    speedup = best(by_scipy, 3) / best(lambda: apply_rules(windows))
    print(f"context rules: {speedup:.0f} times as fast as scipy once per window")

    root = os.environ.get("SPEAR_DATA_DIR")
    for name in ("nasa", "nab") if root else ():
        config = load_config(f"configs/{name}.py:minilm")
        config.data.dir = str(Path(str(root)) / name)
        seconds = best(lambda config=config: build_dataset(config, load_series(config)), 2)
        print(f"{name}: {seconds:.2f} s to examples")


if __name__ == "__main__":
    main()
