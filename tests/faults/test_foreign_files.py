"""Files of others, made up or damaged, are read or refused in one line, and take no memory but for what is there."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from spear_jax.backbones.weights.safetensors_files import read_safetensors
from spear_jax.data.sources.nasa.nasa_parser import parse_nasa
from spear_jax.errors import InputError
from spear_jax.storage import read_npy

LABELS = 'chan_id,spacecraft,anomaly_sequences,class,num_values\nA-1,SMAP,"[[3, 8]]",[point],100\n'
DATA = bytes(400)


def npy(shape: str, kind: str = "<f4", data: bytes = DATA) -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def tensors(header: Any, data: bytes = bytes(64)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def archive(method: int, array: bytes, labels: str = LABELS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for part in ("train", "test"):
            file.writestr(f"data/{part}/A-1.npy", array)
        file.writestr("labeled_anomalies.csv", labels)
    return buffer.getvalue()


def read_tensors(path: Path) -> object:
    return read_safetensors(path)[0]


READERS: dict[str, tuple[Callable[[Path], object], list[bytes]]] = {
    "own.npy": (lambda path: read_npy(path.read_bytes(), str(path)), [npy("(100, 1)"), npy("(10, 5)", "<f8")]),
    "own.safetensors": (read_tensors, [safetensors.numpy.save({"a": np.ones((4, 4)), "b": np.zeros(0)})]),
    "own.zip": (parse_nasa, [archive(method, npy("(100, 1)")) for method in (0, 8, 12, 14)]),
}
IMPOSSIBLE: dict[str, tuple[str, bytes]] = {
    **{
        f"npy {shape} {kind}": ("own.npy", npy(shape, kind))
        for kind in ("<f4", "|O", "<U999999999", "|V8", "<M8[ns]")
        for shape in ("(1000000000000, 25)", "(-1, -100)", "(10**9, 9)", f"({10**20}, 1)", "(1.5, 2)", "('a',)")
    },
    "npy, nested": ("own.npy", npy("(" * 3000 + "1,)")),
    "npy, cut": ("own.npy", npy("(100, 1)", data=DATA[:-1])),
    "npy, longer": ("own.npy", npy("(100, 1)", data=DATA + b"0")),
    **{
        f"tensors {shape} {offsets}": (
            "own.safetensors",
            tensors({"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}),
        )
        for shape, offsets in (
            ([-4, -4], [0, 64]),
            ([2**62, 4], [0, 64]),
            ([1.5], [0, 64]),
            ([16], ["0", 64]),
            ([16], [64, 0]),
            ([16], [0, 2**62]),
        )
    },
    "tensors that overlap": (
        "own.safetensors",
        tensors({name: {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} for name in "ab"}),
    ),
    "a list of tensors": ("own.safetensors", tensors([1])),
    "a bomb": ("own.zip", archive(8, bytes(1 << 24))),
    "labels, nested": ("own.zip", archive(8, npy("(100, 1)"), LABELS.replace("[[3, 8]]", "[" * 10**5))),
    "labels, huge": ("own.zip", archive(8, npy("(100, 1)"), LABELS.replace("8]]", f"{10**30}]]"))),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_content_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    file, content = IMPOSSIBLE[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError) as raised:
        READERS[file][0](tmp_path / file)
    assert file in str(raised.value) and "\n" not in str(raised.value)


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """The directory at the end of a zip says how large its files are."""
    content = archive(0, npy("(100, 1)"))
    entry = content.index(b"PK\x01\x02")
    (tmp_path / "own.zip").write_bytes(content[: entry + 24] + b"\xfe\xff\xff\xff" + content[entry + 28 :])
    with pytest.raises(InputError, match="its files take 4,294,96"):
        parse_nasa(tmp_path / "own.zip")


@pytest.mark.parametrize("number", [200, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, file: str, number: int) -> None:
    read, intact = READERS[file]
    path, rng, refused = tmp_path / file, random.Random(number), 0
    for _ in range(number):
        content = bytearray(rng.choice(intact))
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(min(len(content), rng.choice((200, len(content)))))
            match rng.randrange(4):
                case 0:
                    content[place] ^= 1 << rng.randrange(8)
                case 1:
                    content[place] = rng.choice(b"0123456789-,()[]{}'\":.e\n \xff")
                case 2:
                    content[place:place] = bytes(rng.choice(b"0123456789-9999") for _ in range(rng.randrange(9)))
                case _:
                    del content[place : place + rng.randrange(9)]
        path.write_bytes(content)
        try:
            read(path)
        except InputError as error:
            assert file in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > number / 4
    print(f"{file}: {number} damaged files, {refused} refused")
