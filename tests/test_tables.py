"""The table that a run ends with."""

import pytest
from conftest import Run, results

from spear_jax.tables import COLUMNS, DIGITS, shown, table

pytestmark = pytest.mark.one_python


def test_columns_whose_names_say_little_are_explained(finished: Run) -> None:
    content = results(finished.workdir)
    said = table(content)
    assert said in finished.outcome.out
    for name in ("VUS-PR", "VUS-ROC", "affil. F1", "false al.", "delay"):
        assert name in COLUMNS.values()
        assert name in said.partition("a '-' is undefined")[2]
    assert "alarms: " not in table({key: part for key, part in content.items() if key != "alarms"})


def test_a_number_of_alarms_has_one_decimal() -> None:
    assert [shown(column, 2.0) for column in ("auroc", "false_alarms", "detection_delay")] == ["2.000", "2.0", "2.0"]
    assert shown("delay", None) == "-"
    assert set(DIGITS) <= set(COLUMNS)
