"""Makes the vectors of the bins, the most important of the choices that the paper leaves open."""

import numpy as np
from jaxtyping import Float

from spear_jax.backbones import Backbone
from spear_jax.errors import InputError


def view_tables(
    views: int, kind: str, bins: int, backbone: Backbone, *, length_scale: float, first_row: int, seed: int
) -> tuple[Float[np.ndarray, "rows hidden"], dict[str, object]]:
    """Makes the tables of all views, one below the other.

    A step's vector is the sum of a row of each. It has the word table's mean and standard deviation, as the rows of a
    single view have: a row gives a share of the mean, and deviates from it by 1 / sqrt(views) of what it would alone.

    Returns:
      Tables and notes, see `bin_table`, whose other arguments these are.

    Raises:
      InputError: see `bin_table`; or there are several views and the kind would give all of them the same rows.
    """
    table, notes = bin_table(kind, bins, backbone, length_scale=length_scale, first_row=first_row, seed=seed)
    if views == 1:
        return table, notes
    if "tokens" in notes:
        raise InputError(
            f"config.embedding.kind={kind!r} must be ordinal, random or trained with several config.quantizer.views,"
            " each of which needs vectors of its own"
        )
    tables = [table]
    for view in range(1, views):
        own, _ = bin_table(kind, bins, backbone, length_scale=length_scale, first_row=first_row, seed=(seed, view))
        tables.append(own)
    mean, _ = backbone.word_table_statistics
    rows = [mean / views + (table[:-1] - mean) / np.sqrt(views) for table in tables]
    missing = table[-1:] / views  # of a missing value, which is missing in all views, the sum is the row itself
    return np.concatenate([part for own in rows for part in (own, missing)]).astype(np.float32), notes


def bin_table(
    kind: str, bins: int, backbone: Backbone, *, length_scale: float, first_row: int, seed: int | tuple[int, int]
) -> tuple[Float[np.ndarray, "rows hidden"], dict[str, object]]:
    """Makes the table of bin embeddings.

    numbers      rows of the strings "0" .. "N-1". If the tokenizer splits numbers into digits, "00" .. "99" are used,
                 and a number's row is the weighted mean of its tokens' rows, with weight k for the k-th from the right:
                 with equal weights, 12 and 21 would get the same row
    spread       N rows evenly spaced over the vocabulary
    consecutive  N rows from `first_row` on
    random       normal vectors with the word table's mean and standard deviation
    ordinal      smooth in the bin's value: random Fourier features (Rahimi and Recht 2007) of a Gaussian kernel,
                 with the word table's mean and standard deviation; neighbouring bins look alike
    trained      starts as 'ordinal' and is trained

    Args:
      kind: one of the above.
      bins: N.
      backbone: the model whose word table the rows come from.
      length_scale: width of the kernel of 'ordinal', as a share of the range of values.
      first_row: first row of 'consecutive'.
      seed: seed of the random kinds.

    Returns:
      table: N rows for the bins and a last one for missing values, the row of the first of [MASK], [UNK], padding and
        end of text that the vocabulary has.
      notes: facts about the rows, for reports.

    Raises:
      InputError: the vocabulary has too few rows, or no token for missing values.
    """
    notes: dict[str, object] = {"kind": kind}
    rng = np.random.default_rng(seed)
    if kind == "numbers":
        tokens = _number_tokens(backbone, bins)
        table = np.stack([_mean_row(backbone.word_rows(np.array(ids))) for ids in tokens])
        notes["numbers_of_several_tokens"] = sum(len(ids) > 1 for ids in tokens)
        notes["tokens"] = [[backbone.spelling(token) for token in ids] for ids in tokens]
    elif kind in ("spread", "consecutive"):
        if kind == "spread":
            rows = np.linspace(0, backbone.vocabulary_size - 1, bins).astype(int)
        else:
            rows = np.arange(first_row, first_row + bins)
            notes["first_row"] = first_row
        if rows[-1] >= backbone.vocabulary_size:
            raise InputError(
                f"embedding.first_row={first_row} with quantizer.bins={bins} runs past the"
                f" {backbone.vocabulary_size} rows of the vocabulary of {backbone.name}"
            )
        table = backbone.word_rows(rows)
        notes["tokens"] = [backbone.spelling(int(token)) for token in rows]
    else:
        mean, deviation = backbone.word_table_statistics
        if kind == "random":
            features = rng.normal(size=(bins, len(mean)))
        else:
            features = _fourier_features(bins, len(mean), length_scale, rng)
            notes["length_scale"] = length_scale
        table = mean + deviation * features
    special = backbone.special_ids
    missing = next((special[name] for name in ("mask", "unk", "pad", "eos") if name in special), None)
    if missing is None:
        raise InputError(f"the tokenizer of {backbone.name} has no token for missing values: no mask, unk, pad or eos")
    notes["missing"] = backbone.spelling(missing)
    return np.concatenate([table, backbone.word_rows(np.array([missing]))]).astype(np.float32), notes


def _number_tokens(backbone: Backbone, bins: int) -> list[list[int]]:
    """Tokenizes each number, with leading zeros if the tokenizer splits numbers into digits."""
    plain = [backbone.tokenize(str(n)) for n in range(bins)]
    width = len(str(bins - 1))
    padded = [backbone.tokenize(f"{n:0{width}d}") for n in range(bins)]
    if max(map(len, plain)) > 1 and all(len(ids) == width for ids in padded):
        return padded
    return plain


def _mean_row(rows: Float[np.ndarray, "tokens hidden"]) -> Float[np.ndarray, "hidden"]:
    weight = np.arange(len(rows), 0, -1, dtype=np.float32)
    return weight @ rows / weight.sum()


def _fourier_features(
    bins: int, hidden: int, length_scale: float, rng: np.random.Generator
) -> Float[np.ndarray, "bins hidden"]:
    """Returns cosines of unit variance whose inner products fall off with distance as exp(-(x-y)^2 / 2 l^2)."""
    centre = (np.arange(bins) + 0.5) / bins
    frequency = rng.normal(size=hidden) / length_scale
    phase = rng.uniform(0, 2 * np.pi, size=hidden)
    return np.sqrt(2) * np.cos(centre[:, None] * frequency + phase)
