"""A study runs each run once, whatever happens in between, and shows every run in its table."""

import contextlib
import dataclasses
import io
import json
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

from spear_jax import main
from spear_jax.errors import InputError
from spear_jax.storage import write_whole
from spear_jax.studies import (
    PROTOCOL,
    Row,
    Study,
    draw_study,
    grid,
    load_study,
    make_table,
    plan,
    read_tables,
    run_study,
    write_table,
)

pytestmark = pytest.mark.one_python

STUDIES = sorted((CONFIGS / "studies").glob("*.py"))
QUICKSTART = f"{CONFIGS / 'quickstart.py'}:debug"


def study(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int] = (0,), name: str = "one", **shared: str) -> Study:
    return Study(
        name,
        "A title",
        "A question?",
        "fields",
        {", ".join(f"{field}={value}" for field, value in row.items()): Row(row) for row in rows},
        config=QUICKSTART,
        overrides=SYNTHETIC | shared,
        seeds=seeds,
        axis="prompt.length" if all("prompt.length" in row for row in rows) else "",
    )


def measured(workdir: Path, name: str = "one") -> pd.DataFrame:
    return read_tables(workdir)[name]


def own_test_rows(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["split"] == "test") & (table["control"] == "")].set_index("run")


def stamps(workdir: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (workdir / "runs").glob("*/results.json")}


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a study as calls in this process, which has compiled most of them before."""

    def call(command: list[str], *, stdout: IO[bytes], **_: object) -> subprocess.CompletedProcess[bytes]:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = main.main(command[3:])
        stdout.write(output.getvalue().encode())
        stdout.flush()
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", call)


@pytest.mark.figures
@pytest.mark.landing
@pytest.mark.slow
def test_a_study_runs_each_run_once_and_lists_failures(tmp_path: Path, in_place: None) -> None:
    rows = [{"prompt.length": 0}, {"prompt.length": 4}, {"prompt.length": 4, "backbone.name": "/nowhere"}]
    compared = dataclasses.replace(
        study(rows, seeds=(0, 1)), reference="prompt.length=0", controls_of="prompt.length=4"
    )
    page = run_study(compared, {}, tmp_path / "s", tmp_path)
    assert page == (tmp_path / "s" / "one.md").read_text()
    assert (tmp_path / "s" / "one.png").stat().st_size > 5000
    table = measured(tmp_path / "s")
    errors = table[table["error"] != ""]
    assert errors["seed"].tolist() == [0, 1]
    assert errors["error"].str.contains("exit code 2").all() and errors["error"].str.contains("/nowhere").all()
    assert "| 0 of 2 |" in page
    assert page.count("- failed: prompt.length=4, backbone.name=/nowhere, seed ") == 2
    assert "- RANDOM WEIGHTS, nothing pretrained: all rows" in page

    runs = own_test_rows(table)
    names = [run.name for run in plan(compared, {})]
    content = results(tmp_path / "s" / "runs" / names[0])
    assert runs["aupr"][names[0]] == content["test"]["aupr"]
    lookup = table[(table["run"] == names[2]) & (table["control"] == "bin_lookup") & (table["split"] == "validation")]
    controls = results(tmp_path / "s" / "runs" / names[2])["controls"]
    assert lookup["auroc"].item() == controls["bin_lookup"]["validation"]["auroc"]
    assert "| bin lookup | 2 |" in page
    aupr = runs["aupr"].loc[names[:4]].to_numpy()
    assert f"{aupr[:2].mean():.3f} ± {aupr[:2].std(ddof=1):.3f} |" in page
    differences = [aupr[2] - aupr[0], aupr[3] - aupr[1]]  # with the same seed
    assert f"{np.mean(differences):+.3f} ± {np.std(differences, ddof=1):.3f} |" in page
    assert max(line.count("|") for line in page.splitlines()) <= 9  # eight columns

    before = stamps(tmp_path / "s")
    assert len(before) == 4
    run_study(study(rows[:2], seeds=(0, 1)), {}, tmp_path / "s", tmp_path)
    assert stamps(tmp_path / "s") == before


def test_measured_runs_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_place: None
) -> None:
    first, second = study([{"prompt.length": 4}]), study([{"train.epochs": 1}], name="two", **{"prompt.length": "4"})
    (run,), (same,) = plan(first, {}), plan(second, {})
    assert run.name == same.name
    run_study(first, {}, tmp_path / "s", tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    run_study(second, {}, tmp_path / "s", tmp_path)
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        "runs",
        *(f"{name}.{kind}" for name in ("one", "two") for kind in ("md", "parquet", "png")),
    }
    # The table of the first study is enough, in a folder of published ones.
    page = run_study(second, {}, tmp_path / "other", tmp_path / "s")
    assert "| train.epochs=1 | 1 |" in page
    assert not (tmp_path / "other" / "runs").exists()
    pd.testing.assert_frame_equal(measured(tmp_path / "other", "two"), measured(tmp_path / "s"), check_dtype=False)
    # Not so with other defaults, or on data of one's own.
    with pytest.raises(TypeError):
        run_study(second, {"data.dir": "/somewhere"}, tmp_path / "other", tmp_path / "s")
    tables = read_tables(tmp_path / "s")
    for name, table in tables.items():
        table.attrs["defaults"] |= {"train.epochs": "41"}
        write_table(tmp_path / "s" / f"{name}.parquet", table)
    with pytest.raises(TypeError):
        run_study(second, {}, tmp_path / "other", tmp_path / "s")
    assert "other defaults (train.epochs was 41, is 40)" in capsys.readouterr().out


def test_a_run_folder_of_other_defaults_is_refused(tmp_path: Path, in_place: None) -> None:
    one = study([{"prompt.length": 4}])
    run_study(one, {}, tmp_path / "s", tmp_path)
    config = next((tmp_path / "s" / "runs").glob("*/config.json"))
    content = json.loads(config.read_text())
    content["train"]["weight_decay"] = 0.5
    config.write_text(json.dumps(content))
    assert "other defaults of train.weight_decay; remove it" in run_study(one, {}, tmp_path / "s", tmp_path)


@pytest.mark.slow
def test_two_studies_at_the_same_time_do_not_do_the_same_run_twice(tmp_path: Path) -> None:
    path = tmp_path / "study.py"
    path.write_text(STUDY_FILE.format(config=QUICKSTART, shared=SYNTHETIC, lengths=(1,)))
    command = [sys.executable, "-m", "spear_jax.main", "--mode=study", f"--config={path}", f"--workdir={tmp_path}/s"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert "| 1 | 1 |" in outputs[0]
    for log in (tmp_path / "s" / "runs").glob("*.log"):
        assert log.read_text().count("devices: ") == 1


def test_a_file_that_many_write_at_once_is_one_of_theirs(tmp_path: Path) -> None:
    contents = [bytes([number]) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_whole(tmp_path / "table.md", content), contents * 20))
    assert (tmp_path / "table.md").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def test_names_tell_configs_apart_and_nothing_else() -> None:
    rows = [row.overrides for row in grid(prompt__length=(0, 4), train__epochs=(1, 2)).values()]
    planned = plan(study(rows, seeds=(0, 1)), {})
    assert len({run.name for run in planned}) == 8
    again = plan(study(rows[:1]), {"data.dir": "/somewhere/else"})
    assert again[0].name == planned[0].name
    assert planned[0].public and not again[0].public


def test_an_impossible_run_stops_a_study_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.prompt\.length=-1 must be 0 to 65536"):
        run_study(study([{"prompt.length": 4}, {"prompt.length": -1}]), {}, tmp_path / "s", tmp_path)
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match=r"config\.seed has no effect on a study"):
        run_study(study([{"prompt.length": 4}]), {"seed": "5"}, tmp_path / "s", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run_study(study([{"prompt.length": 4}]), {}, tmp_path / "file", tmp_path)


@pytest.mark.parametrize("field", ["prompt.length", "train.epochs"])
def test_a_study_in_which_all_runs_fail_says_so(tmp_path: Path, in_place: None, field: str) -> None:
    failing = study([{field: 4}, {field: 2}], **{"backbone.name": "/nowhere"})
    page = run_study(dataclasses.replace(failing, reference=f"{field}=4"), {}, tmp_path / "s", tmp_path)
    assert page.count("| 0 of 1 |") == 2
    assert page.count("- failed: ") == 2


@pytest.mark.slow
def test_a_source_that_fails_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Row({**SYNTHETIC, "backbone.name": "/nowhere"})
    rows = {str(rate): Row({"data.synthetic.rate": rate}, QUICKSTART, source, True) for rate in (0.1, 0.2, 0.3)}
    calls = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: calls.append(args) or run(*args, **kwargs))
    page = run_study(Study("one", "t", "q?", "rate", rows, QUICKSTART, seeds=(0,)), {}, tmp_path / "s", tmp_path)
    assert page.count("its source") == 3
    assert len(calls) == 1


STUDY_FILE = """
from spear_jax.studies import Row, Study

def get_study(arg=""):
    rows = {{str(n): Row({{"prompt.length": n}}) for n in {lengths}}}
    return Study("study", "t", "q?", "prompt.length", rows, {config!r}, {shared!r}, seeds=(0,))
"""


@pytest.mark.parametrize(
    ("metrics", "drawn", "names"),
    [
        (("auroc", "aupr"), "test AUPR", {"each seed", "mean", "mean base rate"}),
        (
            ("precision", "recall", "f1"),
            "test precision and recall",
            {"each seed, precision", "each seed, recall", "mean"},
        ),
    ],
)
@pytest.mark.parametrize("axis", ["", "prompt.length"])
@pytest.mark.figures
def test_a_figure_draws_what_the_table_is_about(
    monkeypatch: pytest.MonkeyPatch, axis: str, metrics: tuple[str, ...], drawn: str, names: set[str]
) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: (figures.append(self), save(self, *args, **kwargs))
    )
    shown = dataclasses.replace(study([{"prompt.length": 1}, {"prompt.length": 2}], (0, 1)), axis=axis, metrics=metrics)
    planned = plan(shown, {})
    rows = [
        {
            "run": run.name,
            "split": "test",
            "control": "",
            "seed": run.seed,
            "error": "",
            "base_rate": 0.1,
            "warnings": "",
        }
        | dict.fromkeys(metrics, value)
        for run, value in zip(planned, (0.1, 0.2, 0.5, 0.6), strict=True)
    ]
    draw_study(shown, planned, make_table(rows, ""))
    (axes,) = figures[0].axes
    assert drawn in (axes.get_xlabel(), axes.get_ylabel())
    assert set(axes.get_legend_handles_labels()[1]) == names
    line = next(line for line in axes.lines if line.get_label() == "mean")
    means = line.get_ydata() if axis else line.get_xdata()[::-1]
    np.testing.assert_allclose(np.asarray(means, float), [0.15, 0.55])


@pytest.mark.slow
def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    shared = SYNTHETIC | {"train.epochs": "3"}
    (tmp_path / "study.py").write_text(STUDY_FILE.format(config=QUICKSTART, shared=shared, lengths=(1, 2, 3)))
    command = [sys.executable, "-m", "spear_jax.main", "--mode=study", f"--config={tmp_path / 'study.py'}"]
    command.append(f"--workdir={tmp_path / 's'}")
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(stamps(tmp_path / "s")) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = stamps(tmp_path / "s")
    assert 1 <= len(before) < 3
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    after = stamps(tmp_path / "s")
    assert len(after) == 3
    assert before.items() <= after.items()
    assert all(f"\n| {length} | 1 |" in finished.stdout for length in (1, 2, 3))


@pytest.mark.slow
@pytest.mark.figures
def test_a_matrix_of_transfers(spear: Spear, nasa: Path, tmp_path: Path, in_place: None) -> None:
    own = {"data.dir": nasa, "data.split": "time"}
    other = f"{CONFIGS / 'nasa.py'}:debug"
    data = {"data.stride": 32, "data.gap": 0, "score.batch_size": 8, "controls.head_only": "false", **own}
    first = Row(SYNTHETIC, cells=(("carried over", "a", "a"),))
    second = Row({**SYNTHETIC, **own}, other, cells=(("carried over", "b", "b"),))
    rows = {
        "a": first,
        "b": second,
        "a to b": Row(data, other, first, True, (("carried over", "a", "b"),)),
        "a to b, new head": Row({**SYNTHETIC, **own, "train.parts": "head"}, other, first),
        "nothing to b": Row(data, other, Row({**SYNTHETIC, "backbone.name": "/nowhere"}), True),
    }
    transfer = Study(
        "transfer", "t", "q?", "detector", rows, QUICKSTART, seeds=(0,), matrices={"carried over": ("auroc",)}
    )
    page = run_study(transfer, {}, tmp_path / "s", tmp_path)
    names = {run.row: run.name for run in plan(transfer, {})}
    table = measured(tmp_path / "s", "transfer")
    errors = table[table["error"] != ""]
    assert errors["run"].tolist() == [names["nothing to b"]]
    assert "its source" in errors["error"].item()
    assert str(tmp_path) not in "".join(table["command"].str.replace(str(nasa), ""))  # sources are named relatively
    runs = tmp_path / "s" / "runs"
    detector = runs / names["a"]
    fields = {f"--config.{field}={value}" for field, value in data.items()}
    checkpoint = detector / "checkpoints" / str(results(detector)["training"]["best"]["step"])
    for name, source in (("detector", detector / "detector"), ("checkpoint", checkpoint)):
        flags = (f"--config={other}", f"--detector={source}", f"--workdir={tmp_path / name}")
        assert spear("--mode=evaluate", *flags, *fields).code == 0
        numbers = results(tmp_path / name)["test"]
        assert results(runs / names["a to b"])["test"] == numbers
    source = (f"--config.train.init_from={checkpoint}", f"--workdir={tmp_path / 'new_head'}")
    again = {f"--config.{field}={value}" for field, value in {**SYNTHETIC, **own, "train.parts": "head"}.items()}
    assert spear(f"--config={other}", *again, *source).code == 0
    assert results(runs / names["a to b, new head"])["test"] == results(tmp_path / "new_head")["test"]
    assert results(runs / names["a to b, new head"])["trained"] == ["head"]
    auroc = own_test_rows(table)["auroc"]
    assert f"| a | {auroc[names['a']]:.3f} | {numbers['auroc']:.3f} |" in page
    assert f"| b | - | {auroc[names['b']]:.3f} |" in page
    assert (tmp_path / "s" / "transfer.png").stat().st_size > 5000
    before = stamps(tmp_path / "s")
    run_study(transfer, {}, tmp_path / "s", tmp_path)
    assert stamps(tmp_path / "s") == before


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
@pytest.mark.parametrize("argument", ["", "nab", "mimic_iv", "nasa,time", "debug"])
def test_shipped_studies_are_possible(file: Path, argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    if file.stem in ("transfer", "own_past") and set(argument.split(",")) & PROTOCOL.keys():
        return  # it is about all data sets, or all folds of one: test_folds.py
    if file.stem == "rules" and argument == "mimic_iv":
        with pytest.raises(InputError, match="has no recorded labels"):
            load_study(f"{file}:{argument}")
        return
    if file.stem in ("splits", "tsmote") and "time" in argument:
        with pytest.raises(InputError, match=r"sets data\.split itself"):
            load_study(f"{file}:{argument}")
        return
    shipped = load_study(f"{file}:{argument}")
    assert ("debug" in shipped.name and "random weights" in shipped.variant) == ("debug" in argument)
    assert ("split by time" in shipped.variant) == ("time" in argument)
    planned = plan(shipped, {})
    assert len(planned) == len(shipped.rows) * len(shipped.seeds) * (shipped.folds or 1)
    if "debug" not in argument:  # whose backbone is a random one to begin with
        assert len({run.name for run in planned}) == len(planned)
    assert f"configs/studies/{file.name}" in file.read_text()
    assert "?" in shipped.question
    if shipped.axis:
        assert all(isinstance(row.overrides[shipped.axis], int | float) for row in shipped.rows.values())


def test_a_file_that_is_no_study(spear: Spear, tmp_path: Path) -> None:
    outcome = spear("--mode=study", f"--config={CONFIGS / 'nasa.py'}", f"--workdir={tmp_path / 's'}")
    check_refusal(outcome, "nasa.py", "get_study")
    outcome = spear("--mode=study", "--config=nowhere.py", f"--workdir={tmp_path / 's'}")
    check_refusal(outcome, "--config=nowhere.py: no such file")


@pytest.mark.parametrize("file", [pytest.param("backbones", marks=pytest.mark.slow), "methods"])
@pytest.mark.parametrize("data", PROTOCOL)
def test_rows_that_were_not_measured_can_be_by_their_command(
    file: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    commands = set(load_study(f"configs/studies/{file}.py:{data}").not_measured.values())
    assert len(commands) >= 3
    for command in commands:
        environment, module, arguments = command.partition("python -m spear_jax.main ")
        assert module and all("=" in variable for variable in environment.split())
        flags = main.parse_flags(arguments.split())
        assert flags.mode == "study"
        assert plan(load_study(flags.config), flags.overrides)
