"""Collects what the user says about own tables, for all their readers."""

import dataclasses

from ml_collections import ConfigDict

from spear_jax.config import missing_values, split_names
from spear_jax.data.tables.columns import UNNAMED, Columns


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """What is known about a table before it is read.

    Attributes:
      named: columns that the user named.
      usual: the columns of the training, see `choose_columns`.
      decimal: the decimal sign, or '' if the numbers tell it.
      missing: numbers that stand for missing values.
      missing_words: words that do, in columns of numbers.
      labelled: whether labels are read; if not, their column may contain anything.
    """

    named: Columns = UNNAMED
    usual: Columns = UNNAMED
    decimal: str = ""
    missing: tuple[float, ...] = ()
    missing_words: tuple[str, ...] = ()
    labelled: bool = True


NO_OPTIONS = TableOptions()


def read_table_options(data: ConfigDict, *, usual: Columns = UNNAMED, labelled: bool = True) -> TableOptions:
    """Returns what the section `data` of a config says about own tables; for the rest, see `TableOptions`."""
    values = tuple(split_names(data.value_columns))
    named = Columns(data.timestamp_column, values, data.label_column, series=data.series_column)
    return TableOptions(named, usual, data.decimal_sign, *missing_values(data), labelled)
