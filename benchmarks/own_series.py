"""Compares `SpearDetector` with detectors that read no labels, on series of one's own with few labels or none.

python benchmarks/own_series.py alone --out=FILE            # fit(values) on ten generated and five NAB series
python benchmarks/own_series.py folds nab --data=DIR --out=FILE     # 0, 1, 3 and 10 labelled incidents, four folds
python benchmarks/own_series.py folds nasa --data=DIR --out=FILE

`alone` fits to each series without its labels and scores the same series. `folds` fits to series of three folds that
hold so many incidents together, in an order drawn once, each cut where the next incident would begin, and scores the
series of the fourth fold; with 0 incidents to ten of those series without their labels. Defaults of the package, one
seed. FILE gets a JSON line per series and is continued where it ends; the tables of what it holds are printed.
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spear_jax import SpearDetector
from spear_jax.config import load_valid_config
from spear_jax.data import Series, find_equal_runs, generate_series, load_series
from spear_jax.data.splits import assign_folds
from spear_jax.evaluation import ranking_metrics
from spear_jax.evaluation.volumes import default_window, vus
from spear_jax.methods.unsupervised import DETECTORS

INCIDENTS = (0, 1, 3, 10)
FOLDS = 4
UNLABELLED = 10  # series to fit to without labels
GROUPS = {"nab": "nab58", "nasa": "nasa81"}  # all series of a data set
MARGIN = 200  # steps after the last incident that is kept, at most
REFERENCES = {"1-nearest neighbour": "nearest_neighbours", "isolation forest": "isolation_forest"}
# Not the five series of NAB on which the defaults were chosen.
NAB = (
    "realKnownCause/machine_temperature_system_failure",
    "realAWSCloudwatch/ec2_cpu_utilization_24ae8d",
    "realTweets/Twitter_volume_AAPL",
    "realTraffic/speed_6005",
    "realAdExchange/exchange-2_cpc_results",
)


def load(name: str, folder: str) -> list[Series]:
    """Loads the series of nab or nasa that have an anomaly, each with all its steps."""
    config = load_valid_config(f"configs/{name}.py:{GROUPS[name]},minilm", {"data.dir": folder})
    return [series for series in load_series(config).series if series.labels.any()]


def metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Returns AUROC, AUPR, VUS-PR and whether the highest score lies in an anomaly, of the steps with a score."""
    seen = np.isfinite(scores)
    labels, scores = labels[seen], scores[seen].astype(float)
    auroc, aupr = ranking_metrics(labels, scores)
    volume = vus(labels, scores, window=default_window(labels)).pr
    return {"auroc": auroc, "aupr": aupr, "vus_pr": volume, "hit": bool(labels[scores.argmax()])}


def draw_incidents(series: list[Series], count: int, rng: np.random.Generator) -> list[Series]:
    """Returns series that hold `count` anomalies together; none that is only partly used holds an unlabelled one."""
    chosen, missing = [], count
    for number in rng.permutation(len(series)):
        one = series[number]
        runs = [(begin, end) for begin, end in zip(*find_equal_runs(one.labels), strict=True) if one.labels[begin]]
        kept = runs[:missing]
        end = len(one.labels)
        if len(kept) < len(runs):
            end = min(runs[len(kept)][0], kept[-1][1] + MARGIN)
        chosen.append(one.stretch(0, end))
        missing -= len(kept)
        if not missing:
            return chosen
    raise ValueError(f"fewer than {count} incidents")


def whole(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Returns values and labels, with what came before: NASA's channels have a past without anomalies."""
    past = np.zeros(len(series.reference), int)
    return np.concatenate([series.reference, series.values]), np.concatenate([past, series.labels.astype(int)])


def alone(folder: str) -> Iterator[tuple[dict[str, Any], list[Series], list[Series]]]:
    """Yields what is fitted and scored: each series alone."""
    generated = generate_series(series=10, length=6000, past=0, rate=0.03, seed=11)
    nab = [one for one in load("nab", folder) if one.name.removesuffix(".csv") in NAB]
    for one in [*generated, *nab]:
        group = "NAB" if one in nab else "generated"
        yield {"group": group, "incidents": 0, "fold": one.name}, [one], [one]


def folds(name: str, folder: str) -> Iterator[tuple[dict[str, Any], list[Series], list[Series]]]:
    """Yields what is fitted and scored: three folds and the fourth."""
    series = load(name, folder)
    fold_of = assign_folds([one.name for one in series], FOLDS)
    for count in INCIDENTS:
        for fold in range(FOLDS):
            tested = [one for one in series if fold_of[one.name] == fold]
            others = [one for one in series if fold_of[one.name] != fold]
            rng = np.random.default_rng(fold)
            order = [others[number] for number in rng.permutation(len(others))]
            fitted = draw_incidents(order, count, rng) if count else order[:UNLABELLED]
            yield {"group": name, "incidents": count, "fold": fold}, fitted, tested


def measure(setting: dict[str, Any], fitted: list[Series], tested: list[Series]) -> list[dict[str, Any]]:
    """Fits once, and returns a row per method and series."""
    began = time.perf_counter()
    # Columns have names of their own: an array without one is taken for a series that goes on.
    names = {one.name: f"sensor {number}" for number, one in enumerate([*fitted, *tested])}
    frames = [pd.DataFrame({names[one.name]: whole(one)[0]}) for one in fitted]
    labels = [whole(one)[1] for one in fitted] if setting["incidents"] else None
    detector = SpearDetector(verbose=False).fit(frames, labels)
    chosen = detector.detector_.readout
    setting = setting | {"seconds": round(time.perf_counter() - began, 1), "epochs": len(detector.history_)}
    setting |= {"smoothing": chosen.smoothing, "distance_weight": chosen.distance_weight}
    setting["steps"] = sum(map(len, frames))
    rows = []
    for one in tested:
        frame = pd.DataFrame({names[one.name]: whole(one)[0]})
        scores = np.asarray(detector.decision_function([frame])[0])[-len(one) :]
        rows.append(setting | {"method": "SPEAR", "series": one.name} | metrics(one.labels, scores))
        for title, method in REFERENCES.items():
            scores = DETECTORS[method](one, seed=0)
            rows.append(setting | {"method": title, "series": one.name} | metrics(one.labels, scores))
    return rows


def main() -> None:
    """Measures what FILE does not hold yet, and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["alone", "folds"])
    parser.add_argument("name", nargs="?", choices=["nab", "nasa"], default="nab")
    parser.add_argument("--data", default="", help="folder with a copy of the data")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [json.loads(line) for line in flags.out.read_text().splitlines()] if flags.out.exists() else []
    done = {(row["group"], row["incidents"], row["fold"]) for row in rows}
    todo = alone(flags.data) if flags.part == "alone" else folds(flags.name, flags.data)
    for setting, fitted, tested in todo:
        if tuple(setting.values()) in done:
            continue
        new = measure(setting, fitted, tested)
        with flags.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        rows += new
        print(
            pd.DataFrame(new).groupby(["fold", "incidents", "method"])[["auroc", "vus_pr", "seconds"]].mean(),
            flush=True,
        )
    table = pd.DataFrame(rows).groupby(["group", "incidents", "method"], sort=False)
    print(table[["auroc", "aupr", "vus_pr", "hit", "seconds"]].mean().round(3).to_string())


if __name__ == "__main__":
    main()
