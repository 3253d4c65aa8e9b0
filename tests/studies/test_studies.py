"""Studies: every run once, whatever happens in between, and every run in the table."""

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest
from conftest import CONFIGS, SYNTHETIC, Spear, check_refusal, results
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from spear_jax import main
from spear_jax.config import checks, reading
from spear_jax.config.fields import default_config
from spear_jax.errors import InputError
from spear_jax.storage import write_whole
from spear_jax.studies import runner, table
from spear_jax.studies.runner import plan, run_study
from spear_jax.studies.study import PROTOCOL, Row, Study, grid, load_study

pytestmark = pytest.mark.one_python

STUDIES = sorted((CONFIGS / "studies").glob("*.py"))


def study(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int] = (0,), name: str = "one", **fields: str) -> Study:
    axis = "prompt.length" if all("prompt.length" in row for row in rows) else ""
    config = f"{CONFIGS / 'quickstart.py'}:debug"
    named = {", ".join(f"{field}={value}" for field, value in row.items()): Row(row) for row in rows}
    return Study(name, "A title", "A question?", config, SYNTHETIC | fields, "fields", named, seeds, axis)


def stamps(workdir: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (workdir / "runs").glob("*/results.json")}


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a study as calls in this process, which has compiled most of them before."""

    def called(command: list[str], *, stdout: IO[bytes], **_: object) -> subprocess.CompletedProcess[bytes]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main.main(command[3:])
        stdout.write(said.getvalue().encode())
        stdout.flush()
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", called)


def test_a_study_runs_each_run_once_and_lists_what_failed(tmp_path: Path, in_place: None) -> None:
    rows = [{"prompt.length": 0}, {"prompt.length": 4}, {"prompt.length": 4, "backbone.name": "/nowhere"}]
    one = dataclasses.replace(study(rows, seeds=(0, 1)), reference="prompt.length=0")
    text = run_study(one, {}, tmp_path / "s", None)
    runs = pd.read_csv(tmp_path / "s" / "one.csv")
    assert len(runs) == 6
    assert runs["error"].notna().tolist() == [False] * 4 + [True] * 2
    assert "exit code 2" in runs["error"].iloc[-1]
    assert "/nowhere" in runs["error"].iloc[-1]
    assert text == (tmp_path / "s" / "one.md").read_text()
    assert "| 0 of 2 |" in text
    assert text.count("- failed: ") == 2
    assert "- RANDOM WEIGHTS, nothing pretrained: prompt.length=0; prompt.length=4 (all)" in text
    content = results(tmp_path / "s" / "runs" / runs["run"][0])
    assert runs["test_aupr"][0] == pytest.approx(content["test"]["aupr"])
    mean = runs["test_aupr"][:2].mean()
    assert f"{mean:.3f} ± " in text
    aupr = runs["test_aupr"]
    differences = [aupr[2] - aupr[0], aupr[3] - aupr[1]]  # of the same seed, whose series were divided alike
    assert f"{np.mean(differences):+.3f} ± {np.std(differences, ddof=1):.3f} |" in text
    assert (tmp_path / "s" / "one.png").stat().st_size > 5000
    before = stamps(tmp_path / "s")
    assert len(before) == 4
    run_study(study(rows[:2], seeds=(0, 1)), {}, tmp_path / "s", None)
    assert stamps(tmp_path / "s") == before


def test_two_studies_share_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = study([{"prompt.length": 4}]), study([{"train.epochs": 1}], name="two", **{"prompt.length": "4"})
    (a,), (b,) = plan(first, {}), plan(second, {})
    assert a.name == b.name
    run_study(first, {}, tmp_path / "s", None)
    known = tmp_path / "known"
    known.mkdir()
    (known / f"{a.name}.json").write_bytes((tmp_path / "s" / "runs" / a.name / "results.json").read_bytes())
    monkeypatch.setattr(subprocess, "run", None)
    run_study(second, {}, tmp_path / "s", None)
    assert "| train.epochs=1 | 1 |" in run_study(second, {}, tmp_path / "other", known)
    assert not (tmp_path / "other" / "runs").exists()
    (known / runner.DEFAULTS).write_text("train.epochs=41\n")
    with pytest.raises(TypeError):  # not taken: it would be run
        run_study(second, {}, tmp_path / "other", known)
    assert "train.epochs was 41, is 40" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        "runs",
        *(f"{name}.{kind}" for name in ("one", "two") for kind in ("md", "csv", "png")),
    }


def test_two_studies_at_the_same_time_do_not_do_the_same_run_twice(tmp_path: Path) -> None:
    path = tmp_path / "study.py"
    path.write_text(STUDY_FILE.format(config=f"{CONFIGS / 'quickstart.py'}:debug", base=SYNTHETIC, lengths=(1,)))
    command = [sys.executable, "-m", "spear_jax.main", "--mode=study", f"--config={path}", f"--workdir={tmp_path}/s"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert said[0] == said[1]
    assert said[0].count("| 1 |") >= 1
    for log in (tmp_path / "s" / "runs").glob("*.log"):
        assert log.read_text().count("devices: ") == 1


def test_a_file_that_many_write_at_once_is_one_of_theirs(tmp_path: Path) -> None:
    contents = [bytes([number]) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_whole(tmp_path / "table.md", content), contents * 20))
    assert (tmp_path / "table.md").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def test_names_tell_configs_apart_and_nothing_else() -> None:
    planned = plan(
        study([row.fields for row in grid(prompt__length=(0, 4), train__epochs=(1, 2)).values()], seeds=(0, 1)), {}
    )
    assert len({one.name for one in planned}) == 8
    again = plan(study([{"prompt.length": 0, "train.epochs": 1}]), {"data.dir": "/somewhere/else"})
    assert again[0].name == planned[0].name


def test_an_impossible_run_stops_a_study_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.prompt\.length=-1 must be at least 0"):
        run_study(study([{"prompt.length": 4}, {"prompt.length": -1}]), {}, tmp_path / "s", None)
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match="a study has seeds of its own"):
        run_study(study([{"prompt.length": 4}]), {"seed": "5"}, tmp_path / "s", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run_study(study([{"prompt.length": 4}]), {}, tmp_path / "file", None)


def test_a_study_in_which_all_runs_fail_says_so(tmp_path: Path, in_place: None) -> None:
    for rows in ([{"prompt.length": 4}, {"prompt.length": 0}], [{"train.epochs": 1}, {"train.epochs": 2}]):
        failing = study(rows, **{"backbone.name": "/nowhere"})
        text = run_study(dataclasses.replace(failing, reference=next(iter(failing.rows))), {}, tmp_path / "s", None)
        assert "| 0 of 1 |" in text
        assert "- failed: " in text


def test_a_source_that_fails_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Row({**SYNTHETIC, "backbone.name": "/nowhere"})
    config = f"{CONFIGS / 'quickstart.py'}:debug"
    rows = {str(rate): Row({"data.synthetic.rate": rate}, config, source, True) for rate in (0.1, 0.2, 0.3)}
    calls = []
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *given, **how: calls.append(given) or real(*given, **how))
    text = run_study(Study("one", "t", "q", config, {}, "rate", rows, (0,)), {}, tmp_path / "s", None)
    assert text.count("its source") == 3
    assert len(calls) == 1


def test_known_results_are_of_the_public_data_and_of_todays_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = study([{"prompt.length": 4}])
    (planned,) = plan(one, {})
    assert planned.known
    assert not plan(one, {"data.dir": "/somewhere"})[0].known
    run_study(one, {}, tmp_path / "s", None)

    def other() -> ConfigDict:
        config = default_config()
        config.train.weight_decay = 0.5
        return config

    monkeypatch.setattr(runner.configs, "default_config", other)
    monkeypatch.setattr(subprocess, "run", None)
    assert "other defaults of train.weight_decay; remove it" in run_study(one, {}, tmp_path / "s", None)


STUDY_FILE = """
from spear_jax.studies import Row, Study

def get_study(arg=""):
    rows = {{str(n): Row({{"prompt.length": n}}) for n in {lengths}}}
    return Study("study", "t", "q", {config!r}, {base!r}, "prompt.length", rows, (0,))
"""


@pytest.mark.parametrize(
    ("metrics", "drawn", "names"),
    [
        (("auroc", "aupr"), "test AUPR", {"each seed", "mean", "base rate, mean"}),
        (
            ("precision", "recall", "f1"),
            "test precision and recall",
            {"each seed, precision", "each seed, recall", "mean"},
        ),
    ],
)
@pytest.mark.parametrize("along", [{}, {"a": 1.0, "b": 2.0}])
def test_a_figure_draws_what_the_table_is_about(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    along: dict[str, float],
    metrics: tuple[str, ...],
    drawn: str,
    names: set[str],
) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *to, **how: (figures.append(self), save(self, *to, **how)))
    layout = table.Layout("T", "Q?", "row", along, "axis", 2, "", metrics, {}, {}, {})
    numbers = {f"test_{name}": [0.1, 0.2, 0.5, 0.6] for name in metrics}
    runs = pd.DataFrame({"row": [*"aabb"], "error": "", "base_rate": 0.1, **numbers})
    table.draw_study(layout, runs, tmp_path / "one.png")
    (axes,) = figures[0].axes
    assert drawn in (axes.get_xlabel(), axes.get_ylabel())
    assert set(axes.get_legend_handles_labels()[1]) == names
    line = next(line for line in axes.lines if line.get_label() == "mean")
    np.testing.assert_allclose(
        np.asarray(line.get_ydata() if along else line.get_xdata(), float), [0.15, 0.55][:: 1 if along else -1]
    )


@pytest.mark.slow
def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    base = SYNTHETIC | {"train.epochs": "3"}
    study = STUDY_FILE.format(config=f"{CONFIGS / 'quickstart.py'}:debug", base=base, lengths=(1, 2, 3))
    (tmp_path / "study.py").write_text(study)
    command = [sys.executable, "-m", "spear_jax.main", "--mode=study", f"--config={tmp_path / 'study.py'}"]
    command.append(f"--workdir={tmp_path / 's'}")
    begun = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(stamps(tmp_path / "s")) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    before = stamps(tmp_path / "s")
    assert 1 <= len(before) < 3
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = stamps(tmp_path / "s")
    assert len(after) == 3
    assert before.items() <= after.items()
    assert all(f"\n| {length} | 1 |" in done.stdout for length in (1, 2, 3))


def test_a_matrix_of_transfers(spear: Spear, nasa: Path, tmp_path: Path, in_place: None) -> None:
    own = {"data.dir": nasa, "data.split": "time"}
    config, other = f"{CONFIGS / 'quickstart.py'}:debug", f"{CONFIGS / 'nasa.py'}:debug"
    data = {"data.stride": 32, "data.gap": 0, "score.batch_size": 8, "controls.head_only": "false", **own}
    first = Row(SYNTHETIC, config, cells=(("carried", "a", "a"),))
    second = Row({**SYNTHETIC, **own}, other, cells=(("carried", "b", "b"),))
    rows = {
        "a": first,
        "b": second,
        "a to b": Row(data, other, first, True, (("carried", "a", "b"),)),
        "a to b, new head": Row({**SYNTHETIC, **own, "train.parts": "head"}, other, first),
        "nothing to b": Row(data, other, Row({**SYNTHETIC, "backbone.name": "/nowhere"}, config), True),
    }
    one = Study("transfer", "t", "q", config, {}, "detector", rows, (0,), matrices={"carried": ("auroc",)})
    text = run_study(one, {}, tmp_path / "s", None)
    runs = pd.read_csv(tmp_path / "s" / "transfer.csv").set_index("row")
    assert runs["error"].isna().tolist() == [True] * 4 + [False]
    assert "its source" in runs["error"].iloc[-1]
    detector = tmp_path / "s" / "runs" / runs["run"]["a"]
    fields = {f"--config.{name}={value}" for name, value in data.items()}
    checkpoint = detector / "checkpoints" / str(results(detector)["training"]["best"]["step"])
    for name, source in (("detector", detector / "detector"), ("checkpoint", checkpoint)):
        flags = (f"--config={other}", f"--detector={source}", f"--workdir={tmp_path / name}")
        assert spear("--mode=evaluate", *flags, *fields).code == 0
        numbers = results(tmp_path / name)["test"]
        assert results(tmp_path / "s" / "runs" / runs["run"]["a to b"])["test"] == numbers
    began = (f"--config.train.init_from={checkpoint}", f"--workdir={tmp_path / 'new_head'}")
    again = {f"--config.{name}={value}" for name, value in {**SYNTHETIC, **own, "train.parts": "head"}.items()}
    assert spear(f"--config={other}", *again, *began).code == 0
    new_head = results(tmp_path / "s" / "runs" / runs["run"]["a to b, new head"])["test"]
    assert results(tmp_path / "new_head")["test"] == new_head
    assert f"| a | {runs['test_auroc']['a']:.3f} | {numbers['auroc']:.3f} |" in text
    assert f"| b | - | {runs['test_auroc']['b']:.3f} |" in text
    assert results(tmp_path / "s" / "runs" / runs["run"]["a to b, new head"])["trained"] == ["head"]
    assert (tmp_path / "s" / "transfer.png").stat().st_size > 5000
    before = stamps(tmp_path / "s")
    run_study(one, {}, tmp_path / "s", None)
    assert stamps(tmp_path / "s") == before


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
@pytest.mark.parametrize("argument", ["", "nab", "mimic_iv", "nasa,time", "debug"])
def test_shipped_studies_are_possible(file: Path, argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    if file.stem == "transfer" and set(argument.split(",")) & PROTOCOL.keys():
        return  # it is about all data sets
    if file.stem == "rules" and argument == "mimic_iv":
        with pytest.raises(InputError, match="has no recorded labels"):
            load_study(f"{file}:{argument}")
        return
    if file.stem in ("splits", "tsmote") and "time" in argument:
        with pytest.raises(InputError, match="splits of its own"):
            load_study(f"{file}:{argument}")
        return
    found = load_study(f"{file}:{argument}")
    assert ("debug" in found.name and "random weights" in found.title) == ("debug" in argument)
    planned = plan(found, {})
    assert len(planned) == len(found.rows) * len(found.seeds)
    if "debug" not in argument:  # whose backbone is a random one to begin with
        assert len({one.name for one in planned}) == len(planned)
    assert f"configs/studies/{file.name}" in file.read_text()
    if found.axis:
        assert all(isinstance(row.fields[found.axis], int | float) for row in found.rows.values())


def test_a_file_that_is_no_study(spear: Spear, tmp_path: Path) -> None:
    outcome = spear("--mode=study", f"--config={CONFIGS / 'nasa.py'}", f"--workdir={tmp_path / 's'}")
    check_refusal(outcome, "nasa.py", "get_study")
    outcome = spear("--mode=study", "--config=nowhere.py", f"--workdir={tmp_path / 's'}")
    check_refusal(outcome, "no file 'nowhere.py'")


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
@pytest.mark.parametrize("data", PROTOCOL)
def test_what_was_not_measured_can_be_by_its_command(file: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    argument = "" if file.stem == "transfer" else data
    if (file.stem, data) == ("rules", "mimic_iv"):
        return
    for way in load_study(f"{file}:{argument}").not_measured.values():
        environment, module, arguments = way.partition("python -m spear_jax.main ")
        assert module and all("=" in variable for variable in environment.split())
        flags = main.parse_flags(arguments.split())
        if flags.mode == "study":
            assert plan(load_study(flags.config), flags.overrides)
            continue
        config = reading.load_config(flags.config)
        for field, text in flags.overrides.items():
            reading.override(config, field, text)
        checks.validate(config)
