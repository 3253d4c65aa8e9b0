"""Checks the launchers with shellcheck; --dry-run prints their commands and runs none."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import LAUNCH, Fakes
from conftest import contents

pytestmark = pytest.mark.one_python

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
RUN = ("--config=configs/nasa.py:minilm", "--workdir=gs://bucket/a run")
TPU = {"ZONE": "us-east5-b", "TYPE": "v6e-16"}
ELSEWHERE = (
    "gcloud",
    "ssh",
    "scp",
    "srun",
    "sbatch",
    "scancel",
    "scontrol",
    "nvidia-smi",
    "python",
    "python3",
    "tar",
    "pip",
)
# By launcher: its first arguments, its environment, and a pattern for each line that the dry run prints.
DRY_RUNS = {
    "gpu.sh": ((), {}, [r"^env JAX_PLATFORMS=cuda.*EXTRA=gpu.* bash launch/local.sh python -m spear_jax.main"]),
    "tpu.sh": (
        (),
        TPU,
        [
            r"^gcloud compute tpus queued-resources create .*--spot",
            "^# every 30 s",
            "^tar ",
            r"^gcloud compute tpus tpu-vm scp .*--worker=all",
            r"^gcloud compute tpus tpu-vm ssh .*--worker=all.*uv pip install",
            r"^gcloud compute tpus tpu-vm ssh .*--worker=all.*spear_jax\.main.*--distributed=on",
            r"^gcloud compute tpus queued-resources delete .*--force",
        ],
    ),
    "slurm.sbatch": ((), {}, [r"^sbatch launch/slurm\.sbatch ", r"^srun .*python -m spear_jax\.main"]),
    "processes.sh": (("2",), {}, [rf"JAX_NUM_PROCESSES=2 JAX_PROCESS_ID={i} .*spear_jax\.main.*&$" for i in (0, 1)]),
}


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def shellcheck(file: Path) -> subprocess.CompletedProcess[str]:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is missing: pip install '.[launchers]'")
    return subprocess.run(["shellcheck", "--shell=bash", str(file)], capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_passes(script: Path) -> None:
    finished = shellcheck(script)
    assert finished.returncode == 0, finished.stdout


def test_shellcheck_rejects_a_broken_script(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sh"
    broken.write_text('#!/usr/bin/env bash\nfolder=$1\nrm -rf $folder/*\nif [ $1 = "" ]; then echo\n')
    assert shellcheck(broken).returncode != 0


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_the_commands_and_touches_nothing(fakes: Fakes, name: str) -> None:
    words, environment, patterns = DRY_RUNS[name]
    for command in set(ELSEWHERE) - ({"python"} if name == "processes.sh" else set()):  # it lookups for a free port
        fakes.add(command, "exit 1")
    before = contents(LAUNCH.parent / "launch")
    outcome = fakes.run(str(LAUNCH / name), "--dry-run", *words, *RUN, environment=environment)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [" ".join(shlex.split(line)) for line in outcome.out.splitlines()]
    assert len(lines) == len(patterns), outcome.out
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.search(pattern, line), line
    assert fakes.calls == []
    assert not any((fakes.folder / "here").iterdir()) and not any((fakes.folder / "tmp").iterdir())
    assert contents(LAUNCH.parent / "launch") == before


@pytest.mark.parametrize("name", DRY_RUNS)
def test_the_commands_of_a_dry_run_pass_the_flags_on(fakes: Fakes, name: str) -> None:
    words, environment, _ = DRY_RUNS[name]
    output = fakes.run(str(LAUNCH / name), "--dry-run", *words, *RUN, environment=environment).out
    starts = [shlex.split(line) for line in output.splitlines() if "spear_jax.main" in line]
    for command in starts:
        # tpu.sh quotes a second time, for the shell of the workers.
        flags = shlex.split(command[-1]) if name == "tpu.sh" else command
        assert [word for word in flags if word in RUN] == list(RUN)
    assert len(starts) == (2 if name == "processes.sh" else 1)


@pytest.mark.parametrize(
    ("script", "words", "environment", "message"),
    [
        ("gpu.sh", (), {}, "bash launch/gpu.sh [--dry-run]"),
        ("tpu.sh", (), {}, "bash launch/tpu.sh [--dry-run]"),
        ("tpu.sh", RUN, {"TYPE": "v6e-8"}, "ZONE is not set"),
        ("tpu.sh", RUN, TPU | {"TYPE": "h100"}, "TYPE='h100': allowed are v2-N"),
        ("tpu.sh", RUN, TPU | {"NAME": "My Slice"}, "NAME=My Slice: allowed are lower-case letters"),
        ("tpu.sh", ("--config=c", "--workdir=runs/a"), TPU, "--workdir=gs://... is missing"),
        ("gpu.sh", RUN, {}, "nvidia-smi lists no GPU"),
        ("processes.sh", RUN, {}, "must be a number of processes"),
        ("processes.sh", ("0", *RUN), {}, "N='0' must be a number of processes"),
    ],
)
def test_bad_input_ends_with_a_message_and_calls_nothing(
    fakes: Fakes, script: str, words: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    for command in set(ELSEWHERE) - {"nvidia-smi"}:
        fakes.add(command, "exit 1")
    fakes.add("nvidia-smi", "echo 'no devices were found' >&2; exit 6")
    outcome = fakes.run(str(LAUNCH / script), *words, environment=environment)
    assert outcome.code == 2
    assert message in outcome.out + outcome.err
    assert all(call.startswith("nvidia-smi") for call in fakes.calls)


def test_gpu_runs_in_an_environment_of_its_own_and_never_on_the_cpu(fakes: Fakes) -> None:
    """Fakes the installation, and checks the command that local.sh then starts."""
    fakes.add("nvidia-smi", "echo 'GPU 0: NVIDIA L4'")
    fakes.add("python3", "exit 0")
    venv = fakes.folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(
        '#!/bin/bash\ncase "$*" in *pip*) ;; *) echo "$JAX_PLATFORMS: $*"; exit 3 ;; esac'
    )
    (venv / "bin" / "python").chmod(0o755)
    (venv / ".installed-gpu-1").touch()  # of an earlier version
    outcome = fakes.run(str(LAUNCH / "gpu.sh"), "--config=c.py", "--workdir=w", environment={"VENV": str(venv)})
    assert outcome.code == 3  # the program's
    assert outcome.out.splitlines()[-1] == "cuda,cpu: -m spear_jax.main --config=c.py --workdir=w"
    assert any(venv.glob(".installed-gpu-*"))


def test_an_environment_of_the_users_own_is_left_alone(fakes: Fakes) -> None:
    fakes.add("python3", "exit 0")
    venv = fakes.folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "own").touch()
    outcome = fakes.run(str(LAUNCH / "local.sh"), "python", "--version", environment={"VENV": str(venv)})
    assert outcome.code == 2
    assert f"error: {venv} was not made by this script and is left alone" in outcome.err
    assert [path.name for path in venv.rglob("*")] == ["bin", "own"]


def lint(command: str, config: Path) -> dict[str, object]:
    """Checks a command against gcloud's own grammar, offline."""
    finished = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"],
        env=os.environ | {"CLOUDSDK_CONFIG": str(config), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
        capture_output=True,
        text=True,
    )
    return json.loads(finished.stdout)[0]


def test_gcloud_understands_every_command(fakes: Fakes) -> None:
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is missing: install the Google Cloud CLI")
    dry = fakes.run(str(LAUNCH / "tpu.sh"), "--dry-run", *RUN, environment=TPU).out
    script = (LAUNCH / "tpu.sh").read_text()
    # A dry run prints no command that only lookups up the state.
    lookups = [line.replace("\\\n", " ") for line in re.findall(r"\$\((gcloud (?:.|\n)*?)\) \|\|", script)]
    assert len(lookups) == 2
    lookups = [lookup.replace('"$zone"', "us-east5-b").replace("$name\\$", "x$").replace('"', "") for lookup in lookups]
    printed = [line for line in dry.splitlines() if line.startswith("gcloud")]
    assert len(printed) == 5
    for command in [*lookups, *printed]:
        verdict = lint(command, fakes.folder)
        assert verdict["success"], (command, verdict["error_message"])


def test_gcloud_rejects_a_broken_command(fakes: Fakes) -> None:
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is missing: install the Google Cloud CLI")
    verdict = lint("gcloud compute tpus tpu-vm ssh x --zone=us-east5-b --workers=all", fakes.folder)
    assert not verdict["success"] and "--workers" in str(verdict["error_message"])


def test_what_runs_on_the_workers_passes_shellcheck(fakes: Fakes) -> None:
    dry = fakes.run(str(LAUNCH / "tpu.sh"), "--dry-run", *RUN, environment=TPU).out
    remote = [word for line in dry.splitlines() for word in shlex.split(line) if word.startswith("--command=")]
    assert len(remote) == 2
    for number, command in enumerate(remote):
        script = fakes.folder / f"{number}.sh"
        script.write_text(command.removeprefix("--command=") + "\n")
        finished = shellcheck(script)
        assert finished.returncode == 0, finished.stdout
