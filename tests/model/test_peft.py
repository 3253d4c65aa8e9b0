"""Prompts to and from PEFT's prompt tuning: the same hidden states in torch, in both directions."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma
import hub_server
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from conftest import Outcome, Run, Spear, check_refusal, evaluate, quick, results, truncate
from etils import epath

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.detector.artifact import PROMPT_REPLACED, Detector
from spear_jax.errors import InputError
from spear_jax.model.peft import read_adapter
from spear_jax.model.spear import merge

pytestmark = pytest.mark.one_python

TOLERANCE = 1e-4
M, T = 4, 32


def make_bert(folder: Path) -> Path:
    """A small BERT by transformers, with a vocabulary of numbers."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=305,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    transformers.BertModel(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(300))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def make_gemma(folder: Path) -> Path:
    """A small Gemma by transformers, with tests/gemma.py's tokenizer; its word embeddings are scaled."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    gemma.write(folder)
    config = transformers.GemmaConfig(**gemma.CONFIG | {"initializer_range": 0.2})
    transformers.GemmaForCausalLM(config).save_pretrained(folder)
    return folder


MODELS: dict[str, Callable[[Path], Path]] = {"bert": make_bert, "gemma": make_gemma}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A backbone's folder, and a run of a detector on it."""

    backbone: Path
    run: Path


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Not to be written to."""
    folder = tmp_path_factory.mktemp(request.param)
    backbone = MODELS[request.param](folder / "model")
    fields = {"backbone.name": backbone, "embedding.kind": "numbers"}
    outcome = spear(*quick(folder / "run", fields))
    assert outcome.code == 0, outcome.err
    return Trained(backbone, folder / "run")


@pytest.fixture
def exported(spear: Spear, trained: Trained, tmp_path: Path) -> Path:
    outcome = spear("--mode=export", f"--detector={trained.run}", f"--workdir={tmp_path / 'exported'}")
    assert (outcome.code, outcome.err) == (0, "")
    return tmp_path / "exported"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "t.csv"
    pd.DataFrame({"a": np.sin(np.arange(100) / 5)}).to_csv(file, index=False)
    return file


def score(spear: Spear, detector: Path, table: Path, workdir: Path) -> Outcome:
    return spear("--mode=score", f"--detector={detector}", f"--input={table}", f"--workdir={workdir}")


def windows() -> tuple[np.ndarray, np.ndarray]:
    """Bins of three windows, the last of them padded."""
    bins = np.random.default_rng(1).integers(0, 100, (3, T)).astype(np.int32)
    mask = np.ones((3, T), bool)
    mask[2, 20:] = False
    return bins, mask


def hidden_here(folder: Path, backbone: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs of a detector's head, and the bins' vectors."""
    model = Detector.load(epath.Path(folder)).assemble(load_backbone(str(backbone)))
    bins, mask = windows()
    variables = merge(model.trainable, model.frozen)
    features = model.module.apply(variables, jnp.asarray(bins), jnp.asarray(mask), method="features")
    return np.asarray(features), np.asarray(model.frozen["embedding"]["table"])[bins]


def hidden_there(model: Any, steps: np.ndarray) -> np.ndarray:
    """Returns the hidden states of torch and PEFT for the same vectors, after the prompt."""
    import torch

    mask = torch.tensor(windows()[1]).long()
    with torch.no_grad():
        return model(inputs_embeds=torch.tensor(steps), attention_mask=mask).last_hidden_state[:, M:].numpy()


def check_same_hidden_states(detector: Path, backbone: Path) -> None:
    """Of a folder that both read: the detector here, the adapter in torch."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    here, steps = hidden_here(detector, backbone)
    base = transformers.AutoModel.from_pretrained(backbone).eval()
    there = hidden_there(peft.PeftModel.from_pretrained(base, detector), steps)
    mask = windows()[1]
    assert np.abs(there).max() > 0.5
    apart = np.abs(here - there)[mask].max()
    print(f"hidden states at most {apart:.1e} apart, {np.abs(there).max():.1f} the largest")
    assert apart <= TOLERANCE


def train_in_torch(backbone: Path, folder: Path, start: Path | None = None, task: str = "FEATURE_EXTRACTION") -> None:
    """A few steps of prompt tuning with PEFT; what it saves goes to `folder`."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    import transformers

    torch.manual_seed(1)
    auto = {"SEQ_CLS": transformers.AutoModelForSequenceClassification}.get(task, transformers.AutoModel)
    base = auto.from_pretrained(backbone).eval()
    model = peft.get_peft_model(base, peft.PromptTuningConfig(task_type=task, num_virtual_tokens=M))
    if start is not None:
        exported = safetensors.numpy.load_file(start / "adapter_model.safetensors")["prompt_embeddings"]
        model.prompt_encoder["default"].embedding.weight.data = torch.tensor(exported)
    before = model.get_prompt_embedding_to_save("default").clone()
    ids = torch.randint(5, 40, (8, 12))
    prompt = [parameter for name, parameter in model.named_parameters() if "prompt_encoder" in name]
    optimizer = torch.optim.Adam(prompt, lr=0.1)
    losses = []
    for _ in range(5):
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        states = found.logits if task == "SEQ_CLS" else found.last_hidden_state[:, M:]
        loss = ((states[..., 0] - 1) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert (model.get_prompt_embedding_to_save("default") - before).abs().max() > 0.1
    model.save_pretrained(folder)


# --- Out ----------------------------------------------------------------


def test_an_exported_prompt_gives_the_hidden_states_of_torch(exported: Path, trained: Trained) -> None:
    check_same_hidden_states(exported, trained.backbone)


def test_what_is_exported_is_still_the_detector(
    spear: Spear, exported: Path, trained: Trained, table: Path, tmp_path: Path
) -> None:
    for name, folder in (("before", trained.run), ("after", exported)):
        assert score(spear, folder, table, tmp_path / name).code == 0
    before, after = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("before", "after"))
    pd.testing.assert_frame_equal(before, after)
    tensors, about = (
        [(folder / name).read_bytes() for folder in (exported, trained.run / "detector")]
        for name in ("detector.safetensors", "detector.json")
    )
    assert tensors[0] == tensors[1]
    assert json.loads(about[0]) == json.loads(about[1])
    config = json.loads((exported / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(trained.backbone)
    card = (exported / "README.md").read_text()
    assert card.startswith((trained.run / "detector" / "README.md").read_text())


def test_the_card_says_how_to_use_it_in_torch(
    exported: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines are run as they stand there."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    program = (exported / "README.md").read_text().split("```python")[2].split("```")[0]
    here, steps = hidden_here(exported, trained.backbone)
    names = {"steps": torch.tensor(steps), "mask": torch.tensor(windows()[1]).long()}
    exec(program.replace('"DETECTOR"', repr(str(exported))), names)
    assert np.abs(here - names["states"].detach().numpy())[windows()[1]].max() <= TOLERANCE


# --- In -----------------------------------------------------------------


@pytest.mark.parametrize("start", [True, False], ids=["trained on", "trained from the beginning"])
def test_a_prompt_trained_in_torch_scores_here(
    spear: Spear, exported: Path, trained: Trained, table: Path, tmp_path: Path, start: bool
) -> None:
    train_in_torch(trained.backbone, tmp_path / "adapter", exported if start else None)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / name, exported / name)
    check_same_hidden_states(exported, trained.backbone)
    told = score(spear, exported, table, tmp_path / "there")
    assert (told.code, told.err) == (0, "")
    assert f"WARNING: the detector: {PROMPT_REPLACED}" in told.out
    assert score(spear, trained.run, table, tmp_path / "own").code == 0
    own, there = (pd.read_parquet(tmp_path / name / "scores.parquet")["score"] for name in ("own", "there"))
    assert np.abs(own - there).max() > 1e-4
    assert spear(*evaluate(exported, tmp_path / "evaluated")).code == 0
    assert any(PROMPT_REPLACED in warning for warning in results(tmp_path / "evaluated")["warnings"])


@pytest.mark.parametrize("task", ["FEATURE_EXTRACTION", "SEQ_CLS"])
def test_a_prompt_trained_in_torch_gets_a_head_here(spear: Spear, trained: Trained, tmp_path: Path, task: str) -> None:
    train_in_torch(trained.backbone, tmp_path / "adapter", task=task)
    fields = {
        "backbone.name": trained.backbone,
        "embedding.kind": "numbers",
        "prompt.init": tmp_path / "adapter",
        "train.parts": "head",
    }
    outcome = spear(*quick(tmp_path / "run", fields))
    assert (outcome.code, outcome.err) == (0, "")
    prompt = safetensors.numpy.load_file(tmp_path / "adapter" / "adapter_model.safetensors")["prompt_embeddings"]
    carried = safetensors.numpy.load_file(tmp_path / "run" / "detector" / "detector.safetensors")
    np.testing.assert_array_equal(carried["prompt.vectors"], prompt)
    # And out again, to the same hidden states.
    shutil.rmtree(tmp_path / "adapter")
    assert spear("--mode=export", f"--detector={tmp_path / 'run'}", f"--workdir={tmp_path / 'out'}").code == 0
    check_same_hidden_states(tmp_path / "out", trained.backbone)


# --- What cannot be exchanged; no torch needed from here ------------------


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter as PEFT writes it, for the shape of random:tiny."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "SEQ_CLS",
        "num_virtual_tokens": M,
        "token_dim": 32,
        "num_transformer_submodules": 1,
        "base_model_name_or_path": "random:tiny",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write(folder, prompt_embeddings=np.random.default_rng(0).normal(size=(M, 32)).astype(np.float32))
    return folder


def write(folder: Path, **tensors: np.ndarray) -> None:
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")


def configure(folder: Path, **fields: object) -> None:
    about = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(about | fields))


FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "another method": (lambda folder: configure(folder, peft_type="LORA"), ["peft_type 'LORA'", "'PROMPT_TUNING'"]),
    "another width": (
        lambda folder: (configure(folder, token_dim=16), write(folder, prompt_embeddings=np.ones((M, 16), np.float32))),
        ["(4, 16)", "(4, 32)"],
    ),
    "another length": (
        lambda folder: (configure(folder, num_virtual_tokens=3), write(folder, prompt_embeddings=np.ones((3, 32)))),
        ["(3, 32)", "(4, 32)"],
    ),
    "shapes that contradict": (lambda folder: configure(folder, num_virtual_tokens=5), ["(4, 32)", "(5, 32)"]),
    "NaN": (lambda folder: write(folder, prompt_embeddings=np.full((M, 32), np.nan)), ["finite"]),
    "whole numbers": (lambda folder: write(folder, prompt_embeddings=np.ones((M, 32), int)), ["I64", "BF16"]),
    "no prompt": (lambda folder: write(folder, other=np.ones(3)), ["no tensor 'prompt_embeddings'", "other"]),
    "truncated": (lambda folder: truncate(folder / "adapter_model.safetensors"), ["model.safetensors: damaged"]),
    "no tensors": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        ["adapter_model.safetensors: is missing"],
    ),
    "no JSON": (lambda folder: truncate(folder / "adapter_config.json"), ["cannot be read as JSON"]),
    "a list": (lambda folder: (folder / "adapter_config.json").write_text("[]"), ["contain a JSON object, not list"]),
}  # fmt: skip


@pytest.mark.parametrize("how", ["prompt.init", "score"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_adapter_is_refused(
    spear: Spear, finished: Run, adapter: Path, table: Path, tmp_path: Path, fault: str, how: str
) -> None:
    do, parts = FAULTS[fault]
    do(adapter)
    if how == "prompt.init":
        check_refusal(spear(*quick(tmp_path / "run", {"prompt.init": adapter})), "prompt.init=", *parts)
    else:
        for name in ("detector.json", "detector.safetensors"):
            shutil.copy(finished.workdir / "detector" / name, adapter)
        check_refusal(score(spear, adapter, table, tmp_path / "run"), *parts)
    assert not (tmp_path / "run").exists()


def test_an_adapter_in_bfloat16_is_read(adapter: Path) -> None:
    """As PEFT saves prompts of models in bfloat16."""
    exact = np.arange(M * 32, dtype=np.float32).reshape(M, 32) / 64
    half = exact.astype(ml_dtypes.bfloat16)
    about = {"prompt_embeddings": {"dtype": "BF16", "shape": half.shape, "data_offsets": [0, half.nbytes]}}
    header = json.dumps(about).encode()
    blob = len(header).to_bytes(8, "little") + header + half.tobytes()
    (adapter / "adapter_model.safetensors").write_bytes(blob)
    np.testing.assert_array_equal(read_adapter(epath.Path(adapter), "random:tiny"), half.astype(np.float32))


def test_an_adapter_alone_is_no_detector(spear: Spear, adapter: Path, table: Path, tmp_path: Path) -> None:
    said = f"no head and no threshold; train them with --config.prompt.init={adapter}"
    check_refusal(score(spear, adapter, table, tmp_path / "run"), said)
    check_refusal(spear(*quick(tmp_path / "run", {"train.init_from": adapter})), "train.init_from", said)


def test_other_folders_are_no_adapters(spear: Spear, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        refused = spear(*quick(tmp_path / "run", {"prompt.init": tmp_path / name}))
        check_refusal(refused, f"prompt.init='{tmp_path / name}'", "no adapter_config.json there")
    check_refusal(spear(*quick(tmp_path / "run", {"prompt.init": "vocabluary"})), "vocabulary, words", "./adapter")


def test_an_adapter_is_pulled_by_its_id(
    spear: Spear, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.leave(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    with hub_server.serve(adapter, monkeypatch):
        outcome = spear(*quick(tmp_path / "run", {"prompt.init": "some/model", "train.parts": "head"}))
    assert (outcome.code, outcome.err) == (0, "")
    prompt = safetensors.numpy.load_file(adapter / "adapter_model.safetensors")["prompt_embeddings"]
    carried = safetensors.numpy.load_file(tmp_path / "run" / "detector" / "detector.safetensors")
    np.testing.assert_array_equal(carried["prompt.vectors"], prompt)


def test_a_prompt_of_another_backbone_is_refused(adapter: Path) -> None:
    configure(adapter, base_model_name_or_path="google-bert/bert-base-uncased")
    read_adapter(epath.Path(adapter), "google-bert/bert-base-uncased@main")
    read_adapter(epath.Path(adapter), "/a/copy/of/bert")  # a folder's name says nothing of its weights
    with pytest.raises(
        InputError, match=r"was trained with google-bert/bert-base-uncased; the backbone here is .*-cased"
    ):
        read_adapter(epath.Path(adapter), "google-bert/bert-base-cased")
    configure(adapter, base_model_name_or_path="bert-base-uncased")  # the oldest models go by one word, too
    read_adapter(epath.Path(adapter), "google-bert/bert-base-uncased")
    with pytest.raises(InputError, match=r"was trained with bert-base-uncased; the backbone here is .*-cased"):
        read_adapter(epath.Path(adapter), "google-bert/bert-base-cased")


@pytest.mark.parametrize(
    ("field", "value"), [("prompt.position", "suffix"), ("prompt.length", 0), ("backbone.attention", "causal")]
)
def test_what_peft_would_read_otherwise_is_refused(
    spear: Spear, finished: Run, adapter: Path, table: Path, tmp_path: Path, field: str, value: object
) -> None:
    detector = Detector.load(epath.Path(finished.workdir))
    detector.config.update_from_flattened_dict({field: value})
    pretrained = dataclasses.replace(detector, backbone=detector.backbone | {"pretrained": True})
    pretrained.save(epath.Path(tmp_path / "saved"))
    out = tmp_path / "out"
    said = f"config.{field}={value!r}"
    check_refusal(spear("--mode=export", f"--detector={tmp_path / 'saved'}", f"--workdir={out}"), said)
    for file in adapter.iterdir():
        shutil.copy(file, tmp_path / "saved")
    check_refusal(score(spear, tmp_path / "saved", table, out), said)
    assert not out.exists()


def test_a_start_elsewhere_than_in_front_is_refused(spear: Spear, adapter: Path, tmp_path: Path) -> None:
    fields = {"prompt.init": adapter, "prompt.position": "suffix"}
    check_refusal(spear(*quick(tmp_path / "run", fields)), "config.prompt.position='suffix' must be prefix")


def test_export_writes_to_a_new_folder_and_takes_no_config(spear: Spear, finished: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ("--mode=export", f"--workdir={out}")
    check_refusal(spear(*common), "--mode=export needs --detector")
    check_refusal(spear(*common, f"--detector={finished.workdir}"), "random:tiny has random weights")
    given = (*common, f"--detector={finished.workdir}")
    check_refusal(spear(*given, "--config.prompt.length=3"), "--config.prompt.length does not apply to --mode=export")
    check_refusal(spear(*common, f"--detector={tmp_path / 'nothing'}"), "no detector.json there")
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("kept")
    check_refusal(spear(*given), "must be a new or empty folder")
    assert [path.name for path in out.iterdir()] == ["mine"]
