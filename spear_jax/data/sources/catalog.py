"""Lists the data sets that a config can name."""

import dataclasses
from collections.abc import Callable

from ml_collections import ConfigDict

from spear_jax.config import split_names
from spear_jax.data.series import LoadedSeries
from spear_jax.data.sources.files import load_files
from spear_jax.data.sources.mimic_iv import load_mimic_iv, prepare_mimic_iv
from spear_jax.data.sources.nab import NAB, load_nab
from spear_jax.data.sources.nasa import NASA, load_nasa
from spear_jax.data.sources.synthetic import generate_series
from spear_jax.data.tables.table_options import read_table_options


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
    """A data set's name in tables, and in model cards; functions that read, and download and prepare it, if any."""

    title: str
    full_title: str
    load: Callable[[ConfigDict], LoadedSeries] | None = None
    prepare: Callable[[ConfigDict], str] | None = None


def load_series(config: ConfigDict) -> LoadedSeries:
    """Reads the recorded series that `config.data` selects.

    Raises:
      InputError: they are missing or unusable.
    """
    load = DATASETS[config.data.name].load
    assert load is not None, config.data.name  # the config's choices are the entries that can be loaded
    loaded = load(config.data)
    if config.data.folds and config.data.limit_series:
        everything = config.data.copy_and_resolve_references()
        everything.limit_series = 0
        # The number of generated series is a limit that may be above `data.synthetic.series`.
        known = [*loaded.series, *load(everything).series]
        loaded = loaded._replace(groups=tuple(dict.fromkeys(series.indivisible for series in known)))
    return loaded


def prepare_dataset(config: ConfigDict) -> str:
    """Downloads and prepares the data set of a config; returns a one-line summary.

    Raises:
      InputError: the local copy is unreadable, or no mirror provided a file.
    """
    name, prepare = config.data.name, DATASETS[config.data.name].prepare
    return f"{name}: {prepare(config.data)}" if prepare else f"data.name={name!r}: there is nothing to prepare"


def dataset_title(name: str, *, full: bool = False) -> str:
    """Returns a data set's title, or its name if it is not in the catalog."""
    entry = DATASETS.get(name)
    if entry is None:
        return name
    return entry.full_title if full else entry.title


def _load_nasa(data: ConfigDict) -> LoadedSeries:
    return LoadedSeries("nasa", load_nasa(data.dir, **data.nasa, limit=data.limit_series))


def _load_nab(data: ConfigDict) -> LoadedSeries:
    options = data.nab.to_dict() | {"groups": split_names(data.nab.groups), "files": split_names(data.nab.files)}
    return LoadedSeries("nab", load_nab(data.dir, **options, limit=data.limit_series))


def _load_mimic_iv(data: ConfigDict) -> LoadedSeries:
    options = data.mimic_iv.to_dict() | {"signals": split_names(data.mimic_iv.signals)}
    return load_mimic_iv(data.dir, **options, limit=data.limit_series)


def _prepare_mimic_iv(data: ConfigDict) -> str:
    stays = sum(1 for _ in prepare_mimic_iv(data.dir, data.mimic_iv.prepared_dir))
    return f"{stays} stays are prepared"


def _load_files(data: ConfigDict) -> LoadedSeries:
    return load_files(
        data.dir, read_table_options(data), intervals=data.intervals, labels=data.labels, limit=data.limit_series
    )


def _generate(data: ConfigDict) -> LoadedSeries:
    options = data.synthetic.to_dict()
    if data.limit_series:
        options["series"] = min(data.limit_series, options["series"])
    return LoadedSeries("synthetic", generate_series(**options))


DATASETS = {
    "nasa": DatasetEntry(
        title="NASA SMAP and MSL",
        full_title="NASA SMAP and MSL telemetry",
        load=_load_nasa,
        prepare=lambda data: f"prepared in {NASA.prepare(data.dir)}",
    ),
    "nab": DatasetEntry(
        title="NAB",
        full_title="Numenta Anomaly Benchmark (NAB)",
        load=_load_nab,
        prepare=lambda data: f"prepared in {NAB.prepare(data.dir)}",
    ),
    "mimic_iv": DatasetEntry(
        title="MIMIC-IV",
        full_title="MIMIC-IV vital signs, credentialed release",
        load=_load_mimic_iv,
        prepare=_prepare_mimic_iv,
    ),
    "mimic_iv_demo": DatasetEntry(  # the name in results if the local copy is the open demo
        title="MIMIC-IV demo, a stand-in for the paper's data", full_title="MIMIC-IV vital signs, open demo"
    ),
    "files": DatasetEntry(title="own files", full_title="own files", load=_load_files),
    "synthetic": DatasetEntry(title="generated telemetry", full_title="generated telemetry", load=_generate),
}
