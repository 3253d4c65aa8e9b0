"""One device, eight devices and two processes train the same model, each on its share."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import plain_environment

from spear_jax import parallel
from spear_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0  # seconds that anything here may take before it counts as hung
DEVICES = 8
# 16 windows in batches of 10, which neither 8 devices nor the last batch's 6 windows divide.
RUN = (
    "--config=configs/quickstart.py:debug",
    "--config.data.synthetic.series=6",
    "--config.data.synthetic.length=256",
    "--config.data.window=64",
    "--config.data.stride=64",
    "--config.train.epochs=2",
    "--config.train.batch_size=10",
    "--config.train.steps_per_call=1",
    "--config.score.batch_size=10",
)
TOLERANCE = 1e-5

# The program, with a line for every file that Python writes in the run's folder, but checkpoints/.
WATCHED = """
import os, sys
folder = [a.partition("=")[2] for a in sys.argv if a.startswith("--workdir=")][0]
def watch(event, args):
    writes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
    writes |= event == "open" and bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    path = args[0] if writes and args else ""
    if str(path).startswith(folder) and not str(path).startswith(folder + "/checkpoints"):
        os.write(2, f"WROTE {event} {path}\\n".encode())
sys.addaudithook(watch)
from spear_jax.main import main
sys.exit(main(sys.argv[1:]))
"""

# Compiles a training call of 3 steps of 10 windows and says how it is divided among 8 devices.
SHARDING = """
import json, re, sys
import jax, numpy as np, optax
from spear_jax import config, parallel, training
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.model import assemble_model

settings = config.load_config("configs/quickstart.py:debug")
settings.prompt.length = 20
settings.backbone.shards = int(sys.argv[1])
model = assemble_model(settings, load_backbone("random:tiny", "float32"))
everywhere = parallel.replicated(model.mesh)
optimizer = training.make_optimizer(settings)
trainable, frozen = model.trainable, model.frozen
state = jax.jit(optimizer.init, out_shardings=everywhere)(trainable)
batches = parallel.shard_batch({
    "inputs": np.zeros((3, 10, 64), np.int64),
    "mask": np.ones((3, 10, 64), bool),
    "targets": np.zeros((3, 10, 64)),
}, model.mesh, axis=1)
call = training.make_train_call(model.module, optimizer, 1.0)
with parallel.gathering(model.mesh):
    compiled = call.lower(trainable, state, frozen, batches, 3).compile()

def local(leaves, shardings):
    pairs = zip(leaves, shardings, strict=True)
    return [[list(array.shape), list(part.shard_shape(array.shape))] for array, part in pairs]

inputs, _ = compiled.input_shardings
made = compiled.output_shardings
text = compiled.as_text()
print(json.dumps({
    "devices": jax.device_count(),
    "batches": {name: local([batches[name]], [inputs[3][name]])[0] for name in batches},
    "parameters": local(jax.tree.leaves((trainable, state)), jax.tree.leaves(inputs[:2])),
    "frozen": local(jax.tree.leaves(frozen), jax.tree.leaves(inputs[2])),
    "results": local(jax.tree.leaves((trainable, state)), jax.tree.leaves(made[:2])),
    "partitions": int(re.search(r"num_partitions=(\\d+)", text).group(1)),
    "hidden": sorted(set(re.findall(r"f32\\[(\\d+),84,32\\]", text))),
    "gathers": re.findall(r" = \\w+(\\S+)\\{\\S* (?:all-gather|all-to-all|collective-permute)(?:-start)?\\(", text),
    "reduces": len(re.findall(r"all-reduce", text)),
}))
"""


def start(
    output: Path, command: list[str], *, devices: int = 1, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts Python on CPU devices, in an environment that names no cluster."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    with output.open("a") as file:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**plain_environment(), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **(env or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )


def finish(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Waits for the end of all; returns their exit codes."""
    end = time.monotonic() + PATIENCE
    try:
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train(folder: Path, *arguments: str, devices: int = 1) -> str:
    """Runs the program in one process; returns its output."""
    output = folder.with_name("output.log")
    command = ["-m", "spear_jax.main", *RUN, *arguments, f"--workdir={folder}"]
    codes = finish([start(output, command, devices=devices)])
    assert codes == [0], output.read_text()
    return output.read_text()


def start_two(folder: Path, *arguments: str) -> tuple[list[subprocess.Popen[str]], list[Path]]:
    """Starts the program in two processes of two devices each; returns them and their outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = [folder.with_name(f"output-{len(arguments)}-{i}.log") for i in range(2)]
    processes = [
        start(
            output,
            ["-c", WATCHED, *RUN, *arguments, "--distributed=on", f"--workdir={folder}"],
            devices=2,
            env={
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(i),
            },
        )
        for i, output in enumerate(outputs)
    ]
    return processes, outputs


def train_on_two(folder: Path, *arguments: str) -> list[str]:
    processes, outputs = start_two(folder, *arguments)
    codes = finish(processes)
    output_text = [output.read_text() for output in outputs]
    assert codes == [0, 0], "\n".join(text[-4000:] for text in output_text)
    return output_text


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def assert_close(actual: Any, expected: Any, where: str) -> None:
    """The same structure, and every number within the tolerance."""
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys(), where
        for key in actual:
            assert_close(actual[key], expected[key], f"{where}.{key}")
    elif isinstance(actual, list):
        assert len(actual) == len(expected), where
        for i, pair in enumerate(zip(actual, expected, strict=True)):
            assert_close(*pair, f"{where}[{i}]")
    elif isinstance(actual, float) and isinstance(expected, float):
        assert abs(actual - expected) <= TOLERANCE, f"{where}: {actual} and {expected}"
    else:
        assert actual == expected, where


def assert_same_run(folder: Path, reference: Path) -> None:
    """Losses of every step, evaluations and results agree."""
    assert len(lines(folder)) == len(lines(reference))
    for line, expected in zip(lines(folder), lines(reference), strict=True):
        assert_close(line, expected, f"{expected['kind']} {expected['step']}")
    actual, expected = results(folder), results(reference)
    for name in ("train", "validation", "test", "controls", "threshold", "splits", "parameters"):
        assert_close(actual[name], expected[name], name)
    assert_close(actual["training"], expected["training"], "training")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one device."""
    folder = tmp_path_factory.mktemp("single") / "run"
    output_text = train(folder, "--distributed=auto")
    assert "devices: 1 x" in output_text
    assert [line["kind"] for line in lines(folder)] == 2 * ["train", "train", "evaluation"]
    return folder


@pytest.mark.landing
@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4])
def test_eight_devices_give_the_numbers_of_one(single: Path, tmp_path: Path, shards: int) -> None:
    """However the frozen weights are divided."""
    folder = tmp_path / "run"
    assert f"devices: {DEVICES} x" in train(folder, f"--config.backbone.shards={shards}", devices=DEVICES)
    assert results(folder)["versions"]["devices"] == str(DEVICES)
    assert_same_run(folder, single)
    # The detector is for any machine.
    assert json.loads((folder / "detector" / "detector.json").read_text())["config"]["backbone"]["shards"] == 1


@pytest.mark.slow
def test_two_processes_resume_give_the_numbers_of_one_and_write_once(single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_on_two(folder, "--config.train.epochs=1")
    assert [line["step"] for line in lines(folder)] == [1, 2, 2]
    (folder / "results.json").unlink()

    main, other = train_on_two(folder)
    assert "resuming at step 2" in main
    assert "devices: 4 x" in main
    assert f"WROTE open {folder}/metrics.jsonl" in main  # so writing is seen at all
    assert "WROTE" not in other
    assert "epoch" not in other  # nor does it speak
    assert_same_run(folder, single)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_sigterm_to_either_process_saves_and_ends_both(tmp_path: Path, which: int) -> None:
    folder = tmp_path / "run"
    arguments = ("--config.train.epochs=100", "--config.train.early_stopping.patience=100")
    processes, outputs = start_two(folder, *arguments)
    wait_for(processes, outputs, lambda: any((folder / "checkpoints").glob("[0-9]")))
    processes[which].send_signal(signal.SIGTERM)
    codes = finish(processes)
    output_text = "\n".join(output.read_text()[-4000:] for output in outputs)
    assert codes == [1, 1], output_text
    step = max(int(path.name) for path in (folder / "checkpoints").glob("*"))
    assert f"by a signal at step {step}" in output_text
    assert lines(folder)[-1]["step"] == step


@pytest.mark.slow
def test_two_processes_killed_during_a_save_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ("--config.train.epochs=20", "--config.train.early_stopping.patience=20")
    saves = folder / "checkpoints"
    for _ in range(2):
        before = max((int(path.name) for path in saves.glob("*[0-9]")), default=0)
        processes, outputs = start_two(folder, *arguments)
        wait_for(
            processes,
            outputs,
            lambda before=before: (
                any(int(path.name) > before for path in saves.glob("*[0-9]"))
                and any(saves.glob("*.orbax-checkpoint-tmp*"))
            ),
        )
        for process in processes:
            process.kill()
        assert finish(processes) == [-signal.SIGKILL, -signal.SIGKILL]
        assert not (folder / "results.json").exists()
    main, _ = train_on_two(folder, *arguments)
    assert "resuming at step" in main
    assert [line["step"] for line in lines(folder) if line["kind"] == "train"] == list(range(1, 41))
    assert [line["step"] for line in lines(folder) if line["kind"] == "evaluation"] == list(range(2, 41, 2))


def wait_for(processes: list[subprocess.Popen[str]], outputs: list[Path], seen: Callable[[], bool]) -> None:
    """Looks every 10 ms, until something is seen; all processes must still be running then."""
    end = time.monotonic() + PATIENCE
    while not seen():
        if any(process.poll() is not None for process in processes) or time.monotonic() > end:
            for process in processes:
                process.kill()
            pytest.fail("\n".join(output.read_text()[-4000:] for output in outputs))
        time.sleep(0.01)


@pytest.mark.parametrize("shards", [1, 4])
def test_the_compiled_training_call_divides_batches_and_frozen_matrices_alone(tmp_path: Path, shards: int) -> None:
    output = tmp_path / "output.log"
    codes = finish([start(output, ["-c", SHARDING, str(shards)], devices=DEVICES)])
    assert codes == [0], output.read_text()
    report = json.loads(output.read_text().splitlines()[-1])
    assert report["devices"] == report["partitions"] == DEVICES
    # 10 windows are filled up to 16: each device gets 2 of them, and all steps of a call.
    assert report["batches"] == {name: [[3, 16, 64], [3, 2, 64]] for name in ("inputs", "mask", "targets")}
    for full, share in report["parameters"] + report["results"]:
        assert share == full
    # Hidden states too: 20 prompt vectors and 64 steps of 2 windows, never of 16.
    assert report["hidden"] == ["2"]
    assert report["reduces"] > 0  # of gradient and loss
    # The six matrices of the one layer before the last, each gathered there alone, forwards and backwards.
    divided = [(full, share) for full, share in report["frozen"] if share != full]
    assert all(share == [*full[:-1], full[-1] // shards] for full, share in divided)
    assert len(divided) == (6 if shards > 1 else 0)
    assert sorted(report["gathers"]) == sorted(2 * [str(full).replace(" ", "") for full, _ in divided])


def test_shards_must_divide_the_devices(tmp_path: Path) -> None:
    output, folder = tmp_path / "output.log", tmp_path / "run"
    command = ["-m", "spear_jax.main", *RUN, "--config.backbone.shards=3", f"--workdir={folder}"]
    assert finish([start(output, command, devices=DEVICES)]) == [2]
    assert output.read_text() == "error: config.backbone.shards=3 must divide the number of devices, 8\n"
    assert not folder.exists()


def test_a_batch_is_filled_up_with_masked_windows() -> None:
    filled = parallel._pad(np.ones((3, 10, 4), bool), 8, axis=1)
    assert filled.shape == (3, 16, 4)
    assert filled[:, :10].all()
    assert not filled[:, 10:].any()


@pytest.mark.slow
def test_distributed_on_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    output, folder = tmp_path / "output.log", tmp_path / "run"
    command = ["-m", "spear_jax.main", *RUN, "--distributed=on", f"--workdir={folder}"]
    codes = finish([start(output, command)])
    output_text = output.read_text()
    assert codes == [2], output_text
    assert output_text.count("\n") == 1, output_text
    assert output_text.startswith("error: --distributed=on needs a cluster, and none was found")
    assert "JAX_COORDINATOR_ADDRESS" in output_text
    assert not folder.exists()


CLUSTER = (
    "JAX_COORDINATOR_ADDRESS",
    "SLURM_NTASKS",
    "OMPI_COMM_WORLD_SIZE",
    "TPU_WORKER_HOSTNAMES",
    "JOB_COMPLETION_INDEX",
)


@pytest.fixture
def plain_host(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)

    def joined(**_: Any) -> None:
        raise AssertionError("jax.distributed.initialize was called")

    monkeypatch.setattr(jax.distributed, "initialize", joined)
    return monkeypatch


@pytest.mark.parametrize("distributed", ["auto", "off"])
def test_a_plain_host_is_one_process(plain_host: pytest.MonkeyPatch, distributed: str) -> None:
    parallel.join_processes(distributed)
    assert jax.process_count() == 1


def test_off_ignores_a_cluster(plain_host: pytest.MonkeyPatch) -> None:
    plain_host.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    parallel.join_processes("off")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_NTASKS", "2"),
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("TPU_WORKER_HOSTNAMES", "host-0,host-1"),
    ],
)
def test_auto_joins_a_cluster_that_the_environment_names(plain_host: pytest.MonkeyPatch, name: str, value: str) -> None:
    plain_host.setenv(name, value)
    with pytest.raises(AssertionError, match="initialize was called"):
        parallel.join_processes("auto")


def test_a_named_coordinator_is_all_that_is_asked(plain_host: pytest.MonkeyPatch) -> None:
    """In a pod JAX would else ask Kubernetes' API, for which pods have neither the package nor the role."""
    environment = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    for name, value in (environment | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}).items():
        plain_host.setenv(name, value)
    arguments: dict[str, Any] = {}
    plain_host.setattr(jax.distributed, "initialize", arguments.update)
    parallel.join_processes("auto")
    assert arguments == {
        "coordinator_address": "127.0.0.1:1",
        "num_processes": 2,
        "process_id": 1,
        "cluster_detection_method": "deactivate",
    }


def test_half_a_coordinator_is_refused_by_name(plain_host: pytest.MonkeyPatch) -> None:
    plain_host.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    plain_host.setenv("JAX_NUM_PROCESSES", "2")
    plain_host.delenv("JAX_PROCESS_ID", raising=False)
    with pytest.raises(InputError, match="JAX_PROCESS_ID must be a whole number"):
        parallel.join_processes("auto")
