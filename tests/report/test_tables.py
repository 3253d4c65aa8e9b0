"""The table that a run ends with."""

import pytest
from conftest import REPOSITORY, Run, results

from spear_jax.report.labels import COLUMNS, DIGITS, format_number
from spear_jax.report.terminal import explained, results_table

pytestmark = pytest.mark.one_python


def test_columns_whose_names_say_little_are_explained(finished: Run) -> None:
    content = results(finished.workdir)
    said = results_table(content)
    assert said in finished.outcome.out
    for name in ("VUS-PR", "VUS-ROC", "affil. F1", "false al.", "delay"):
        assert name in COLUMNS.values()
        assert name in said.partition("a '-' is undefined")[2]
    assert "alarms: " not in results_table({key: part for key, part in content.items() if key != "alarms"})


def test_a_number_of_alarms_has_one_decimal() -> None:
    assert [format_number(column, 2.0) for column in ("auroc", "false_alarms", "detection_delay")] == [
        "2.000",
        "2.0",
        "2.0",
    ]
    assert format_number("delay", None) == "-"
    assert set(DIGITS) <= set(COLUMNS)


def test_the_readme_shows_what_is_said_today(finished: Run) -> None:
    printed = (REPOSITORY / "README.md").read_text().partition("It\nprints (")[2].split("```")[1].splitlines()
    for line in explained({"alarms": {"merge_gap": 0, "min_length": 1}}):
        assert line in printed
    (said,) = (line for line in finished.outcome.out.splitlines() if line.startswith("bins' vectors: "))
    (shown_there,) = (line for line in printed if line.startswith("bins' vectors: "))
    assert shown_there == said.replace("frozen", "trained from there")  # the quickstart trains them, this run does not
