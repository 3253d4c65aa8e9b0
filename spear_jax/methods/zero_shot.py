"""Scores windows by prompting a frozen language model in words, without training.

A window's bins are written as numbers into a template, a text file with these placeholders in braces:

values    the bins, separated by spaces; '?' for a missing value
last_bin  the largest possible number
steps     the number of bins
mask      the token that a masked model predicts

zero_shot_masked    an encoder compares two words at the mask: the score is P(anomalous word), given one of the two
zero_shot_yes_no    a decoder does the same at the end of a question
zero_shot_surprise  a decoder reads the numbers one by one: a step's score is -log P(its number | everything before)

The first two score a window, and all its steps get this score.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict
from scipy.special import expit
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.backbones import Backbone
from spear_jax.data import Dataset, StepScores, scoring_batches, stitch_splits
from spear_jax.errors import InputError
from spear_jax.evaluation import RunRecord
from spear_jax.methods.implementations import ScoreFunction, load_recorded_backbone
from spear_jax.methods.prompt_templates import fill_in, read_template

ROUNDING = 64  # texts are padded to a multiple of this length, so that few shapes are compiled
MAX_TOKENS = 1 << 14  # in a batch


class Wording(NamedTuple):
    """The default texts of a method.

    Attributes:
      template: the default template, a file in templates/.
      normal: the default word for a normal window; '' if no words are compared.
      anomalous: the default word for an anomalous window.
      masked: True if it asks an encoder about a masked token.
    """

    template: str
    normal: str = ""
    anomalous: str = ""
    masked: bool = False


WORDINGS = {
    "zero_shot_masked": Wording("masked.txt", "normal", "abnormal", masked=True),
    "zero_shot_yes_no": Wording("yes_no.txt", "no", "yes"),
    "zero_shot_surprise": Wording("surprise.txt"),
}


class Text(NamedTuple):
    """A window as the model reads it.

    Attributes:
      ids: its tokens.
      steps: for each token, the step whose number it belongs to, or -1.
      readout: position of the token whose hidden state gives the logits of the words.
    """

    ids: Int[np.ndarray, "tokens"]
    steps: Int[np.ndarray, "tokens"]
    readout: int


@dataclasses.dataclass(frozen=True, eq=False)
class ZeroShot:
    """A language model and the texts that it reads.

    Attributes:
      backbone: the model.
      texts: one per window, by split.
      shapes: numbers of windows and steps, by split.
      words: tokens of the normal and the anomalous word; None if the score is the surprise about the numbers.
    """

    backbone: Backbone
    texts: Mapping[str, Sequence[Text]]
    shapes: Mapping[str, tuple[int, ...]]
    words: Int[np.ndarray, "2"] | None

    def score(self, *, batch_size: int, mesh: Mesh) -> dict[str, Float[np.ndarray, "_windows _time"]]:
        """Scores every step of every window, higher is more anomalous; scores of padding are meaningless."""
        scores = {}
        for split, texts in self.texts.items():
            scores[split] = np.zeros(self.shapes[split])
            lengths = -(-np.array([len(text.ids) for text in texts]) // ROUNDING) * ROUNDING
            lengths = np.minimum(lengths, self.backbone.max_positions)
            size = max(min(batch_size, len(texts), MAX_TOKENS // int(lengths.max())), 1)
            for rows, length in tqdm(
                scoring_batches(lengths, size), desc=split, unit="batch", disable=parallel.no_bar(), leave=False
            ):
                batch = [texts[row] for row in rows if row >= 0]
                scores[split][rows[rows >= 0]] = self._score(batch, size, length, mesh, self.shapes[split][1])
        return scores

    def _score(
        self, batch: Sequence[Text], size: int, length: int, mesh: Mesh, time: int
    ) -> Float[np.ndarray, "batch time"]:
        ids, mask = np.zeros((size, length), np.int32), np.zeros((size, length), bool)
        readout = np.zeros(size, np.int32)
        for row, text in enumerate(batch):
            ids[row, : len(text.ids)], mask[row, : len(text.ids)], readout[row] = text.ids, True, text.readout
        inputs = {"words": self.backbone.word_rows(ids), "mask": mask, "ids": ids, "readout": readout}
        placed = parallel.shard_batch(inputs, mesh, axis=0)
        states = self.backbone.encode(placed["words"], placed["mask"])

        def fetch(values: Array) -> Float[np.ndarray, "batch ..."]:
            return np.asarray(jax.device_put(values, parallel.replicated(mesh)), np.float64)[: len(batch)]

        if self.words is not None:
            state = jnp.take_along_axis(states, placed["readout"][:, None, None], axis=1)[:, 0]
            logits = fetch(self.backbone.vocabulary.logits(state, self.words))
            return np.broadcast_to(expit(logits[:, 1:] - logits[:, :1]), (len(batch), time))
        surprise = -fetch(self.backbone.vocabulary.log_probabilities(states[:, :-1], placed["ids"][:, 1:]))
        scores = np.zeros((len(batch), time))
        for row, text in enumerate(batch):
            tokens = np.flatnonzero(text.steps >= 0)
            np.add.at(scores[row], text.steps[tokens], surprise[row, tokens - 1])
        return scores


def start_zero_shot(config: ConfigDict, dataset: Dataset, record: RunRecord) -> ScoreFunction:
    """Loads the backbone and writes every window as a text, see `prepare_questions`."""
    backbone = load_recorded_backbone(config, record)
    questions = prepare_questions(config, backbone, dataset, record)

    def score() -> dict[str, StepScores]:
        mesh = parallel.make_mesh(config.backbone.shards)
        with jax.default_matmul_precision(config.backbone.matmul_precision), parallel.gathering(mesh):
            scores = questions.score(batch_size=config.score.batch_size, mesh=mesh)
        return stitch_splits(dataset, scores)

    return score


def prepare_questions(config: ConfigDict, backbone: Backbone, dataset: Dataset, record: RunRecord) -> ZeroShot:
    """Writes every window as a text; records a note about the texts, and warnings about words that span several tokens.

    Raises:
      InputError: the backbone is of the wrong kind or lacks the part that predicts tokens, the template or a word
        cannot be used, or a text is too long.
    """
    wording = WORDINGS[config.method]
    _check_backbone(config.method, wording, backbone)
    required = ("values", "mask") if wording.masked else ("values",)
    template = read_template(config.zero_shot.template, wording.template, required, ("last_bin", "steps")).rstrip()
    note: dict[str, object] = {"template": template}
    words = None
    if wording.normal:
        words = _words(
            backbone,
            {name: config.zero_shot[name] or getattr(wording, name) for name in ("normal", "anomalous")},
            record.warnings,
        )
        note["tokens"] = [backbone.tokenizer.id_to_token(int(number)) for number in words]
    last_bin = dataset.quantizer.bins - 1
    texts = {
        split: [
            _text(backbone, wording, template, bins[:length], last_bin)
            for bins, length in zip(examples.bins, dataset.windows[split].lengths, strict=True)
        ]
        for split, examples in dataset.examples.items()
    }
    all_ids = [text.ids for split_texts in texts.values() for text in split_texts]
    backbone.word_rows(np.unique(np.concatenate(all_ids)))  # raises if the tokenizer belongs to a larger model
    longest = max(map(len, all_ids))
    record.notes["zero_shot"] = {**note, "longest": longest}
    if longest > backbone.max_positions:
        raise InputError(
            f"config.data.window={config.data.window}: windows of up to {dataset.window} steps make texts of up to"
            f" {longest} tokens, and {backbone.name} has {backbone.max_positions} positions: lower config.data.window"
        )
    shapes = {split: examples.bins.shape for split, examples in dataset.examples.items()}
    return ZeroShot(backbone, texts, shapes, words)


def _check_backbone(name: str, wording: Wording, backbone: Backbone) -> None:
    if wording.masked != backbone.config.masked:
        predicts, allowed = "the next token, not a masked one", "encoders (BERT, RoBERTa, DistilBERT, ModernBERT)"
        if backbone.config.masked:
            predicts, allowed = "masked tokens, not the next one", "decoders (Gemma, Llama, Qwen)"
        others = [other for other, its_wording in WORDINGS.items() if its_wording.masked == backbone.config.masked]
        raise InputError(
            f"config.method={name!r}: {backbone.name} predicts {predicts}; allowed: {allowed}, or"
            f" config.method={', '.join(others)} with this one"
        )
    if not wording.masked and not backbone.causal:
        raise InputError(
            f"config.method={name!r}: the attention of {backbone.name} is bidirectional, so a position sees the token"
            " that it should predict; allowed: causal decoders with config.backbone.attention=own"
        )
    _ = backbone.vocabulary  # raises if the checkpoint lacks it


def _words(backbone: Backbone, words: Mapping[str, str], warnings: list[str]) -> Int[np.ndarray, "2"]:
    """Returns the first token of each word, as it is spelled within a sentence."""
    tokens = []
    for name, word in words.items():
        ids = backbone.tokenize(f" {word}")
        if not ids or ids[0] == backbone.special_ids.get("unk"):
            raise InputError(
                f"config.zero_shot.{name}={word!r}: the tokenizer of {backbone.name} does not know it; allowed:"
                " words in its vocabulary"
            )
        if len(ids) > 1:
            parts = " + ".join(str(backbone.tokenizer.id_to_token(number)) for number in ids)
            warnings.append(
                f"zero_shot.{name}: the tokenizer of {backbone.name} splits {word!r} into {parts}; the first token"
                " stands for the word"
            )
        tokens.append(ids[0])
    if tokens[0] == tokens[1]:
        raise InputError(
            f"config.zero_shot.anomalous={words['anomalous']!r}: in the tokenizer of {backbone.name} it begins with the"
            f" same token as config.zero_shot.normal={words['normal']!r}; allowed: words that begin differently"
        )
    return np.array(tokens)


def _text(backbone: Backbone, wording: Wording, template: str, bins: Int[np.ndarray, "time"], last_bin: int) -> Text:
    """Writes one window into the template; returns its tokens."""
    mask = backbone.special_ids.get("mask", -1)
    others = {
        "last_bin": str(last_bin),
        "steps": str(len(bins)),
        "mask": str(backbone.tokenizer.id_to_token(max(mask, 0))),
    }
    before, _, after = fill_in(template, others).partition("{values}")
    numbers = [str(number) if number <= last_bin else "?" for number in bins.tolist()]
    text = before + " ".join(numbers) + after
    step_of_character, begin = np.full(len(text), -1), len(before)
    for step, number in enumerate(numbers):
        step_of_character[begin : begin + len(number)] = step
        begin += len(number) + 1
    encoded = backbone.tokenizer.encode(text, add_special_tokens=False)
    front, back = _frame(backbone, wording)
    ids = np.array([*front, *encoded.ids, *back])
    steps = np.full(len(ids), -1)
    steps[len(front) : len(ids) - len(back)] = [
        step_of_character[begin:end].max(initial=-1) for begin, end in encoded.offsets
    ]
    if not wording.masked:
        return Text(ids, steps, len(ids) - 1)
    (masked,) = np.nonzero(ids == mask)
    if len(masked) != 1:
        raise InputError(f"config.backbone.name={backbone.name!r}: its tokenizer has no mask token")
    return Text(ids, steps, int(masked[0]))


def _frame(backbone: Backbone, wording: Wording) -> tuple[list[int], list[int]]:
    """Returns the tokens before and after a text that the model was trained with."""
    special = backbone.special_ids

    def first(*names: str) -> list[int]:
        return [special[name] for name in names if name in special][:1]

    if wording.masked:
        return first("cls", "bos"), first("sep", "eos")
    if wording.normal:
        return first("bos"), []
    front = first("bos", "eos", "cls")  # Qwen has no bos, but the first number must be predicted from something
    if not front:
        raise InputError(
            f"config.backbone.name={backbone.name!r}: its tokenizer has no token for the beginning of a text (bos, eos"
            " or cls), from which the first number is predicted"
        )
    return front, []
