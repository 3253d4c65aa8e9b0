"""Loads series and prepares them for the model: splits, labels, scaling, windows, bins and batches."""

from spear_jax.data.batches import Examples, TrainingCall, order_digest, scoring_batches, training_calls
from spear_jax.data.dataset import Dataset, build_dataset
from spear_jax.data.labels import apply_rules
from spear_jax.data.neighbours import (
    WindowSample,
    blocks,
    distances_to_nearest,
    interpolate_missing,
    relative_to_mean,
    sample_windows,
    step_means,
)
from spear_jax.data.own_past import Reference
from spear_jax.data.places import Places
from spear_jax.data.quantizer import Quantizer
from spear_jax.data.runs import find_equal_runs, find_runs
from spear_jax.data.scaler import LOOKS_AHEAD, Scaler, TableScaler
from spear_jax.data.series import ColumnRole, LoadedSeries, ScaleRange, Series, check_order, series_offsets
from spear_jax.data.sources import (
    dataset_title,
    find_files,
    generate_series,
    is_demo,
    load_series,
    mimic_iv_copy,
    open_files,
    prepare_dataset,
)
from spear_jax.data.splits import SPLITS, hold_out
from spear_jax.data.step_scores import MethodScores, StepScores, combine_columns, scores_by_split, stitch, stitch_splits
from spear_jax.data.stitching import ScoreSums
from spear_jax.data.table_views import TableViews
from spear_jax.data.tables.arrays import Table, is_list_of_series, read_arrays, read_labelled
from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.extremes import find_extremes, fullest_part
from spear_jax.data.tables.file import TableFile, name_series, name_table
from spear_jax.data.tables.live import LiveTable
from spear_jax.data.tables.table_options import TableOptions, read_table_options
from spear_jax.data.views import VIEWS, View, ViewStream, largest_distance, look_ahead, quantize_views, view_numbers
from spear_jax.data.windows import Windows, cut_windows

__all__ = [
    "LOOKS_AHEAD",
    "SPLITS",
    "VIEWS",
    "ColumnRole",
    "Columns",
    "Dataset",
    "Examples",
    "LiveTable",
    "LoadedSeries",
    "MethodScores",
    "Places",
    "Quantizer",
    "Reference",
    "ScaleRange",
    "Scaler",
    "ScoreSums",
    "Series",
    "StepScores",
    "Table",
    "TableFile",
    "TableOptions",
    "TableScaler",
    "TableViews",
    "TrainingCall",
    "View",
    "ViewStream",
    "WindowSample",
    "Windows",
    "apply_rules",
    "blocks",
    "build_dataset",
    "check_order",
    "combine_columns",
    "cut_windows",
    "dataset_title",
    "distances_to_nearest",
    "find_equal_runs",
    "find_extremes",
    "find_files",
    "find_runs",
    "fullest_part",
    "generate_series",
    "hold_out",
    "interpolate_missing",
    "is_demo",
    "is_list_of_series",
    "largest_distance",
    "load_series",
    "look_ahead",
    "mimic_iv_copy",
    "name_series",
    "name_table",
    "open_files",
    "order_digest",
    "prepare_dataset",
    "quantize_views",
    "read_arrays",
    "read_labelled",
    "read_table_options",
    "relative_to_mean",
    "sample_windows",
    "scores_by_split",
    "scoring_batches",
    "series_offsets",
    "step_means",
    "stitch",
    "stitch_splits",
    "training_calls",
    "view_numbers",
]
