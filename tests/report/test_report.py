"""Figures and report.html: looked into far enough to see that they say what the run's other files say."""

import base64
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import fsspec
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from conftest import Run, Spear, evaluate, log, quick, quick_on, results
from etils import epath
from etils.epath import backend

from spear_jax.data.step_scores import StepScores
from spear_jax.evaluation.thresholds import Threshold
from spear_jax.report import figures
from spear_jax.report.labels import COLUMNS, DIGITS, NAMES, STEPWISE, describe_rule
from spear_jax.report.score_figure import Envelopes
from spear_jax.training.checkpoints import read_trainable

pytestmark = pytest.mark.one_python

OF_ALL = {"test_series", "curves", "reliability"}
OF_TRAINING = {"learning_curves", "prompt_movement"}


class Page(HTMLParser):
    """A page's elements with their attributes, the cells of its tables and all of its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(file.read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self._in_cell = True
        if tag == "br":
            self.handle_data("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def pictures(workdir: Path) -> set[str]:
    return {path.stem for path in (workdir / "figures").iterdir()}


def ink(file: Path) -> float:
    """Share of pixels that are not white."""
    return float((matplotlib.image.imread(file)[..., :3] < 0.95).any(axis=-1).mean())


# --- The page -----------------------------------------------------------


@pytest.mark.figures
def test_the_page_holds_every_figure_and_asks_for_nothing(finished: Run) -> None:
    page = Page(finished.workdir / "report.html")
    assert pictures(finished.workdir) == OF_ALL | OF_TRAINING | {"attention"}
    files = {path.read_bytes() for path in (finished.workdir / "figures").iterdir()}
    images = page.all("img")
    assert {base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) for image in images} == files
    assert all(image["alt"] for image in images)
    assert len(page.all("figcaption")) == len(files)
    assert not page.all("script")
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(str(address).startswith("data:") for address in addresses)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    for path in (finished.workdir / "figures").iterdir():
        assert 0.01 < ink(path) < 0.9, path


def test_the_page_says_what_results_json_says(finished: Run) -> None:
    page, content = Page(finished.workdir / "report.html"), results(finished.workdir)
    expected = {"SPEAR": content["test"]} | {NAMES[name]: one["test"] for name, one in content["controls"].items()}
    tables = {"point-wise": list(STEPWISE), "intervals": [column for column in COLUMNS if column not in STEPWISE]}
    rows = iter(page.rows)
    for kind, columns in tables.items():
        assert next(rows) == [f"test, {kind}", *(COLUMNS[column] for column in columns)]
        for name, metrics in expected.items():
            first, *cells = next(rows)
            assert first == name
            for column, cell in zip(columns, cells, strict=True):
                value, interval = metrics[column], content["confidence_intervals"]["test"].get(column)
                shown, _, ends = cell.partition("\n")
                assert shown == ("-" if value is None else format(value, DIGITS.get(column, ".3f")))
                assert ends == (f"[{interval[0]:.2f}, {interval[1]:.2f}]" if name == "SPEAR" and interval else "")
    for text in ("VUS-PR: AUPR", "VUS-ROC: AUROC", "Affil. F1: ", "no anomaly, per 10,000 steps", "Alarms: "):
        assert text in page.text
    rule = content["alarms"]
    assert f"Alarms: {describe_rule(rule['merge_gap'], rule['min_length'], 'step')}" in page.text
    assert "The weights of random:tiny are RANDOM" in page.text
    assert f"{content['parameters']['trainable']:,} parameters" in page.text
    assert f"Threshold {content['threshold']['value']:.4g}: rule “best_f1”" in page.text
    assert "chosen on the validation split of synthetic" in page.text
    for name, version in content["versions"].items():
        assert [name, version] in page.rows
    assert "the words near the prompt mean nothing" in page.text
    for argument in content["command"].split()[3:]:
        assert argument in page.text
    config = json.loads((finished.workdir / "config.json").read_text())
    first, _, second = page.text.partition("data.window = 32")  # differs from the default
    assert 'backbone.name = "random:tiny"' in first
    assert f"train.clip_norm = {config['train']['clip_norm']}" in second
    assert "train.clip_norm" not in first


@pytest.mark.figures
def test_an_evaluation_has_no_course_of_training(spear: Spear, finished: Run, tmp_path: Path) -> None:
    assert spear(*evaluate(finished.workdir, tmp_path / "run")).code == 0
    assert pictures(tmp_path / "run") == OF_ALL | {"attention"}
    text = Page(tmp_path / "run" / "report.html").text
    assert "A detector trained on synthetic, applied without further training" in text
    assert "Training" not in text
    assert (tmp_path / "run" / "figures" / "attention.png").read_bytes() == (
        finished.workdir / "figures" / "attention.png"
    ).read_bytes()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"method": "lstm"}, OF_ALL | {"learning_curves"}, marks=pytest.mark.slow),
        ({"method": "matrix_profile"}, {"test_series", "curves"}),  # its scores are no probabilities
        pytest.param({"prompt.length": "0"}, OF_ALL | {"learning_curves"}, marks=pytest.mark.slow),
        ({"train.parts": "head"}, OF_ALL | {"learning_curves", "attention"}),  # a prompt that stands still
        pytest.param(
            {"head.kind": "window", "prompt.position": "suffix"},
            OF_ALL | OF_TRAINING | {"attention"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_run_has_not_is_left_out(
    spear: Spear, nasa: Path, tmp_path: Path, fields: dict[str, str], expected: set[str]
) -> None:
    run = spear(*quick_on(nasa, tmp_path / "run", fields))
    assert run.code == 0, run
    assert pictures(tmp_path / "run") == expected
    page = Page(tmp_path / "run" / "report.html")
    assert len(page.all("img")) == len(expected)
    assert ("Prompt\n" in page.text) == ("attention" in expected)
    assert ("SPEAR, per window" in [row[0] for row in page.rows]) == ("head.kind" in fields)


@pytest.mark.figures
@pytest.mark.slow
def test_names_out_of_a_file_are_text_and_not_markup(spear: Spear, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"<img src=x{i}>&amp;$\\frac$" for i in range(6)]
    lines = [",".join([*names, "label"])]
    for row in range(160):
        bad = row % 40 < 10
        lines.append(",".join([*(f"{value:.3f}" for value in rng.normal(2 * bad, 0.1, 6)), str(int(bad))]))
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    fields = {"data.dir": tmp_path / "data.csv", "data.label_column": "label", "data.split": "time"}
    arguments = [one.replace("nasa.py", "files.py") for one in quick_on(tmp_path, tmp_path / "run", fields)]
    run = spear(*arguments)
    assert run.code == 0, run
    page = Page(tmp_path / "run" / "report.html")
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
    assert any("<img src=x0>&amp;$\\frac$" in row[0] for row in page.rows)
    where = (f"--input={tmp_path / 'data.csv'}", f"--workdir={tmp_path / 'scored'}")
    scored = spear("--mode=score", f"--detector={tmp_path / 'run'}", *where)
    assert scored.code == 0, scored
    assert ink(tmp_path / "scored" / "figures" / "scores.png") > 0.01


@pytest.mark.figures
def test_names_and_warnings_in_the_figure_of_scores_are_text(tmp_path: Path) -> None:
    name = "f/$\\frac$"
    envelopes = Envelopes()
    rows = {"value": np.arange(9.0), "score": np.linspace(0, 1, 9), "timestamp": pd.NaT}
    envelopes.add(pd.DataFrame({"series": name, **rows}).astype({"timestamp": "datetime64[ns]"}))
    alarms = pd.DataFrame({"series": [name], "start": [5], "end": [8]})
    envelopes.draw(epath.Path(tmp_path / "scores.png"), 0.5, alarms, [f"the detector: {name} is odd"])
    assert ink(tmp_path / "scores.png") > 0.01


@pytest.mark.figures
def test_warnings_stand_on_the_page_and_in_every_figure(spear: Spear, tmp_path: Path) -> None:
    run = spear(*quick(tmp_path / "run", {"data.split": "random"}))
    assert run.code == 0, run
    (warning,) = results(tmp_path / "run")["warnings"]
    assert warning in Page(tmp_path / "run" / "report.html").text
    for path in (tmp_path / "run" / "figures").iterdir():
        assert warning.encode("latin-1") in path.read_bytes(), path
        assert ink(path) > 0.01


def test_one_class_is_said_and_has_no_curves(spear: Spear, tmp_path: Path, nasa: Path) -> None:
    labels = (nasa / "labeled_anomalies.csv").read_text().replace(", [140, 150]", "")
    (nasa / "labeled_anomalies.csv").write_text(labels)
    run = spear(*quick_on(nasa, tmp_path / "run"))
    assert run.code == 0, run
    assert results(tmp_path / "run")["test"]["auroc"] is None
    assert "curves" not in pictures(tmp_path / "run")
    assert "one class only" in Page(tmp_path / "run" / "report.html").text


# --- The figures --------------------------------------------------------


def test_the_log_has_the_way_of_each_prompt_vector(spear: Spear, tmp_path: Path) -> None:
    start = np.random.default_rng(0).normal(0, 0.02, (4, 32)).astype(np.float32)
    np.save(tmp_path / "start.npy", start)
    run = spear(*quick(tmp_path / "run", {"prompt.init": tmp_path / "start.npy", "train.epochs": "2"}))
    assert run.code == 0, run
    lines = [line for line in log(tmp_path / "run") if line["kind"] == "evaluation"]
    for line in lines:
        now = read_trainable(epath.Path(tmp_path / "run" / "checkpoints" / str(line["step"])))["prompt"]["vectors"]
        np.testing.assert_allclose(line["prompt_moved"], np.linalg.norm(now - start, axis=1), rtol=1e-5)
    (axis,) = figures.draw_prompt_movement(lines, best_step=lines[0]["step"]).axes
    drawn = np.array([line.get_ydata() for line in axis.lines[:4]])
    np.testing.assert_allclose(drawn, np.array([[0.0] * 4] + [line["prompt_moved"] for line in lines]).T)


def steps_of(*lengths: int) -> StepScores:
    rng = np.random.default_rng(0)
    total = sum(lengths)
    return StepScores(
        series=np.repeat(np.arange(len(lengths)), lengths),
        step=np.concatenate([np.arange(length) for length in lengths]),
        value=rng.normal(size=total),
        label=np.zeros(total, bool),
        score=rng.random(total) / 2,
    )


def test_a_single_step_among_thousands_is_drawn() -> None:
    steps = steps_of(20_000)
    steps.value[12_345], steps.label[12_345], steps.score[12_345] = 100, True, 0.9
    values, scores = figures.draw_series(steps, Threshold(0.8, "best_f1"), ["A-1"]).axes
    for axis, largest in ((values, 100), (scores, 0.9)):
        x, y = axis.lines[0].get_data()
        assert len(y) <= 2 * figures.LINE_COLUMNS
        assert np.nanmax(y) == largest
        assert abs(x[np.nanargmax(y)] - 12_345) < 20_000 / figures.LINE_COLUMNS
        (span,) = axis.collections[0].get_paths()
        assert span.get_extents().x0 == 12_344.5 and span.get_extents().x1 == 12_345.5
        assert axis.collections[0].get_linewidth()[0] > 0  # less than a pixel wide without it


def test_a_line_is_broken_where_steps_belong_to_another_split() -> None:
    steps = steps_of(300)
    kept = (steps.step < 100) | (steps.step >= 200)
    part = StepScores(*(getattr(steps, name)[kept] for name in ("series", "step", "value", "label", "score")))
    x, y = figures.draw_series(part, Threshold(0.8, "best_f1"), ["A-1"]).axes[0].lines[0].get_data()
    assert np.isnan(y[(x >= 100) & (x < 200)]).all()
    np.testing.assert_allclose(y[x < 100][::2], steps.value[:100])


def test_series_with_anomalies_come_first_and_longer_ones_before_shorter() -> None:
    steps = steps_of(50, 40, 60, 30, 70, 20)
    steps.label[(steps.series == 3) | (steps.series == 0)] = True
    figure = figures.draw_series(steps, Threshold(0.4, "best_f1"), list("ABCDEF"))
    assert [axis.get_title(loc="left") for axis in figure.axes[::2]] == ["A", "D", "E", "C"]


def test_areas_below_the_curves_are_the_metrics(finished: Run) -> None:
    steps = steps_of(500)
    steps.label[:50] = True
    steps.score[:50] += 0.2
    from spear_jax.evaluation.pointwise import ranking_metrics

    auroc, aupr = ranking_metrics(steps.label, steps.score)
    metrics = {"SPEAR": {"auroc": auroc, "aupr": aupr}}
    left, right = figures.draw_ranking_curves({"SPEAR": steps}, metrics, 0.1).axes
    recall, precision = left.lines[0].get_data()
    assert left.lines[0].get_drawstyle() == "steps-post"
    assert math.isclose(-np.sum(np.diff(recall) * precision[:-1]), aupr)
    false, true = right.lines[0].get_data()
    assert math.isclose(np.trapezoid(true, false), auroc)


def test_reliability_of_scores_that_are_probabilities_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    labels = rng.random(200_000) < scores
    figure = figures.draw_reliability(labels, scores)
    x, y = figure.axes[0].lines[1].get_data()
    assert len(x) == figures.BINS
    np.testing.assert_allclose(x, y, atol=0.02)
    assert f"{np.mean((scores - labels) ** 2):.4f}" in figure.get_suptitle()


def test_attention_of_every_layer_is_drawn() -> None:
    weights = np.random.default_rng(0).random((7, 20, 4))
    figure = figures.draw_attention(np.arange(20.0), np.arange(20) < 3, weights)
    images = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    np.testing.assert_allclose(images[0], 100 * weights.sum(axis=2))
    for layer, image in zip(weights, images[1:], strict=True):
        np.testing.assert_allclose(image, layer.T)
    figure.savefig(io.BytesIO())


def test_a_run_in_a_bucket_has_its_figures(spear: Spear, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket in memory, behind the paths that are gs://."""
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda self, name: memory)
    run = spear(*quick("gs://bucket/run", {"method": "isolation_forest"}))
    assert run.code == 0, run
    assert memory.cat("gs://bucket/run/figures/test_series.png").startswith(b"\x89PNG")
    assert memory.exists("gs://bucket/run/results.json")
