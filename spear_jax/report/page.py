"""Writes report.html, a self-contained page about a run, and its figures."""

import base64
import dataclasses
import html
import importlib.resources
import io
import json
import shlex
import string
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from etils import epath
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from spear_jax.config import METHODS, default_config, stored_values
from spear_jax.data import Dataset, dataset_title
from spear_jax.evaluation import Evaluation
from spear_jax.model import Inspection
from spear_jax.report import figures
from spear_jax.report.labels import COLUMNS, NAMES, STEPWISE, format_number
from spear_jax.report.terminal import LEGEND, describe_alarms, describe_preferred, describe_readouts
from spear_jax.storage import write_whole
from spear_jax.training import read_log

EXTREMES = 5  # series shown at either end of the ranking

_WEIGHTS = {
    "frozen": "frozen",
    "trained": "all of whose weights were trained",
    "adapted": "frozen except for low-rank updates",
}

# The page has no script, and its content security policy forbids loading anything over a network.
_PAGE = string.Template(importlib.resources.files("spear_jax.report").joinpath("page.html").read_text("utf-8"))


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the page, with the stem of its file in figures/, an alternative text and a caption."""

    name: str
    figure: Figure
    alt: str
    caption: str


def write_report(
    workdir: epath.Path,
    config: ConfigDict,
    content: Mapping[str, Any],
    dataset: Dataset,
    evaluation: Evaluation,
    per_series: pd.DataFrame,
    inspection: Inspection | None,
) -> None:
    """Writes figures/*.png and report.html."""
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    with matplotlib.rc_context(figures.STYLE):
        for picture in _pictures(workdir, config, content, dataset, evaluation, inspection):
            blob = _png(picture.figure, content["warnings"])
            write_whole(workdir / "figures" / f"{picture.name}.png", blob)
            pictures[picture.name] = _embedded(picture, blob)
    title = f"{METHODS[content['method']].title} on {dataset_title(content['dataset'])}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        *_introduction(config, content),
        "<h2>Test split</h2>",
        *_results(content),
        *(pictures.get(name, "") for name in ("test_series", "curves", "reliability")),
    ]
    if content["test"]["auroc"] is None:
        body.append("<p>The test split has one class only: precision-recall and ROC curves are undefined.</p>")
    body += ["<h2>Test series</h2>", *_ranking(per_series)]
    if "learning_curves" in pictures:
        body += ["<h2>Training</h2>", pictures["learning_curves"]]
    if inspection is not None:
        several = f" 1 of {config.prompt.members}" if config.prompt.members > 1 else ""
        body += [f"<h2>Prompt{several}</h2>", *_prompt(inspection)]
        body += [pictures.get(name, "") for name in ("prompt_movement", "attention")]
    body += ["<h2>Reproduce this run</h2>", *_reproduction(config, content)]
    page = _PAGE.substitute(title=html.escape(title), body="\n".join(body))
    write_whole(workdir / "report.html", page)


def _png(figure: Figure, warnings: Sequence[str]) -> bytes:
    """Renders a figure with its warnings, since it may be shared without the page."""
    if warnings:
        lines = [line for warning in warnings for line in textwrap.wrap(warning, 110)]
        figure.text(0.01, 0, "\n".join(lines), va="top", fontsize=7, color=figures.ANOMALY, parse_math=False)
    file = io.BytesIO()
    description = {"Description": " | ".join(warnings)}
    figure.savefig(file, format="png", dpi=130, metadata=description, bbox_inches="tight", pad_inches=0.1)
    return file.getvalue()


def _embedded(picture: Picture, blob: bytes) -> str:
    data = base64.b64encode(blob).decode()
    alt, caption = html.escape(picture.alt), html.escape(picture.caption)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def _pictures(
    workdir: epath.Path,
    config: ConfigDict,
    content: Mapping[str, Any],
    dataset: Dataset,
    evaluation: Evaluation,
    inspection: Inspection | None,
) -> Iterator[Picture]:
    yield from _score_pictures(config, content, evaluation)
    log = workdir / "metrics.jsonl"
    lines = [line for _, line in read_log(log)] if log.exists() else []
    if {"train", "evaluation"} <= {line["kind"] for line in lines}:  # otherwise it was damaged
        yield from _training_pictures(lines, content)
    if inspection is not None and len(inspection.attention):
        yield _attention_picture(dataset, inspection)


def _score_pictures(config: ConfigDict, content: Mapping[str, Any], evaluation: Evaluation) -> Iterator[Picture]:
    steps = evaluation.steps["test"]
    combined = config.data.combine != "none"
    yield Picture(
        "test_series",
        figures.draw_series(steps, evaluation.rule.threshold, evaluation.names),
        "Values and scores over time, with labelled and predicted intervals, of a few test series",
        "A few test series, those with anomalies first. Above: recorded values with labelled anomalies (red). Below:"
        " the score of every step with predicted anomalies (orange) and the threshold."
        + (" If several columns share one score, the first column's values are shown." if combined else ""),
    )
    if content["test"]["auroc"] is not None:
        method = METHODS[content["method"]].title
        scores = {method: steps}
        metrics = {method: content["test"]}
        views = [name for name in evaluation.control_steps if name.startswith("view_")]
        best = max(views, key=lambda name: content["controls"][name]["validation"]["aupr"] or 0.0, default="")
        for name, control in evaluation.control_steps.items():
            if name != "always_normal" and (name == best or name not in views):  # a constant score has no curve
                scores[NAMES[name]], metrics[NAMES[name]] = control, content["controls"][name]["test"]
        yield Picture(
            "curves",
            figures.draw_ranking_curves(scores, metrics, content["test"]["base_rate"]),
            "Precision-recall and ROC curves of the method and its controls on the test split",
            "All thresholds at once, over all test steps: a method is useful where its curve is above those of the"
            " controls. Dotted lines: scores without information.",
        )
    if steps.score.min() >= 0 and steps.score.max() <= 1:
        yield Picture(
            "reliability",
            figures.draw_reliability(steps.label, steps.score),
            "Share of anomalous test steps by score, and number of steps by score",
            "Can a score be read as a probability? On the dotted diagonal, three in ten of the steps with a score of"
            " 0.3 are anomalous. The histogram shows how many steps support each point.",
        )


def _training_pictures(log: Sequence[Mapping[str, Any]], content: Mapping[str, Any]) -> Iterator[Picture]:
    best = content["training"]["best"]
    name = best["metric"].removeprefix("validation_")
    metric = COLUMNS.get(name, name)
    yield Picture(
        "learning_curves",
        figures.draw_learning_curves(log, best["step"]),
        "Training and validation loss, validation AUROC and AUPR, by optimizer step",
        f"Learning curves. The parameters of epoch {best['epoch']} were kept, which has the best validation {metric}:"
        f" {best['value']:.3f}.",
    )
    if any(line.get("prompt_moved") for line in log):
        yield Picture(
            "prompt_movement",
            figures.draw_prompt_movement(log, best["step"]),
            "Distance of each prompt vector from its initial value, by optimizer step",
            "Euclidean distance of each prompt vector from its initial value; flat lines mean a prompt that does not"
            " learn.",
        )


def _attention_picture(dataset: Dataset, inspection: Inspection) -> Picture:
    windows, row = dataset.windows["test"], inspection.window
    real = windows.real[row]
    name = dataset.recorded[windows.series[row]].name
    steps = f"steps {windows.start[row]} to {windows.start[row] + real.sum() - 1} of {name}"
    return Picture(
        "attention",
        figures.draw_attention(windows.values[row, real], windows.labels[row, real], inspection.attention),
        f"Attention of {steps} to the prompt, by layer and prompt vector",
        f"Attention of {steps}, a test window, to the prompt (labelled anomalies in red): softmax weights, averaged"
        " over the heads of a layer, summed over all prompt vectors and for each vector.",
    )


def _introduction(config: ConfigDict, content: Mapping[str, Any]) -> list[str]:
    backbone, training, warnings = content["backbone"], content["training"], list(content["warnings"])
    sentences = []
    if "detector" in training:
        sentences.append(f"A detector trained on {training['trained_on']}, applied without further training.")
    elif content["trained"]:
        size = f"{content['parameters']['trainable']:,} parameters"
        sentences.append(f"Trained: {' + '.join(content['trained'])}, {size}, {training['steps']:,} optimizer steps.")
    else:
        sentences.append("Not trained step by step.")
    if backbone:
        weights = "pretrained" if backbone["pretrained"] else "RANDOM weights"
        treatment = _WEIGHTS[METHODS[content["method"]].backbone]
        sentences.append(f"Backbone: {backbone['name']} ({weights}, {backbone['dtype']}), {treatment}.")
        if not backbone["pretrained"]:
            warnings.insert(
                0,
                f"The weights of {backbone['name']} are RANDOM: these results say nothing about a pretrained language"
                " model.",
            )
    sizes = content["splits"]["test"]
    fold = f", fold {config.data.fold} of {config.data.folds}" if config.data.folds else ""
    sentences.append(
        f"Test split: {sizes['series']} series, {sizes['steps']:,} steps, {sizes['anomalous_steps']:,} of them labelled"
        f" anomalous (base rate {sizes['anomalous_steps'] / sizes['steps']:.3f}); split “{config.data.split}”{fold},"
        f" seed {content['seed']}."
    )
    body = [f"<p>{html.escape(' '.join(sentences))}</p>"]
    if warnings:
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        body.append(f'<div class="warnings" role="note" aria-label="warnings"><ul>{items}</ul></div>')
    return body


def _results(content: Mapping[str, Any]) -> list[str]:
    threshold = content["threshold"]
    choice = (
        f"Threshold {threshold['value']:.4g}: rule “{threshold['rule']}”, chosen on the {threshold['chosen_on']} split"
        f" of {threshold['from']}, never on test labels. Each control has its own threshold, chosen in the same way."
    )
    aggregation = (
        "Point-wise metrics are pooled over steps; VUS and range, event and affiliation F1 are means over series. In"
        " brackets: 95 % confidence intervals by a bootstrap over series. A “-” means undefined."
    )
    described = (*describe_readouts(content), *describe_alarms(content), *describe_preferred(content))
    legend = [*LEGEND.values(), *described]
    body = [
        _metrics(content, "test"),
        f"<p>{html.escape(choice)}</p>",
        *(f'<p class="soft">{html.escape(line[0].upper() + line[1:])}.</p>' for line in legend),
        f'<p class="soft">{html.escape(aggregation)}</p>',
    ]
    if "nab_score" in content:
        profiles = list(next(iter(content["nab_score"].values())))
        rows = [
            [NAMES.get(name, METHODS[content["method"]].title), *(_number(scores[p]["test"], 1) for p in profiles)]
            for name, scores in content["nab_score"].items()
        ]
        body.append(_table(["NAB score, test", *profiles], rows, own=1))
    for split in ("validation", "train"):
        body.append(f"<details><summary>{split} split</summary>{_metrics(content, split)}</details>")
    return body


def _metrics(content: Mapping[str, Any], split: str) -> str:
    """Renders all metrics of a split in two tables, since one would be wider than most screens."""
    method = METHODS[content["method"]].title
    intervals = content["confidence_intervals"].get(split, {})

    def table(kind: str, columns: Sequence[str]) -> str:
        def row(name: str, metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[str]:
            cells = [name]
            for column in columns:
                ends = intervals.get(column)
                interval = f"\n[{_number(ends[0], 2)}, {_number(ends[1], 2)}]" if ends else ""
                cells.append(format_number(column, metrics.get(column)) + interval)
            return cells

        rows = [row(method, content[split], intervals)]
        if "windows" in content and columns[0] in content["windows"][split]:  # a window has no intervals
            rows.append(row(f"{method}, per window", content["windows"][split], {}))
        own = len(rows)
        rows += [row(NAMES[name], control[split], {}) for name, control in content["controls"].items()]
        return _table([f"{split}, {kind}", *(COLUMNS[column] for column in columns)], rows, own=own)

    return table("point-wise", STEPWISE) + table("intervals", [name for name in COLUMNS if name not in STEPWISE])


def _ranking(per_series: pd.DataFrame) -> list[str]:
    """Renders the best and the worst test series by AUROC."""
    test = per_series[per_series["split"] == "test"]
    ranked = test.dropna(subset=["auroc"]).sort_values("auroc")
    normal = test[test["base_rate"] == 0]
    columns = {"auroc": "AUROC", "aupr": "AUPR", "base_rate": "base rate", "f1": "F1", "event_f1": "event F1"}

    def table(part: pd.DataFrame, title: str) -> str:
        rows = [
            [row["series"], f"{row['steps']:,}", *(_number(row[name]) for name in columns)]
            for row in part.to_dict("records")
        ]
        return _table([title, "steps", *columns.values()], rows)

    if len(ranked) > 2 * EXTREMES:
        body = [table(ranked[:EXTREMES], "worst"), table(ranked[: -EXTREMES - 1 : -1], "best")]
    else:
        body = [table(ranked, "worst first")] if len(ranked) else []
    summary = f"{len(ranked)} of {len(test)} series have both classes and are ranked by AUROC."
    if len(normal):
        # Without a labelled anomaly, every inaccurate step is a false alarm.
        share = float((normal["steps"] * (1 - normal["accuracy"])).sum() / normal["steps"].sum())
        summary += f" {len(normal)} have no labelled anomaly; {share:.1%} of their steps are false alarms."
    return [*body, f'<p class="soft">{summary} All series: per_series.parquet.</p>']


def _prompt(inspection: Inspection) -> list[str]:
    if inspection.words:
        # Isolated, so that a right-to-left word does not swap places with its number.
        rows = [
            [str(number + 1), *(f"\u2068{word}\u2069  {cosine:.2f}" for word, cosine in words)]
            for number, words in enumerate(inspection.words)
        ]
        ranks = [f"{number + 1}. word, cosine" for number in range(len(inspection.words[0]))]
        body = [
            "<p>The vocabulary words nearest to each prompt vector, by cosine similarity (1: the word itself). A prompt"
            " initialized from words mostly stays near them.</p>",
            _table(["vector", *ranks], rows, kind="words"),
        ]
    else:
        body = ["<p>The backbone's weights are random: the words near the prompt mean nothing and are not shown.</p>"]
    if not len(inspection.attention):
        body.append("<p>The window is too long to show its attention.</p>")
    return body


def _reproduction(config: ConfigDict, content: Mapping[str, Any]) -> list[str]:
    fields, defaults = stored_values(config), stored_values(default_config())
    changed = {name: value for name, value in fields.items() if value != defaults[name]}

    def lines(values: Mapping[str, Any]) -> str:
        return html.escape("\n".join(f"{name} = {json.dumps(value)}" for name, value in sorted(values.items())))

    same = {name: value for name, value in fields.items() if name not in changed}
    words = [*shlex.split(content["command"]), "--workdir=FOLDER"]
    command = " \\\n    ".join([" ".join(words[:3]), *map(shlex.quote, words[3:])])  # python -m spear_jax.main, flags
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in content["seconds"].items())
    versions = [[name, str(version)] for name, version in content["versions"].items()]
    return [
        f'<pre tabindex="0">{html.escape(command)}</pre>',
        f'<p class="soft">Time: {html.escape(seconds)}.</p>',
        "<details><summary>Config: fields that differ from the defaults, then the rest</summary>"
        f'<pre tabindex="0">{lines(changed)}</pre><pre tabindex="0">{lines(same)}</pre></details>',
        f"<details><summary>Versions</summary>{_table(['package', 'version'], versions)}</details>",
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, own: int = 0, kind: str = "") -> str:
    """Renders a table in a box that scrolls on a narrow screen.

    Args:
      head: names of the columns.
      rows: cells; text after a line break is set smaller.
      own: number of leading rows to highlight as the method's own.
      kind: CSS class of the table.
    """

    def cell(text: str) -> str:
        first, _, rest = html.escape(text).partition("\n")
        return f"{first}<br><small>{rest}</small>" if rest else first

    lines = ["<tr>" + "".join(f'<th scope="col">{cell(text)}</th>' for text in head) + "</tr>"]
    for i, (name, *cells) in enumerate(rows):
        marked = ' class="own"' if i < own else ""
        lines.append(
            f'<tr{marked}><th scope="row">{cell(name)}</th>'
            + "".join(f"<td>{cell(text)}</td>" for text in cells)
            + "</tr>"
        )
    # A scrolling box must be reachable by keyboard.
    return f'<div class="table" tabindex="0"><table class="{kind}">{"".join(lines)}</table></div>'
