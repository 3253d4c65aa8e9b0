"""A frozen language model asked in words, and nothing trained: what it knows about anomalies already.

A window's bins are written as numbers into a template, a text file with these placeholders in braces:

values    the bins, separated by spaces; '?' where nothing was recorded
last_bin  the largest number that can occur
steps     how many numbers there are
mask      the token that a masked model predicts

zero_shot_masked    an encoder weighs two words at the mask: P(anomalous word) against P(normal word), of these two
zero_shot_yes_no    a decoder does so at the end of a question
zero_shot_surprise  a decoder reads the numbers one after the other: a step's score is -log P(its number | all before)

The first two score a window, whose steps all get its score.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
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
from spear_jax.data import Dataset, scoring_batches
from spear_jax.errors import InputError

ROUNDING = 64  # texts are padded to multiples of it, so that few shapes are compiled


MOST_TOKENS = 1 << 14  # read at a time


class Wording(NamedTuple):
    """What tells the methods apart.

    Attributes:
      template: its own, a file of templates/.
      normal: the word for it; '' where none is weighed.
      anomalous: the other word.
      masked: asks an encoder about a masked token.
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
      steps: the step whose number a token is part of, -1 where it is part of none.
      asked: whose hidden state weighs the words.
    """

    ids: Int[np.ndarray, "tokens"]
    steps: Int[np.ndarray, "tokens"]
    asked: int


@dataclasses.dataclass(frozen=True, eq=False)
class ZeroShot:
    """A model and what it is asked.

    Attributes:
      backbone: the model.
      texts: of each window, by split.
      shapes: windows and steps, by split.
      words: tokens of the normal and the anomalous word; None where the numbers themselves are judged.
      notes: what the results say of it.
      warnings: what every output has to say.
    """

    backbone: Backbone
    texts: Mapping[str, Sequence[Text]]
    shapes: Mapping[str, tuple[int, ...]]
    words: Int[np.ndarray, "2"] | None
    notes: dict[str, object]
    warnings: tuple[str, ...]

    def score(self, *, batch_size: int, mesh: Mesh) -> dict[str, Float[np.ndarray, "windows time"]]:
        """Scores every step of every window, higher is more anomalous; meaningless behind a window's length.

        Args:
          batch_size: windows at a time, over all devices; fewer where they are long.
          mesh: the devices.
        """
        scores = {}
        for split, texts in self.texts.items():
            scores[split] = np.zeros(self.shapes[split])
            lengths = -(-np.array([len(text.ids) for text in texts]) // ROUNDING) * ROUNDING
            lengths = np.minimum(lengths, self.backbone.max_positions)
            size = max(min(batch_size, len(texts), MOST_TOKENS // int(lengths.max())), 1)
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
        asked = np.zeros(size, np.int32)
        for row, text in enumerate(batch):
            ids[row, : len(text.ids)], mask[row, : len(text.ids)], asked[row] = text.ids, True, text.asked
        inputs = {"words": self.backbone.word_rows(ids), "mask": mask, "ids": ids, "asked": asked}
        put = parallel.shard_batch(inputs, mesh, axis=0)
        states = self.backbone.encode(put["words"], put["mask"])

        def fetch(found: Array) -> np.ndarray:
            return np.asarray(jax.device_put(found, parallel.replicated(mesh)), np.float64)[: len(batch)]

        if self.words is not None:
            state = jnp.take_along_axis(states, put["asked"][:, None, None], axis=1)[:, 0]
            logits = fetch(self.backbone.vocabulary.logits(state, self.words))
            return np.broadcast_to(expit(logits[:, 1:] - logits[:, :1]), (len(batch), time))
        surprise = -fetch(self.backbone.vocabulary.log_probabilities(states[:, :-1], put["ids"][:, 1:]))
        scores = np.zeros((len(batch), time))
        for row, text in enumerate(batch):
            tokens = np.flatnonzero(text.steps >= 0)
            np.add.at(scores[row], text.steps[tokens], surprise[row, tokens - 1])
        return scores


def prepare_questions(config: ConfigDict, backbone: Backbone, dataset: Dataset) -> ZeroShot:
    """Writes every window as a text.

    Args:
      config: a whole config; its head is not used.
      backbone: the model.
      dataset: the windows.

    Raises:
      InputError: the backbone is of the other kind or lacks the part that predicts tokens, the template or a word
        cannot be used, or a text is too long.
    """
    method = WORDINGS[config.method]
    _check_backbone(config.method, method, backbone)
    template = _read_template(config.zero_shot.template, method)
    notes: dict[str, object] = {"template": template}
    warnings: list[str] = []
    words = None
    if method.normal:
        words = _words(
            backbone,
            {name: config.zero_shot[name] or getattr(method, name) for name in ("normal", "anomalous")},
            warnings,
        )
        notes["tokens"] = [backbone.tokenizer.id_to_token(int(number)) for number in words]
    last_bin = dataset.quantizer.bins - 1
    texts = {
        split: [
            _text(backbone, method, template, bins[:length], last_bin)
            for bins, length in zip(examples.bins, dataset.windows[split].lengths, strict=True)
        ]
        for split, examples in dataset.examples.items()
    }
    every = [text.ids for of_split in texts.values() for text in of_split]
    backbone.word_rows(np.unique(np.concatenate(every)))  # refuses a tokenizer that is of a larger model
    longest = max(map(len, every))
    notes["longest"] = longest
    if longest > backbone.max_positions:
        raise InputError(
            f"config.data.window={config.data.window}: windows of up to {dataset.window} steps are texts of up to"
            f" {longest} tokens; {backbone.name} has {backbone.max_positions} positions: lower config.data.window"
        )
    shapes = {split: examples.bins.shape for split, examples in dataset.examples.items()}
    return ZeroShot(backbone, texts, shapes, words, notes, tuple(warnings))


def _check_backbone(name: str, method: Wording, backbone: Backbone) -> None:
    if method.masked != backbone.config.masked:
        predicts, allowed = "the next token, no masked one", "encoders (BERT, RoBERTa, DistilBERT, ModernBERT)"
        if backbone.config.masked:
            predicts, allowed = "masked tokens, no next one", "decoders (Gemma, Llama, Qwen)"
        others = ", ".join(other for other, one in WORDINGS.items() if one.masked == backbone.config.masked)
        raise InputError(
            f"config.method={name!r}: {backbone.name} predicts {predicts}; allowed are {allowed}, or for it"
            f" config.method={others}"
        )
    if not method.masked and not backbone.causal:
        raise InputError(
            f"config.method={name!r}: the attention of {backbone.name} is bidirectional, so a position sees the token"
            " that it is to predict; allowed are causal decoders with config.backbone.attention=own"
        )
    _ = backbone.vocabulary  # refuses a file without it


def _read_template(path: str, method: Wording) -> str:
    """The text of a template, without white space at its end.

    Raises:
      InputError: it cannot be read, or its placeholders are not those of the method.
    """
    where = f"config.zero_shot.template={path!r}"
    try:
        file = Path(path) if path else resources.files("spear_jax.methods") / "templates" / method.template
        text = file.read_text(encoding="utf-8").rstrip()
    except (OSError, ValueError) as fault:
        reason = " ".join(str(fault).split())
        raise InputError(f"{where}: needed is '' or a text file, and this cannot be read ({reason})") from fault
    needed = ("values", "mask") if method.masked else ("values",)
    allowed = (*needed, "last_bin", "steps")
    found = re.findall(r"\{([^{}\s]*)\}", text)
    for name in found:
        if name not in allowed:
            raise InputError(f"{where}: unknown placeholder {{{name}}}; allowed are {_braced(allowed)}")
    for name in needed:
        if found.count(name) != 1:
            raise InputError(
                f"{where}: {{{name}}} stands in it {found.count(name)} times; needed once are {_braced(needed)}"
            )
    return text


def _braced(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _words(backbone: Backbone, words: Mapping[str, str], warnings: list[str]) -> Int[np.ndarray, "2"]:
    """First tokens of the words, as they stand within a sentence.

    Raises:
      InputError: a word is unknown, or both begin with the same token.
    """
    chosen = []
    for name, word in words.items():
        ids = backbone.tokenize(f" {word}")
        if not ids or ids[0] == backbone.special_ids.get("unk"):
            raise InputError(
                f"config.zero_shot.{name}={word!r}: the tokenizer of {backbone.name} does not know it; allowed are"
                " words of its vocabulary"
            )
        if len(ids) > 1:
            tokens = [str(backbone.tokenizer.id_to_token(number)) for number in ids]
            warnings.append(
                f"zero_shot.{name}: the tokenizer of {backbone.name} splits {word!r} into {' + '.join(tokens)}, whose"
                " first token stands for it"
            )
        chosen.append(ids[0])
    if chosen[0] == chosen[1]:
        raise InputError(
            f"config.zero_shot.anomalous={words['anomalous']!r}: to the tokenizer of {backbone.name} it begins with the"
            f" same token as config.zero_shot.normal={words['normal']!r}; allowed are words that begin differently"
        )
    return np.array(chosen)


def _text(backbone: Backbone, method: Wording, template: str, bins: Int[np.ndarray, "time"], last_bin: int) -> Text:
    """One window in the template, in tokens."""
    special = backbone.special_ids
    mask = special.get("mask", -1)
    others = {"last_bin": last_bin, "steps": len(bins), "mask": backbone.tokenizer.id_to_token(max(mask, 0))}
    for name, value in others.items():
        template = template.replace(f"{{{name}}}", str(value))
    before, _, after = template.partition("{values}")
    numbers = [str(one) if one <= last_bin else "?" for one in bins.tolist()]
    text = before + " ".join(numbers) + after
    owner, begin = np.full(len(text), -1), len(before)  # of each character
    for step, number in enumerate(numbers):
        owner[begin : begin + len(number)] = step
        begin += len(number) + 1
    encoded = backbone.tokenizer.encode(text, add_special_tokens=False)
    front, back = _frame(backbone, method)
    ids = np.array([*front, *encoded.ids, *back])
    steps = np.full(len(ids), -1)
    steps[len(front) : len(ids) - len(back)] = [owner[slice(*span)].max(initial=-1) for span in encoded.offsets]
    if not method.masked:
        return Text(ids, steps, len(ids) - 1)
    (asked,) = np.nonzero(ids == mask)
    if len(asked) != 1:
        raise InputError(f"config.backbone.name={backbone.name!r}: its tokenizer has no token of its own for a mask")
    return Text(ids, steps, int(asked[0]))


def _frame(backbone: Backbone, method: Wording) -> tuple[list[int], list[int]]:
    """The tokens in front of a text and behind it, those that the model was trained with."""
    special = backbone.special_ids

    def first(*names: str) -> list[int]:
        return [special[name] for name in names if name in special][:1]

    if method.masked:
        return first("cls", "bos"), first("sep", "eos")
    if method.normal:
        return first("bos"), []
    front = first("bos", "eos", "cls")  # Qwen has no bos, and a first number has to follow from something
    if not front:
        raise InputError(
            f"config.backbone.name={backbone.name!r}: its tokenizer has no token for the beginning of a text (bos, eos"
            " or cls), which the first number is predicted from"
        )
    return front, []
