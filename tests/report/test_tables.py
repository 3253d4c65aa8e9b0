"""The table that a run ends with, and the lines that it begins with."""

import copy

import pytest
from conftest import REPOSITORY, Run, results

from spear_jax.report.labels import COLUMNS, DIGITS, PRINTED, counted, describe_rule, format_number
from spear_jax.report.terminal import LEGEND, results_table

pytestmark = pytest.mark.one_python


def test_table_has_six_columns_and_the_controls_on_test_data(finished: Run) -> None:
    content = results(finished.workdir)
    table = results_table(content)
    assert table in finished.outcome.out
    header = next(line for line in table.splitlines() if "AUROC" in line)
    assert header.split("  ")[-1] == COLUMNS[PRINTED[-1]]
    assert len(PRINTED) == 5
    assert table.count("random scores") == 1
    (row,) = (line for line in table.splitlines() if line.startswith("random scores"))
    numbers = content["controls"]["random_scores"]["test"]
    assert row.split()[2:] == [format_number(column, numbers[column]) for column in PRINTED]


def test_columns_whose_names_say_little_are_explained(finished: Run) -> None:
    legend = finished.outcome.out.partition("'-' means undefined")[2]
    for column in ("vus_pr", "event_f1"):
        assert LEGEND[column] in legend
        assert LEGEND[column].startswith(COLUMNS[column])


def test_a_number_of_alarms_has_one_decimal() -> None:
    shown = [format_number(column, 2.0) for column in ("auroc", "false_alarms", "detection_delay")]
    assert shown == ["2.000", "2.0", "2.0"]
    assert format_number("delay", None) == "-"
    assert set(DIGITS) <= set(COLUMNS)


def test_one_of_a_kind_has_no_plural() -> None:
    assert [counted(number, "alarm") for number in (0, 1, 1200)] == ["0 alarms", "1 alarm", "1,200 alarms"]


def test_a_rule_that_does_nothing_says_so() -> None:
    assert describe_rule(0, 1, "step") == "none merged, none dropped"
    assert describe_rule(1, 0, "row") == "gaps of up to 1 row closed, none dropped"
    assert describe_rule(0, 3, "row") == "none merged, alarms of fewer than 3 rows dropped"


def test_a_readout_that_was_not_chosen_says_why(finished: Run) -> None:
    content = copy.deepcopy(results(finished.workdir))
    aupr = {"without": 0.25, "with": 0.5}
    content["readout"] = {"smoothing": 16, "distance_weight": 16.0, "level": 0.0, "validation_aupr": aupr}
    described = "readout: distance to the past added with weight 16, moving average of 16 steps{}; AUPR of validation"
    assert described.format("") in results_table(content)
    content["readout"]["preset"] = "the anomalies were injected"
    assert described.format(" (preset, not chosen: the anomalies were injected)") in results_table(content)


def test_a_simpler_control_that_validation_prefers_is_named(finished: Run) -> None:
    content = copy.deepcopy(results(finished.workdir))
    own = content["validation"]["aupr"]
    for control in content["controls"].values():
        control["validation"]["aupr"] = own
    content["controls"]["random_scores"]["validation"]["aupr"] = 1.0  # no alternative
    assert "validation prefers" not in results_table(content)
    content["controls"]["rolling_zscore"]["validation"]["aupr"] = own + 0.01
    expected = (
        f"validation prefers rolling z-score, which reads no labels: AUPR {own + 0.01:.3f}, against {own:.3f} of SPEAR"
    )
    assert results_table(content).splitlines()[-1] == expected
    content["controls"]["rolling_zscore"]["validation"]["aupr"] = None  # validation has one class only
    assert "validation prefers" not in results_table(content)


def test_readme_shows_the_lines_printed_today(finished: Run) -> None:
    readme = (REPOSITORY / "README.md").read_text().splitlines()
    for column in PRINTED:
        assert LEGEND.get(column, "") in "\n".join(readme)
    (line,) = (line for line in finished.outcome.out.splitlines() if line.startswith("bin embeddings: "))
    assert line.replace("frozen", "trained from there") in readme  # the quickstart trains them, this run does not
