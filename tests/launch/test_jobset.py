"""Checks jobset.yaml against published schemas: Kubernetes' for its Job, Kubeflow's models for the JobSet around it."""

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from commands import LAUNCH

from spear_jax import main

pytestmark = pytest.mark.one_python

yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install '.[launchers]'")

Document: TypeAlias = dict[str, Any]


@pytest.fixture
def jobset() -> Document:
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def job_of(jobset: Document) -> Document:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def container_of(jobset: Document) -> Document:
    (container,) = job_of(jobset)["template"]["spec"]["containers"]
    return container


def check_job(jobset: Document) -> None:
    """Raises if the Job is invalid."""
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is missing: pip install '.[launchers]'"
    )
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "workers"}, "spec": job_of(jobset)}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def check_around(jobset: Document) -> None:
    """Raises if the JobSet around the Job is invalid; the models drop unknown fields."""
    models = pytest.importorskip(
        "kubeflow_trainer_api.models", reason="kubeflow-trainer-api is missing: pip install '.[launchers]'"
    )
    around = copy.deepcopy(jobset)
    around["spec"]["replicatedJobs"][0]["template"]["spec"]["template"] = {}  # `check_job` covers it
    assert models.JobsetV1alpha2JobSet.from_dict(around).to_dict() == around


def test_the_job_is_valid(jobset: Document) -> None:
    check_job(jobset)


def test_what_is_around_it_is_valid(jobset: Document) -> None:
    check_around(jobset)


@pytest.mark.parametrize(
    "harm",
    [
        lambda jobset: container_of(jobset).update(imagee="x"),
        lambda jobset: container_of(jobset).pop("name"),
        lambda jobset: job_of(jobset).update(parallelism="four"),
        lambda jobset: job_of(jobset)["podFailurePolicy"]["rules"][0].pop("action"),
        lambda jobset: container_of(jobset)["env"].append({"name": "N", "value": 4}),
    ],
)
def test_a_broken_job_is_rejected(jobset: Document, harm: Callable[[Document], Any]) -> None:
    harm(jobset)
    with pytest.raises(Exception, match="Failed validating"):
        check_job(jobset)


@pytest.mark.parametrize(
    "harm",
    [
        lambda jobset: jobset["spec"].update(failurePolice={}),
        lambda jobset: jobset["spec"]["failurePolicy"].update(maxRestarts="20"),
        lambda jobset: jobset["spec"]["failurePolicy"]["rules"][0].pop("action"),
        lambda jobset: jobset["spec"]["failurePolicy"]["rules"][0].update(onJobFailure=["PodFailurePolicy"]),
        lambda jobset: jobset["spec"]["replicatedJobs"][0].pop("name"),
        lambda jobset: jobset["spec"]["network"].update(enableDNSHostnames="yes"),
    ],
)
def test_a_broken_jobset_is_rejected(jobset: Document, harm: Callable[[Document], Any]) -> None:
    harm(jobset)
    with pytest.raises((AssertionError, ValueError)):
        check_around(jobset)


def test_the_processes_find_the_first_pod_and_their_number(jobset: Document) -> None:
    """JobSet names pods JOBSET-REPLICATEDJOB-JOB-POD, below a service named after the JobSet."""
    job, container = job_of(jobset), container_of(jobset)
    environment = {variable["name"]: variable for variable in container["env"]}
    name, (replicated,) = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    host, port = environment["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert {"containerPort": int(port)} in container["ports"]
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True
    assert replicated["replicas"] == 1
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"] == int(environment["JAX_NUM_PROCESSES"]["value"])
    index = environment["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_bad_input_ends_it_and_all_else_starts_again(jobset: Document) -> None:
    job, policy = job_of(jobset), jobset["spec"]["failurePolicy"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": container_of(jobset)["name"], "operator": "In", "values": [2]}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a podFailurePolicy needs it
    assert job["backoffLimit"] == 0  # one pod cannot rejoin the others: JobSet restarts them all
    (ends,) = policy["rules"]
    assert (ends["action"], ends["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert policy["maxRestarts"] > 0


def test_the_container_runs_the_documented_command(jobset: Document) -> None:
    docker = (LAUNCH / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["python", "-m", "spear_jax.main"]' in docker
    assert "command" not in container_of(jobset)
    flags = main.parse_flags(container_of(jobset)["args"])
    assert flags.mode == "train"
    assert flags.workdir.startswith("gs://")
