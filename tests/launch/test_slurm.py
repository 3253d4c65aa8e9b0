"""Runs slurm.sbatch as its batch step does: checks the arguments of srun and when the job is requeued."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import LAUNCH, Fakes
from conftest import REPOSITORY, quick, results

pytestmark = pytest.mark.one_python

BATCH = LAUNCH / "slurm.sbatch"
RUN = ("--config=c.py", "--workdir=/shared/a run")


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    fakes = Fakes(tmp_path)
    fakes.add("scontrol")
    return fakes


@pytest.mark.parametrize("code", [0, 1, 2, 134])
def test_the_exit_code_is_the_runs_and_nothing_is_requeued(fakes: Fakes, code: int) -> None:
    fakes.add("srun", f'printf "%s\\n" "${{@: -1}}" >"$FAKES/last"; exit {code}')
    outcome = fakes.run(str(BATCH), *RUN, environment={"SLURM_JOB_ID": "7"})
    assert outcome.code == code
    assert fakes.calls == [f"srun --kill-on-bad-exit=1 python -m spear_jax.main {' '.join(RUN)}"]
    assert (fakes.folder / "last").read_text() == f"{RUN[-1]}\n"


# As in Slurm: srun kills its tasks on SIGTERM; scancel reaches the tasks (here with SIGUSR2), not the batch step.
TASKS = """
trap 'exit 137' TERM
trap 'sleep 0.3; exit "$CODE"' USR2
echo $$ >"$FAKES/tasks.part" && mv "$FAKES/tasks.part" "$FAKES/tasks"
while true; do sleep 0.05; done
"""


@pytest.mark.parametrize(("code", "requeued"), [(1, True), (0, False), (2, False)])
def test_out_of_time_saves_and_is_requeued_unless_done_or_bad(fakes: Fakes, code: int, requeued: bool) -> None:
    fakes.add("srun", TASKS)
    fakes.add("scancel", 'kill -USR2 "$(cat "$FAKES/tasks")"')
    (fakes.folder / "here").mkdir()
    environment = fakes.environment | {"SLURM_JOB_ID": "7", "CODE": str(code)}
    batch = subprocess.Popen(["bash", str(BATCH), *RUN], env=environment, cwd=fakes.folder / "here")
    end = time.monotonic() + 30
    while not (fakes.folder / "tasks").exists() and time.monotonic() < end:
        time.sleep(0.02)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(30) == code
    assert fakes.calls[1:] == ["scancel --signal=TERM 7", *(["scontrol requeue 7"] if requeued else [])]


def test_the_headers_ask_for_one_process_per_gpu() -> None:
    """JAX takes the GPU numbered SLURM_LOCALID, so each process must see all GPUs of its node."""
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in BATCH.read_text().splitlines()
        if line.startswith("#SBATCH")
    )
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert "gpus-per-task" not in options
    assert options["signal"].startswith("B:USR1@")
    assert "requeue" in options


# Starts two tasks on this machine, with the variables that Slurm sets.
SRUN = """
shift
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_STEP_NODELIST=127.0.0.1
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & SLURM_PROCID=1 SLURM_LOCALID=1 "$@" &
wait -n && wait -n
"""


@pytest.mark.slow
def test_two_tasks_become_one_run(fakes: Fakes) -> None:
    """Relies on JAX's own detection of Slurm, in the environment of two tasks."""
    fakes.add("srun", SRUN)
    run = fakes.folder / "run"
    settings = {"PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "SLURM_JOB_ID": "7"}
    outcome = fakes.run(str(BATCH), *quick(run), environment=settings)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("devices: 2 x cpu") == 1
    assert results(run)["versions"]["devices"] == "2"
