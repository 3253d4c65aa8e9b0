"""What is no ordinary file, or longer than usual, is refused in one line or read to its end."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from etils import epath

from spear_jax.data.sources.files import load_files
from spear_jax.data.tables.file import TableFile
from spear_jax.errors import InputError
from spear_jax.storage import read_json

pytestmark = pytest.mark.one_python


def read_intervals(path: Path) -> object:
    table = path.with_name("t.csv")
    pd.DataFrame({"a": np.arange(50.0)}).to_csv(table, index=False)
    return load_files(str(table), intervals=str(path), labels="intervals")


@pytest.mark.parametrize("read", [lambda path: TableFile(epath.Path(path), "t"), read_intervals, read_json])
@pytest.mark.parametrize("kind", ["pipe", "device", "link to nothing", "unreadable", "long name"])
def test_it_is_refused_in_one_line(tmp_path: Path, read: object, kind: str) -> None:
    path = tmp_path / ("x" * 300 if kind == "long name" else "odd.csv")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link to nothing":
            path.symlink_to(tmp_path / "gone.csv")
        case "unreadable":
            path.symlink_to("/proc/self/mem")
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(path)[:100] in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("columns", [2, 3000, 12_000])
def test_a_long_line_of_names_is_read_to_its_end(tmp_path: Path, columns: int) -> None:
    names = [f"temperature of tank {number}" for number in range(columns)]
    values = np.random.default_rng(0).normal(size=(4, columns)).round(3)
    pd.DataFrame(values, columns=names).to_csv(tmp_path / "t.csv", sep=";", decimal=",", index=False)
    table = TableFile(epath.Path(tmp_path / "t.csv"), "t")
    assert list(table.columns.values) == names
    np.testing.assert_array_equal(table.read().values, values)
