"""Any number in a config field is refused with the field, before anything is allocated, or the run starts."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CONFIGS, SYNTHETIC, quick
from harness import Children, started

from spear_jax.config import load_valid_config
from spear_jax.config.fields import FIELDS
from spear_jax.errors import InputError

pytestmark = pytest.mark.one_python

NUMBERS = [name for name, field in FIELDS.items() if type(field.default) in (int, float)]
VALUES = [
    -(2**63),
    -1,
    0,
    1,
    2,
    3,
    100,
    1000,
    *(2**power for power in (16, 20, 24, 31, 32, 63, 64)),
    2**31 - 1,
    2**32 - 1,
]
VALUES += [2**63 - 1, 10**30, "nan", "inf", "-inf", "1e-320", "1e308", "-1e308", "-0.0", "0.5", "1e30", "abc", ""]


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with started() as running:
        yield running


def is_refused(fields: dict[str, str]) -> bool:
    try:
        load_valid_config(f"{CONFIGS / 'quickstart'}.py:debug", SYNTHETIC | fields)
    except InputError as error:
        assert any(name.rpartition(".")[2] in str(error) for name in fields), error
        return True
    return False


@pytest.mark.parametrize("share", [0.1, pytest.param(1, marks=pytest.mark.slow)])
def test_impossible_numbers_are_refused_by_name(share: float) -> None:
    rng = random.Random(0)
    tried = [(name, str(value)) for name in NUMBERS for value in VALUES if rng.random() < share]
    refused = sum(is_refused({name: value}) for name, value in tried)
    assert refused > len(tried) / 2
    print(f"{len(tried)} values, {refused} refused by name")


@pytest.mark.slow
def test_all_others_start(children: Children, tmp_path: Path) -> None:
    """Single values and combinations of them; a start ends where training begins."""
    rng, tried, refused = random.Random(0), 0, 0
    allowed = {name: [str(value) for value in VALUES if not is_refused({name: str(value)})] for name in NUMBERS}
    single = [{name: value} for name, values in allowed.items() for value in values[-2:]]
    several = [
        {name: rng.choice(allowed[name]) for name in rng.sample(NUMBERS, rng.choice((3, 6, 10))) if allowed[name]}
        for _ in range(400)
    ]
    for fields in (*single, *(fields for fields in several if not is_refused(fields))):
        folder = tmp_path / "run"
        ended = children.run(quick(folder, fields), folder, memory_bytes=4 << 30, until="devices:")
        assert ended.code in (0, 2) and "Traceback" not in ended.output, (fields, ended)
        if ended.code:
            (line,) = ended.output.splitlines()[-1:]
            assert line.startswith("error: ") and any(name.rpartition(".")[2] in line for name in fields), line
        tried, refused = tried + 1, refused + (ended.code == 2)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{tried} configs: {refused} refused, the others started")
