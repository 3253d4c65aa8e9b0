"""Where the bins' vectors come from: of all that the paper leaves open, this matters most."""

import numpy as np
from jaxtyping import Float, Int

from spear_jax import hub
from spear_jax.backbones import Backbone
from spear_jax.errors import InputError
from spear_jax.model import peft

KINDS = ("numbers", "spread", "consecutive", "random", "ordinal", "trained")


def bin_table(
    kind: str, bins: int, backbone: Backbone, *, length_scale: float, first_row: int, seed: int
) -> tuple[Float[np.ndarray, "rows hidden"], dict[str, object]]:
    """Makes the table of bin embeddings.

    numbers      rows of the strings "0" .. "N-1". Where the tokenizer writes numbers in digits, "00" .. "99" are taken,
                 and a number's row is the mean of its tokens' rows, the k-th from the right weighted k times: with
                 equal weights 12 and 21 would be one number
    spread       N rows at even distances over the vocabulary
    consecutive  N rows from `first_row` on
    random       normal vectors with the word table's mean and standard deviation
    ordinal      smooth in the bin's value: random Fourier features (Rahimi and Recht 2007) of a Gaussian kernel,
                 with the word table's mean and standard deviation; neighbouring bins look alike
    trained      starts as 'ordinal' and is trained

    Args:
      kind: one of `KINDS`.
      bins: N.
      backbone: whose word table the rows live in.
      length_scale: of 'ordinal', the kernel's width as a share of the range of values.
      first_row: of 'consecutive'.
      seed: of the random kinds.

    Returns:
      table: N rows for the bins and a last one for missing values, the row of the first that there is of [MASK],
        [UNK], padding and end of text.
      notes: what the report says about the rows.

    Raises:
      InputError: the vocabulary has too few rows, or no token for missing values.
    """
    notes: dict[str, object] = {"kind": kind}
    rng = np.random.default_rng(seed)
    if kind == "numbers":
        tokens = _number_tokens(backbone, bins)
        table = np.stack([_mixed(_rows(backbone, ids)) for ids in tokens])
        notes["numbers_of_several_tokens"] = sum(len(ids) > 1 for ids in tokens)
        notes["tokens"] = [[backbone.spelling(number) for number in ids] for ids in tokens]
    elif kind == "spread":
        ids = np.linspace(0, backbone.vocabulary_size - 1, bins).astype(int)
        table = _rows(backbone, ids)
        notes["tokens"] = [backbone.spelling(number) for number in ids]
    elif kind == "consecutive":
        if first_row + bins > backbone.vocabulary_size:
            raise InputError(
                f"embedding.first_row={first_row} with quantizer.bins={bins} runs past the"
                f" {backbone.vocabulary_size} rows of the vocabulary of {backbone.name}"
            )
        table = _rows(backbone, np.arange(first_row, first_row + bins))
        notes["first_row"] = first_row
        notes["tokens"] = [backbone.spelling(number) for number in range(first_row, first_row + bins)]
    else:
        mean, deviation = backbone.word_table_statistics()
        if kind == "random":
            features = rng.normal(size=(bins, len(mean)))
        else:
            features = _smooth(bins, len(mean), length_scale, rng)
            notes["length_scale"] = length_scale
        table = mean + deviation * features
    special = backbone.special_ids
    missing = next((special[name] for name in ("mask", "unk", "pad", "eos") if name in special), None)
    if missing is None:
        raise InputError(f"the tokenizer of {backbone.name} has no token for missing values: no mask, unk, pad or eos")
    notes["missing"] = backbone.spelling(missing)
    table = np.concatenate([table, _rows(backbone, [missing])])
    return table.astype(np.float32), notes


def _number_tokens(backbone: Backbone, bins: int) -> list[list[int]]:
    """Token ids of each number; of numbers with leading zeros where the tokenizer writes them digit by digit."""
    plain = [backbone.tokenize(str(n)) for n in range(bins)]
    width = len(str(bins - 1))
    padded = [backbone.tokenize(f"{n:0{width}d}") for n in range(bins)]
    if max(map(len, plain)) > 1 and all(len(ids) == width for ids in padded):
        return padded
    return plain


def _mixed(rows: Float[np.ndarray, "tokens hidden"]) -> Float[np.ndarray, "hidden"]:
    weight = np.arange(len(rows), 0, -1, dtype=np.float32)
    return weight @ rows / weight.sum()


def _smooth(bins: int, hidden: int, length_scale: float, rng: np.random.Generator) -> Float[np.ndarray, "bins hidden"]:
    """Cos features whose inner products fall off with distance as exp(-(x-y)^2 / 2 l^2); unit variance."""
    centre = (np.arange(bins) + 0.5) / bins
    frequency = rng.normal(size=hidden) / length_scale
    phase = rng.uniform(0, 2 * np.pi, size=hidden)
    return np.sqrt(2) * np.cos(centre[:, None] * frequency + phase)


def _rows(backbone: Backbone, ids: Int[np.ndarray, "n"] | list[int]) -> Float[np.ndarray, "n hidden"]:
    return np.asarray(backbone.word_rows(np.asarray(ids)), np.float32)


def initial_prompt(
    init: str, length: int, backbone: Backbone, *, words: str, seed: int
) -> Float[np.ndarray, "prompt hidden"]:
    """Makes the prompt that training starts from.

    vocabulary  rows of the word table, sampled without replacement (Lester et al. 2021)
    words       rows of the tokens of `words`, repeated or cut to the length
    normal      normal vectors with the word table's mean and standard deviation
    uniform     uniform in [-0.5, 0.5]
    *.npy       an array of this shape
    FOLDER      of an adapter of PEFT's prompt tuning, or its id on the Hub

    Raises:
      InputError: the file cannot be read, or its array has another shape.
    """
    rng = np.random.default_rng(seed)
    if init == "vocabulary":
        return _rows(backbone, rng.choice(backbone.vocabulary_size, length, replace=False))
    if init == "words":
        ids = backbone.tokenize(words)
        if not ids:
            raise InputError(f"prompt.words={words!r}: needed is at least one word")
        return _rows(backbone, np.resize(ids, length))
    if init == "normal":
        mean, deviation = backbone.word_table_statistics()
        return (mean + deviation * rng.normal(size=(length, len(mean)))).astype(np.float32)
    if init == "uniform":
        return rng.uniform(-0.5, 0.5, (length, backbone.hidden_size)).astype(np.float32)
    prompt = _read_array(init) if init.endswith(".npy") else _read_adapter(init, backbone)
    if (
        prompt.shape != (length, backbone.hidden_size)
        or prompt.dtype.kind not in "fiu"
        or not np.isfinite(prompt).all()
    ):
        raise InputError(
            f"prompt.init={init!r}: the array has shape {prompt.shape} and type {prompt.dtype}; needed are finite"
            f" numbers of shape {(length, backbone.hidden_size)} (prompt.length, hidden size of {backbone.name})"
        )
    return prompt.astype(np.float32)


def _read_array(init: str) -> np.ndarray:
    try:
        return np.load(init, allow_pickle=False)
    except (OSError, ValueError, EOFError) as fault:
        raise InputError(f"prompt.init={init!r}: cannot read this array ({fault})") from fault


def _read_adapter(init: str, backbone: Backbone) -> np.ndarray:
    try:
        folder = hub.find_folder(init)
        if not (folder / peft.CONFIG).exists():
            raise InputError(f"no {peft.CONFIG} there")
        return peft.read_adapter(folder, backbone.name)
    except InputError as fault:
        raise InputError(f"prompt.init={init!r}: {fault}") from fault
