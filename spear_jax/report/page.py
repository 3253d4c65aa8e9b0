"""report.html: one self-contained page about one run, with the figures that also lie in figures/."""

import base64
import dataclasses
import html
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

from spear_jax.config import METHODS, default_config, flatten, to_json
from spear_jax.data import Dataset, dataset_title
from spear_jax.evaluation import Evaluation
from spear_jax.model import Inspection
from spear_jax.report import figures
from spear_jax.report.labels import COLUMNS, NAMES, STEPWISE, format_number
from spear_jax.report.terminal import explained
from spear_jax.storage import write_whole

EXTREMES = 5  # of the series, the worst and the best


FATE = {"fine_tuning": "all of whose weights were trained", "lora": "frozen but for low-rank additions"}


# No script, and nothing that a browser would ask a network for: the policy says so too.
_PAGE = string.Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --line: #d0d7de; --back: #fff; --text: #1f2328; --soft: #59636e; --own: #fff4e5;
  --warn: #fff1f0; --warn-line: #c00000; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --back: #0d1117; --text: #e6edf3; --soft: #9198a1; --own: #33250f;
    --warn: #2d1214; --warn-line: #ff7b72; }
}
body { margin: 0 auto; max-width: 68rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); }
.soft, figcaption, small { color: var(--soft); }
.warnings { margin: 1rem 0; padding: .5rem 1rem; background: var(--warn); border-left: 4px solid var(--warn-line); }
.warnings ul { margin: 0; padding-left: 1.1rem; }
.table { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .4rem; border-bottom: 1px solid var(--line); text-align: right; white-space: pre;
  vertical-align: top; background: var(--back); overflow-wrap: normal; }
th:first-child { text-align: left; position: sticky; left: 0; min-width: 9.5em; white-space: normal;
  overflow-wrap: break-word; }
table.words td { text-align: left; }
table.words th:first-child { min-width: 0; }
tr.own th, tr.own td { background: var(--own); font-weight: 600; }
td small { font-weight: 400; }
figure { margin: 1.5rem 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
pre { overflow-x: auto; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: 4px;
  font-size: .85rem; }
summary { cursor: pointer; padding: .3rem 0; }
</style>
</head>
<body>
$body
</body>
</html>
""")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
      name: of its file in figures/, without '.png'.
      figure: what is drawn.
      alt: what is said in its place.
      caption: a sentence that explains it.
    """

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
    of_series: pd.DataFrame,
    inspection: Inspection | None,
) -> None:
    """Writes figures/*.png and report.html.

    Args:
      workdir: the run's folder; its metrics.jsonl, where there is one, gives the learning curves.
      config: a whole config.
      content: of results.json.
      dataset: what was scored.
      evaluation: of the scores.
      of_series: the metrics of each series, from `evaluation.per_series`.
      inspection: of the prompt, where there is one.
    """
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    with matplotlib.rc_context(figures.STYLE):
        for picture in _pictures(workdir, config, content, dataset, evaluation, inspection):
            blob = _png(picture.figure, dataset.warnings)
            write_whole(workdir / "figures" / f"{picture.name}.png", blob)
            pictures[picture.name] = _embedded(picture, blob)
    title = f"{METHODS[content['method']].title} on {dataset_title(content['dataset'])}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        *_introduction(config, content),
        "<h2>Test part</h2>",
        *_results(content),
        *(pictures.get(name, "") for name in ("test_series", "curves", "reliability")),
    ]
    if content["test"]["auroc"] is None:
        body.append("<p>The test part has one class only: precision-recall and ROC curves are undefined.</p>")
    body += ["<h2>Series of the test part</h2>", *_series(of_series)]
    if "learning_curves" in pictures:
        body += ["<h2>Training</h2>", pictures["learning_curves"]]
    if inspection is not None:
        body += ["<h2>Prompt</h2>", *_prompt(inspection)]
        body += [pictures.get(name, "") for name in ("prompt_movement", "attention")]
    body += ["<h2>How to get this again</h2>", *_reproduction(config, content)]
    page = _PAGE.substitute(title=html.escape(title), body="\n".join(body))
    write_whole(workdir / "report.html", page.encode())


def _png(figure: Figure, warnings: Sequence[str]) -> bytes:
    """A figure as a file, with what is to be said about it: a picture is passed on without its page."""
    if warnings:
        lines = [line for warning in warnings for line in textwrap.wrap(warning, 110)]
        figure.text(0.01, 0, "\n".join(lines), va="top", fontsize=7, color=figures.ANOMALY, parse_math=False)
    file = io.BytesIO()
    about = {"Description": " | ".join(warnings)}
    figure.savefig(file, format="png", dpi=130, metadata=about, bbox_inches="tight", pad_inches=0.1)
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
    steps = evaluation.steps["test"]
    combined = config.data.combine != "none"
    yield Picture(
        "test_series",
        figures.series(steps, evaluation.threshold, evaluation.names),
        "Values and scores over time, with labelled and predicted intervals, of a few test series",
        "A few test series, those with anomalies first: recorded values with the labelled anomalies (red) above, the"
        " score of every step with the predicted anomalies (orange) and the threshold below."
        + (" Of several columns, which have one score, the values are the first one's." if combined else ""),
    )
    if content["test"]["auroc"] is not None:
        method = METHODS[content["method"]].title
        compared = {method: steps}
        metrics = {method: content["test"]}
        for name, found in evaluation.control_steps.items():
            if name != "always_normal":  # one score for all steps has no curve
                compared[NAMES[name]], metrics[NAMES[name]] = found, content["controls"][name]["test"]
        yield Picture(
            "curves",
            figures.ranking_curves(compared, metrics, content["test"]["base_rate"]),
            "Precision-recall and ROC curves of the method and its controls on the test part",
            "Every threshold at once, over all test steps: a method is worth something where its curve lies above those"
            " of the controls; the dotted lines are scores without information.",
        )
    if steps.score.min() >= 0 and steps.score.max() <= 1:
        yield Picture(
            "reliability",
            figures.reliability(steps.label, steps.score),
            "Share of anomalous test steps by score, and number of steps by score",
            "Can a score be read as a probability? On the dotted diagonal three in ten of the steps with a score of 0.3"
            " are anomalous; the histogram shows how many steps each point stands on.",
        )
    log = workdir / "metrics.jsonl"
    if log.exists():
        lines, best = [json.loads(line) for line in log.read_text().splitlines()], content["training"]["best"]
        name = best["metric"].removeprefix("validation_")
        metric = COLUMNS.get(name, name)
        yield Picture(
            "learning_curves",
            figures.learning_curves(lines, best["step"]),
            "Loss of training and validation, and AUROC and AUPR of validation, by optimizer step",
            f"The course of training; the parameters of epoch {best['epoch']} were kept, whose validation {metric} is"
            f" the best, {best['value']:.3f}.",
        )
        if any(line.get("prompt_moved") for line in lines):
            yield Picture(
                "prompt_movement",
                figures.prompt_movement(lines, best["step"]),
                "Distance of each prompt vector from its start, by optimizer step",
                "How far each prompt vector has moved from where training began, a line for each (Euclidean distance):"
                " flat lines are a prompt that does not learn.",
            )
    if inspection is not None and len(inspection.attention):
        windows, row = dataset.windows["test"], inspection.window
        real = windows.real[row]
        name = dataset.recorded[windows.series[row]].name
        where = f"steps {windows.start[row]} to {windows.start[row] + real.sum() - 1} of {name}"
        yield Picture(
            "attention",
            figures.attention(windows.values[row, real], windows.labels[row, real], inspection.attention),
            f"Attention of {where} to the prompt, by layer and prompt vector",
            f"How much {where}, a test window, look at the prompt (labelled anomalies are red): the softmax weights of"
            " all its vectors together, and of each vector, averaged over the heads of a layer.",
        )


def _introduction(config: ConfigDict, content: Mapping[str, Any]) -> list[str]:
    backbone, training, warnings = content["backbone"], content["training"], list(content["warnings"])
    said = []
    if "detector" in training:
        said.append(f"A detector trained on {training['trained_on']} was applied as it is; nothing was trained here.")
    elif content["trained"]:
        numbers = f"{content['parameters']['trainable']:,} numbers"
        said.append(f"Trained: {' + '.join(content['trained'])}, {numbers}, {training['steps']:,} optimizer steps.")
    else:
        said.append("Nothing was trained step by step.")
    if backbone:
        weights = "pretrained" if backbone["pretrained"] else "RANDOM weights"
        fate = FATE.get(content["method"], "frozen")
        said.append(f"Backbone: {backbone['name']} ({weights}, {backbone['dtype']}), {fate}.")
        if not backbone["pretrained"]:
            warnings.insert(
                0, f"The weights of {backbone['name']} are RANDOM: nothing here speaks of a pretrained language model."
            )
    sizes = content["splits"]["test"]
    said.append(
        f"Test part: {sizes['series']} series, {sizes['steps']:,} steps, {sizes['anomalous_steps']:,} of them labelled"
        f" anomalous (base rate {sizes['anomalous_steps'] / sizes['steps']:.3f}); split “{config.data.split}”, seed"
        f" {content['seed']}."
    )
    body = [f"<p>{html.escape(' '.join(said))}</p>"]
    if warnings:
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        body.append(f'<div class="warnings" role="note" aria-label="warnings"><ul>{items}</ul></div>')
    return body


def _results(content: Mapping[str, Any]) -> list[str]:
    threshold = content["threshold"]
    said = (
        f"Threshold {threshold['value']:.4g}: rule “{threshold['rule']}”, chosen on the {threshold['chosen_on']} part"
        f" of {threshold['from']}, never on test labels. Each control has its own, chosen alike."
    )
    about = (
        "Step by step: pooled over steps. Intervals: VUS and range, event and affiliation F1 are means over series. In"
        " brackets: 95 % intervals by the bootstrap over series. A “-” is undefined."
    )
    body = [
        _metrics(content, "test"),
        f"<p>{html.escape(said)}</p>",
        *(f'<p class="soft">{html.escape(line[0].upper() + line[1:])}.</p>' for line in explained(content)),
        f'<p class="soft">{html.escape(about)}</p>',
    ]
    if "nab_score" in content:
        profiles = list(next(iter(content["nab_score"].values())))
        rows = [
            [NAMES.get(name, METHODS[content["method"]].title), *(_number(found[one]["test"], 1) for one in profiles)]
            for name, found in content["nab_score"].items()
        ]
        body.append(_table(["NAB score, test", *profiles], rows, own=1))
    for split in ("validation", "train"):
        body.append(f"<details><summary>{split} part</summary>{_metrics(content, split)}</details>")
    return body


def _metrics(content: Mapping[str, Any], split: str) -> str:
    """All metrics of a split: two tables, as one would be wider than most screens."""
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
        rows += [row(NAMES[name], found[split], {}) for name, found in content["controls"].items()]
        return _table([f"{split}, {kind}", *(COLUMNS[column] for column in columns)], rows, own=own)

    of_intervals = [column for column in COLUMNS if column not in STEPWISE]
    return table("step by step", STEPWISE) + table("intervals", of_intervals)


def _series(of_series: pd.DataFrame) -> list[str]:
    test = of_series[of_series["split"] == "test"]
    ranked = test.dropna(subset=["auroc"]).sort_values("auroc")
    quiet = test[test["base_rate"] == 0]
    format_number = {"auroc": "AUROC", "aupr": "AUPR", "base_rate": "base rate", "f1": "F1", "event_f1": "event F1"}

    def table(part: pd.DataFrame, title: str) -> str:
        rows = [
            [one["series"], f"{one['steps']:,}", *(_number(one[name]) for name in format_number)]
            for one in part.to_dict("records")
        ]
        return _table([title, "steps", *format_number.values()], rows)

    if len(ranked) > 2 * EXTREMES:
        body = [table(ranked[:EXTREMES], "worst"), table(ranked[: -EXTREMES - 1 : -1], "best")]
    else:
        body = [table(ranked, "worst first")] if len(ranked) else []
    said = f"With both classes, and ranked by AUROC: {len(ranked)} of {len(test)} series."
    if len(quiet):
        # With no labelled anomaly, what is not accurate is a false alarm.
        alarms = float((quiet["steps"] * (1 - quiet["accuracy"])).sum() / quiet["steps"].sum())
        said += f" Without a labelled anomaly: {len(quiet)}; {alarms:.1%} of their steps are false alarms."
    return [*body, f'<p class="soft">{said} All are in per_series.parquet.</p>']


def _prompt(inspection: Inspection) -> list[str]:
    if inspection.words:
        # Isolated, so that a word written from right to left does not change places with its number.
        rows = [
            [str(number + 1), *(f"\u2068{word}\u2069  {cosine:.2f}" for word, cosine in found)]
            for number, found in enumerate(inspection.words)
        ]
        ranks = [f"{number + 1}. word, cosine" for number in range(len(inspection.words[0]))]
        body = [
            "<p>The words of the vocabulary whose embeddings lie nearest to each prompt vector, with the cosine: 1 is"
            " the word itself. A prompt that starts from words mostly stays near them.</p>",
            _table(["vector", *ranks], rows, kind="words"),
        ]
    else:
        body = ["<p>The backbone's weights are random: words near the prompt would mean nothing, and are left out.</p>"]
    if not len(inspection.attention):
        body.append("<p>The window is too long for a picture of its attention.</p>")
    return body


def _reproduction(config: ConfigDict, content: Mapping[str, Any]) -> list[str]:
    fields = flatten(json.loads(to_json(config)))
    defaults = flatten(json.loads(to_json(default_config())))
    changed = {name: value for name, value in fields.items() if value != defaults[name]}

    def lines(chosen: Mapping[str, Any]) -> str:
        return html.escape("\n".join(f"{name} = {json.dumps(value)}" for name, value in sorted(chosen.items())))

    same = {name: value for name, value in fields.items() if name not in changed}
    words = [*shlex.split(content["command"]), "--workdir=FOLDER"]
    command = " \\\n    ".join([" ".join(words[:3]), *map(shlex.quote, words[3:])])  # python -m spear_jax.main, flags
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in content["seconds"].items())
    versions = [[name, str(version)] for name, version in content["versions"].items()]
    return [
        f'<pre tabindex="0">{html.escape(command)}</pre>',
        f'<p class="soft">It took: {html.escape(seconds)}.</p>',
        "<details><summary>Config: fields that differ from the defaults, then the others</summary>"
        f'<pre tabindex="0">{lines(changed)}</pre><pre tabindex="0">{lines(same)}</pre></details>',
        f"<details><summary>Versions</summary>{_table(['package', 'version'], versions)}</details>",
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, own: int = 0, kind: str = "") -> str:
    """A table in a box of its own, which scrolls where the page is narrow.

    Args:
      head: of the columns.
      rows: of cells; what follows a line break is set smaller.
      own: how many of the first rows are the method's own.
      kind: class of the table.
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
    # A box that scrolls is reached by the keyboard.
    return f'<div class="table" tabindex="0"><table class="{kind}">{"".join(lines)}</table></div>'
