"""Runs tpu.sh against a fake gcloud that preempts: it requests the slice again, resumes, and knows when to stop."""

from pathlib import Path

import pytest
from commands import LAUNCH, Fakes
from conftest import Outcome

pytestmark = pytest.mark.one_python

# $FAKES/slice holds the states that successive lookups of the slice return, one per line; the last one stays. Each run
# takes a line of $FAKES/runs: its exit code and, optionally, the state in which it leaves the slice.
GCLOUD = r"""
next() { head -n 1 "$1"; if [ "$(wc -l <"$1")" -gt "$2" ]; then sed -i 1d "$1"; fi; }
case "$*" in
  *"queued-resources list"*) if [ -e "$FAKES/slice" ]; then cat "$FAKES/request"; fi ;;
  *"tpu-vm list"*) if [ -e "$FAKES/slice" ]; then next "$FAKES/slice" 1; fi ;;
  *"queued-resources create"*) printf 'CREATING\nREADY\n' >"$FAKES/slice"; echo ACTIVE >"$FAKES/request" ;;
  *"queued-resources delete"*) rm "$FAKES/slice" ;;
  *"tpu-vm scp"*) test -s "$5" ;;
  *"tpu-vm ssh"*spear_jax.main*)
    read -r code state <<<"$(next "$FAKES/runs" 0)"
    if [ -n "$state" ]; then echo "$state" >"$FAKES/slice"; echo "${REQUEST:-ACTIVE}" >"$FAKES/request"; fi
    exit "$code" ;;
esac
"""


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    fakes = Fakes(tmp_path)
    fakes.add("gcloud", GCLOUD)
    return fakes


def launch(fakes: Fakes, runs: str, **environment: str) -> Outcome:
    """Runs tpu.sh; `runs` holds the exit codes of the runs and the states in which they leave the slice."""
    (fakes.folder / "runs").write_text(runs)
    settings = {"ZONE": "us-east5-b", "TYPE": "v6e-16", "POLL": "0"} | environment
    return fakes.run(str(LAUNCH / "tpu.sh"), "--config=c.py", "--workdir=gs://bucket/run", environment=settings)


def course(fakes: Fakes) -> list[str]:
    """Returns the steps taken, in order, without lookups of the state."""
    names = {
        "queued-resources create": "create",
        "queued-resources delete": "delete",
        "tpu-vm scp": "copy",
        "uv pip install": "install",
        "spear_jax.main": "train",
    }
    steps = [next((short for part, short in names.items() if part in call), "") for call in fakes.calls]
    return [step for step in steps if step]


ONCE = ["copy", "install", "train"]


def test_a_run_that_is_done_costs_nothing_more(fakes: Fakes) -> None:
    outcome = launch(fakes, "0\n")
    assert outcome.code == 0, outcome.err
    assert course(fakes) == ["create", *ONCE, "delete"]
    assert not (fakes.folder / "slice").exists()


@pytest.mark.parametrize("request_is", ["ACTIVE", "SUSPENDED"])
def test_a_preempted_slice_is_requested_again_and_the_same_command_goes_on(fakes: Fakes, request_is: str) -> None:
    outcome = launch(fakes, "255 PREEMPTED\n0\n", REQUEST=request_is)
    assert outcome.code == 0, outcome.err
    assert course(fakes) == ["create", *ONCE, "delete", "create", *ONCE, "delete"]
    first, second = [call for call in fakes.calls if "spear_jax.main" in call]
    assert first == second
    assert "--distributed=on --config=c.py --workdir=gs://bucket/run" in first
    assert f"spear-jax: {'PREEMPTED' if request_is == 'ACTIVE' else request_is}" in outcome.err


def test_preemptions_are_not_failures_however_many(fakes: Fakes) -> None:
    outcome = launch(fakes, 5 * "1 PREEMPTED\n" + "0\n")
    assert outcome.code == 0, outcome.err
    assert course(fakes).count("create") == 6


def test_bad_input_is_never_tried_again(fakes: Fakes) -> None:
    outcome = launch(fakes, "2\n0\n")
    assert outcome.code == 2
    assert course(fakes) == ["create", *ONCE, "delete"]


def test_bad_input_after_a_preemption_ends_it_too(fakes: Fakes) -> None:
    outcome = launch(fakes, "255 PREEMPTED\n2\n0\n")
    assert outcome.code == 2
    assert course(fakes).count("train") == 2
    assert course(fakes)[-1] == "delete"


def test_a_run_that_fails_on_a_good_slice_is_given_up_at_the_third_time(fakes: Fakes) -> None:
    outcome = launch(fakes, 9 * "1\n")
    assert outcome.code == 1
    assert course(fakes) == ["create", *ONCE, *ONCE, *ONCE, "delete"]
    assert "exit code 1 on a slice that is READY (failure 3 of 3)" in outcome.err


def test_a_slice_that_is_there_is_used(fakes: Fakes) -> None:
    (fakes.folder / "slice").write_text("READY\n")
    (fakes.folder / "request").write_text("ACTIVE\n")
    assert launch(fakes, "0\n").code == 0
    assert course(fakes) == [*ONCE, "delete"]


def test_a_request_that_is_found_waiting_is_not_left_behind(fakes: Fakes) -> None:
    (fakes.folder / "slice").write_text("PROVISIONING\n")
    (fakes.folder / "request").write_text("ACTIVE\n")
    only_one_look = 'case "$*" in *"tpu-vm list"*) mkdir "$FAKES/looked" 2>/dev/null || exit 1 ;; esac'
    fakes.add("gcloud", f"{only_one_look}\n{GCLOUD}")
    assert launch(fakes, "").code == 1
    assert course(fakes) == ["delete"]


def test_keep_leaves_the_slice(fakes: Fakes) -> None:
    assert launch(fakes, "0\n", KEEP="1").code == 0
    assert course(fakes) == ["create", *ONCE]
    assert (fakes.folder / "slice").exists()


def test_on_demand_is_not_spot(fakes: Fakes) -> None:
    launch(fakes, "0\n", SPOT="")
    launch(fakes, "0\n")
    on_demand, spot = [call for call in fakes.calls if "create" in call]
    assert "--spot" not in on_demand
    assert "--spot" in spot


def test_without_an_answer_from_gcloud_nothing_is_deleted(fakes: Fakes) -> None:
    fakes.add("gcloud", "echo 'ERROR: not signed in' >&2; exit 1")
    outcome = launch(fakes, "")
    assert outcome.code == 1
    assert course(fakes) == []
    assert len(fakes.calls) == 3
    assert "ERROR: not signed in" in outcome.err


def test_a_look_that_fails_once_changes_nothing(fakes: Fakes) -> None:
    fakes.add("gcloud", f'case "$*" in *list*) mkdir "$FAKES/failed" 2>/dev/null && exit 1 ;; esac\n{GCLOUD}')
    assert launch(fakes, "0\n").code == 0
    assert course(fakes) == ["create", *ONCE, "delete"]


def test_what_could_not_be_installed_is_not_run(fakes: Fakes) -> None:
    fakes.add("gcloud", f'case "$*" in *scp*) exit 1 ;; esac\n{GCLOUD}')
    assert launch(fakes, "0\n").code == 1
    assert course(fakes) == ["create", "copy", "copy", "copy", "delete"]


def test_a_request_that_is_refused_is_given_up(fakes: Fakes) -> None:
    fakes.add("gcloud", 'case "$*" in *create*) echo "ERROR: quota" >&2; exit 1 ;; esac')
    outcome = launch(fakes, "")
    assert outcome.code == 1
    assert course(fakes)[:3] == 3 * ["create"]
