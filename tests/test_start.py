"""A second start finds the programs that the first one compiled."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import plain_environment

pytestmark = pytest.mark.one_python

# A program that has compiled something of its own before. It prints how often a compiled program was found, and how
# often not.
LOAD = """
import collections, json, jax, numpy as np
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rpartition("/")[2]]))
jax.jit(lambda x: x + 1)(1.0)
from spear_jax import SpearDetector, load_backbone
load_backbone("random:tiny")
scores = np.zeros(0)
"""
FIT = """
values = np.sin(np.arange(600.0))
detector = SpearDetector("random:tiny", window=64, prompt_length=2, epochs=1, verbose=False).fit(values)
scores = detector.decision_function(values)
"""
PRINT = """
result = {"found": events["cache_hits"], "compiled": events["cache_misses"], "scores": scores.tolist()}
print(json.dumps(result | {"folder": jax.config.jax_compilation_cache_dir}))
"""


def start(home: Path, script: str = LOAD, **variables: str) -> dict[str, Any]:
    """Runs a script with a home folder and returns what it prints."""
    environment = {name: value for name, value in plain_environment().items() if not name.startswith("JAX_")}
    environment |= {"HOME": str(home), "PYTHONWARNINGS": "ignore", **variables}
    command = [sys.executable, "-c", script + PRINT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_second_start_compiles_nothing_that_takes_long_unless_it_is_damaged(tmp_path: Path) -> None:
    first, second = start(tmp_path, LOAD + FIT), start(tmp_path, LOAD + FIT)
    assert Path(first["folder"]).parent == tmp_path / ".cache" / "spear_jax" / "programs"
    kept = list(Path(first["folder"]).glob("*-cache"))
    assert len(kept) > 2 and first["compiled"] >= len(kept)
    assert second["found"] >= len(kept)
    for number, entry in enumerate(kept):
        content = bytearray(entry.read_bytes())
        content[len(content) // 2] ^= 4
        entry.write_bytes(content[: len(content) // (1 + number % 2)])
    damaged = start(tmp_path, LOAD + FIT)
    assert damaged["found"] == 0
    assert second["scores"] == first["scores"] == damaged["scores"]


@pytest.mark.parametrize(
    ("variables", "kept"),
    [({"JAX_COMPILATION_CACHE_DIR": "{other}"}, True), ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, False)],
    ids=["another folder", "nothing kept"],
)
def test_users_name_the_folder_or_keep_nothing(tmp_path: Path, variables: dict[str, str], kept: bool) -> None:
    other = tmp_path / "other"
    threshold = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    start(tmp_path, **threshold, **{name: value.format(other=other) for name, value in variables.items()})
    assert not (tmp_path / ".cache" / "spear_jax").exists()
    assert any(other.glob("*-cache")) == kept


def test_a_home_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()
    assert start(home)["folder"] is None
