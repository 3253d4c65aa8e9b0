"""Text from outside reaches a message as one line, without control characters and secrets, and not in full length."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Outcome, Run, Spear, command
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from spear_jax.data.sources.files import load_files
from spear_jax.detector.artifact import Detector
from spear_jax.errors import SHOWN, InputError, one_line, plain

pytestmark = pytest.mark.one_python

HOSTILE = "\x1b[31mred\x07\r\n\u202e\x85\u2028" + "long " * 10**4 + "x" * 10**6


def check_plain(text: str) -> None:
    assert text.isprintable()
    assert not re.search(r"x{300}|(long ){60}", text), f"{len(text)} characters"


@given(st.text(alphabet=st.characters(), max_size=50))
def test_a_message_is_one_printable_line(text: str) -> None:
    for message in (str(InputError(f"column {text}: bad")), one_line(ValueError(text)), plain(text)):
        assert message.isprintable()
        assert plain(message) == message


@pytest.mark.parametrize("place", ["{!r}: no such column", "{}", "column {!r} of {!r}", "path/{}/file"])
def test_no_message_carries_a_long_text(place: str) -> None:
    message = str(InputError(place.format(HOSTILE, HOSTILE).replace("long ", "")))
    check_plain(message)
    assert len(message) < 3 * SHOWN
    check_plain(str(InputError("column {!r} is no number".format("long " * 1000))))
    check_plain(one_line(OSError(HOSTILE)))


def test_our_own_words_are_never_cut() -> None:
    message = f"config.x='a' must be one of {', '.join(map(str, range(500)))}, not 'b' or the detector's"
    assert str(InputError(message)) == message


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert plain("https://me:pass@host/v1 and user@host: sk-very-secret") == "https://***@host/v1 and user@host: ***"


def all_lines(outcome: Outcome) -> list[str]:
    return [*outcome.out.split("\n"), *outcome.err.split("\n")]


def test_names_from_outside_are_shown_escaped(spear: Spear, finished: Run, tmp_path: Path) -> None:
    """A file with a name that is not UTF-8 and columns with control characters, read to the end of a training run."""
    table = tmp_path / "K\udcfchl\x1b[31m.csv"
    frame = pd.DataFrame({"a\x1b[2J": np.sin(np.arange(480.0)), "flat\x07": 1.0, "label": np.arange(480) % 40 > 35})
    with table.open("w", encoding="utf-8") as file:
        frame.astype({"label": int}).to_csv(file, index=False)
    trained = spear(*command("files:debug", TINY | {"data.dir": table}, workdir=tmp_path / "run"))
    assert trained.code == 0, trained
    scored = spear(
        "--mode=score", f"--detector={finished.workdir}", f"--input={table}", f"--workdir={tmp_path / 'scored'}"
    )
    assert scored.code == 0, scored
    assert "Kühl" not in scored.out and "K\\xfchl" in scored.out
    for line in (*all_lines(trained), *all_lines(scored)):
        assert line.isprintable(), line
    assert (tmp_path / "run" / "report.html").exists()
    assert pd.read_parquet(tmp_path / "scored" / "scores.parquet")["series"].str.startswith("K\\xfchl").all()
    for path in (tmp_path / "run" / "detector").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_equal_remarks_are_one_and_their_number_is_bounded(tmp_path: Path) -> None:
    for number in range(30):
        frame = pd.DataFrame({"a": range(50), "level": 1.0, f"flat_{number}": 2.0})
        frame["speed"] = 10.0 ** (6 + number % 3) * (frame["a"] == 7) + frame["a"]
        frame.to_csv(tmp_path / f"{number:02d}.csv", index=False)
    warnings = load_files(str(tmp_path), labels="injected").warnings
    assert f"{tmp_path.name}/00.csv and 29 more files: column 'level' is constant (1)" in " ".join(warnings)
    assert len(warnings) == 21 + 3 and "more remarks on files" in warnings[20]
    assert warnings[21].startswith("series '00' and 9 more series: ")
    assert str(tmp_path.parent) not in "".join(warnings)


def test_no_name_in_alarms_is_taken_for_a_formula(spear: Spear, finished: Run, tmp_path: Path) -> None:
    detector = Detector.load(epath.Path(finished.workdir))
    always = detector.threshold._replace(value=0.0)
    dataclasses.replace(detector, threshold=always).save(epath.Path(tmp_path / "detector"))
    names = ["=1+1", "+a", "-b", "@c", "plain", "a=b"]
    frame = pd.DataFrame({"unit": np.repeat(names, 70), "v": np.random.default_rng(0).normal(size=70 * len(names))})
    frame.to_csv(tmp_path / "t.csv", index=False)
    score = ("--mode=score", f"--detector={tmp_path / 'detector'}", f"--input={tmp_path / 't.csv'}")
    scored = spear(*score, f"--workdir={tmp_path / 'scored'}", "--config.data.series_column=unit")
    assert scored.code == 0, scored.err
    shown = pd.read_csv(tmp_path / "scored" / "alarms.csv")["series"].unique()
    assert sorted(shown) == sorted(name if name in ("plain", "a=b") else f"'{name}" for name in names)
    assert set(pd.read_parquet(tmp_path / "scored" / "scores.parquet")["series"]) == set(names)
