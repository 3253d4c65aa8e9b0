"""Folders of others with damaged or made-up files are read or refused in one line: backbones, NAB, NASA, intervals."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tokenizers
from conftest import write_nab, write_nasa

from spear_jax.backbones import load_backbone
from spear_jax.backbones.tokenizer import read_tokenizer
from spear_jax.data.sources.files import load_files
from spear_jax.data.sources.nab.nab_parser import parse_nab
from spear_jax.data.sources.nasa.nasa_parser import parse_nasa
from spear_jax.errors import InputError

pytestmark = pytest.mark.one_python

VALUES = [None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), "", "a", "\0", [], [[1]], {}]
VALUES += [{"a": {}}, ["a"], "2014-02-14", ["9999-12-31", "0001-01-01"], [["2014-02-14 14:30:00"] * 3]]


def altered(value: Any, rng: random.Random) -> Any:
    """Returns JSON with one part replaced, removed or repeated."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [*value[:place], altered(value[place], rng), *value[place + rng.randrange(2) :]]
    name = rng.choice(list(value))
    rest = {key: item for key, item in value.items() if key != name}
    return rng.choice([rest, {**value, name: altered(value[name], rng)}, {**value, name: altered(value[name], rng)}])


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Returns the content of a file with some of it changed: JSON by its parts or bytes, other text by its bytes."""
    if content.startswith(b"{") and rng.random() < 0.7:
        return json.dumps(altered(json.loads(content), rng)).encode()
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 9))):
        place = rng.randrange(len(changed))
        match rng.randrange(5):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place] = rng.choice(b"0123456789-,()[]{}'\":.e\n \xff\0")
            case 2:
                del changed[place : place + rng.randrange(40)]
            case 3:
                changed[place:place] = changed[: rng.randrange(40)]
            case _:
                changed[place:place] = rng.choice([b"9" * 25, b'"', b"\r", b"1e999", b"\xff\xfe", b"\n\n", b"[" * 5000])
        if not changed:
            break
    return bytes(changed)


def write_backbone(folder: Path, bert: Path) -> None:
    shutil.copytree(bert, folder)
    words = (folder / "vocab.txt").read_text().split()
    model = tokenizers.models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "cls_token": "[CLS]"})
    )


def write_intervals(folder: Path) -> None:
    folder.mkdir()
    for name in ("a", "b"):
        times = pd.date_range("2024-01-01", periods=50, freq="h")
        pd.DataFrame({"time": times, "x": range(50)}).to_csv(folder / f"{name}.csv", index=False)
    rows = ["series,start,end,class", "a,2024-01-01 03:00,2024-01-01 07:00,fault", "b/x,4,9,normal", "b,10,12,leak"]
    (folder.parent / "intervals.csv").write_text("\n".join(rows) + "\n")


def read_intervals(folder: Path) -> object:
    return load_files(str(folder), intervals=str(folder.parent / "intervals.csv"), labels="intervals")


READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "config.json": (lambda folder: load_backbone(str(folder)), "config.json"),
    "tokenizer.json": (lambda folder: read_tokenizer(folder, 1000), "tokenizer.json"),
    "vocab.txt": (lambda folder: read_tokenizer(folder, 1000), "vocab.txt"),
    "NAB": (parse_nab, "labels/combined_windows.json"),
    "NAB's points": (parse_nab, "labels/combined_labels.json"),
    "NAB's rows": (parse_nab, "data/group/a.csv"),
    "NASA": (parse_nasa, "labeled_anomalies.csv"),
    "intervals": (read_intervals, "../intervals.csv"),
}


@pytest.mark.parametrize("number", [25, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(bert: Path, tmp_path: Path, kind: str, number: int) -> None:
    (read, name), folder, rng = READERS[kind], tmp_path / "folder", random.Random(number)
    if kind.startswith("NAB"):
        write_nab(folder, {"group/a.csv": (60, [(10, 20)]), "group/b.csv": (50, [])})
    elif kind == "NASA":
        write_nasa(folder, {"A-1": [(10, 20)], "B-1": [(3, 3), (100, 159)]})
    elif kind == "intervals":
        write_intervals(folder)
    else:
        write_backbone(folder, bert)
        if kind == "vocab.txt":
            (folder / "tokenizer.json").unlink()
    read(folder)
    intact, refused = (folder / name).read_bytes(), 0
    for _ in range(number):
        content = damaged(intact, rng)
        (folder / name).write_bytes(content)
        try:
            read(folder)
        except InputError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error), content
            refused += 1
    assert refused > number / 20
    print(f"{kind}: {number} damaged files, {refused} refused")
