"""Reads recorded series, whichever data set a config names."""

from ml_collections import ConfigDict

from spear_jax.data.series import LoadedSeries
from spear_jax.data.sources import files, synthetic
from spear_jax.data.sources.mimic_iv import mimic_iv_source
from spear_jax.data.sources.nab import nab_source
from spear_jax.data.sources.nasa import nasa_source


def load_series(config: ConfigDict) -> LoadedSeries:
    """Reads the recorded series that `config.data` names.

    Raises:
      InputError: they are not there, or cannot be used.
    """
    data, limit = config.data, config.data.limit_series
    if data.name == "synthetic":
        fields = (
            data.synthetic.to_dict()
            | {"kinds": split_names(data.synthetic.kinds)}
            | ({"series": limit} if limit else {})
        )
        return LoadedSeries("synthetic", synthetic.generate_series(**fields))
    if data.name == "nab":
        fields = data.nab.to_dict() | {"groups": split_names(data.nab.groups), "files": split_names(data.nab.files)}
        return LoadedSeries("nab", nab_source.load_nab(data.dir, **fields, limit=limit))
    if data.name == "mimic_iv":
        return mimic_iv_source.load_mimic_iv(
            data.dir, **(data.mimic_iv.to_dict() | {"signals": split_names(data.mimic_iv.signals)}), limit=limit
        )
    if data.name == "files":
        return files.load_files(
            data.dir,
            timestamp_column=data.timestamp_column,
            value_columns=split_names(data.value_columns),
            label_column=data.label_column,
            intervals=data.intervals,
            labels=data.labels,
            limit=limit,
        )
    return LoadedSeries("nasa", nasa_source.load_nasa(data.dir, **data.nasa, limit=limit))


def split_names(text: str) -> list[str]:
    """Names out of a field that separates them by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
