"""Loads series from public data sets or the user's own files, or generates them."""

from spear_jax.data.sources.catalog import dataset_title, load_series, prepare_dataset
from spear_jax.data.sources.files import find_files, open_files
from spear_jax.data.sources.mimic_iv import is_demo, mimic_iv_copy
from spear_jax.data.sources.synthetic import generate_series

__all__ = [
    "dataset_title",
    "find_files",
    "generate_series",
    "is_demo",
    "load_series",
    "mimic_iv_copy",
    "open_files",
    "prepare_dataset",
]
