"""Checks sky.yaml with SkyPilot's own parser, and its commands against its header."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import LAUNCH, Fakes

pytestmark = pytest.mark.one_python

SKY = LAUNCH / "sky.yaml"
# Parses each file as `sky launch --env WORKDIR=...` does; prints the task, or null.
PARSE = """
import json, sys
import sky, yaml

def parse(file):
    try:
        config = yaml.safe_load(open(file))
        task = sky.Task.from_yaml_config(config, env_overrides=[("WORKDIR", "gs://bucket/run")])
    except Exception as error:
        print(file, error, file=sys.stderr)
        return None
    (resources,) = task.resources
    return {"nodes": task.num_nodes, "spot": resources.use_spot, "workdir": task.envs["WORKDIR"],
        "accelerators": resources.accelerators, "cloud": str(resources.cloud)}

print(json.dumps([parse(file) for file in sys.argv[1:]]))
"""
BROKEN = {
    "num_nodes: 1": "num_nodes: one",
    "  use_spot: true": "  use_sport: true",
    "setup: |": "setups: |",
    "  accelerators: L4:1": "  accelerators: L4:many",
    "  CONFIG: configs/nasa.py": "  CONFIG: null",
}


def test_skypilot_takes_it_and_rejects_broken_ones(tmp_path: Path) -> None:
    """Parses files with SkyPilot, which needs an environment of its own: SPEAR_SKY_PYTHON names its interpreter."""
    python = os.environ.get("SPEAR_SKY_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import sky"], capture_output=True).returncode:
        pytest.skip("SkyPilot is missing: pip install skypilot in a new environment, SPEAR_SKY_PYTHON=ITS/bin/python")
    files = [SKY]
    for number, (line, broken) in enumerate(BROKEN.items()):
        text = SKY.read_text()
        assert text.count(f"\n{line}\n") == 1
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(text.replace(f"\n{line}\n", f"\n{broken}\n"))
    finished = subprocess.run(
        [python, "-c", PARSE, *map(str, files)], capture_output=True, text=True, cwd=LAUNCH.parent
    )
    assert finished.returncode == 0, finished.stderr
    parsed, *rejected = json.loads(finished.stdout.splitlines()[-1])
    assert rejected == [None] * len(BROKEN)
    assert parsed == {
        "nodes": 1,
        "spot": True,
        "workdir": "gs://bucket/run",
        "accelerators": {"L4": 1},
        "cloud": "GCP",
    }


def block(name: str) -> str:
    yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install '.[launchers]'")
    return yaml.safe_load(SKY.read_text())[name]


@pytest.mark.parametrize("name", ["setup", "run"])
def test_its_commands_pass_shellcheck(tmp_path: Path, name: str) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is missing: pip install '.[launchers]'")
    file = tmp_path / name
    file.write_text(block(name))
    # FLAGS is split into words on purpose, and finding the coordinator's address cannot fail.
    words = ["shellcheck", "--shell=bash", "--exclude=SC2086,SC2155", str(file)]
    finished = subprocess.run(words, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout


def test_each_node_joins_the_first(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    python = tmp_path / "here" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/bash\necho "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID"\nprintf "%s\\n" "$@"\nexit 2'
    )
    python.chmod(0o755)
    environment = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    task = {"CONFIG": "configs/nasa.py", "WORKDIR": "gs://bucket/a run", "FLAGS": "--config.seed=1 --mode=train"}
    outcome = fakes.run("-c", block("run"), environment=environment | task)
    assert outcome.code == 2  # the program's
    address, *words = outcome.out.splitlines()
    assert address == "10.0.0.1:8476 2 1"
    flags = ["--config=configs/nasa.py", "--workdir=gs://bucket/a run", "--config.seed=1", "--mode=train"]
    assert words == ["-m", "spear_jax.main", *flags]
