"""Bin embeddings: each kind is what its name says, at the word table's own scale."""

import numpy as np
import pytest

from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.fields import FIELDS
from spear_jax.errors import InputError
from spear_jax.model.embedding import bin_table
from spear_jax.report.introduction import describe_embedding

KINDS = FIELDS["embedding.kind"].allowed
N = 50
SETTINGS = {"length_scale": 0.2, "first_row": 100, "seed": 0}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("random:tiny")


@pytest.fixture(scope="module")
def minilm() -> Backbone:
    try:
        return load_backbone("sentence-transformers/all-MiniLM-L6-v2")
    except InputError as error:
        pytest.skip(f"the real weights are not available: {error}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_per_bin_and_one_for_missing_values(backbone, kind):
    table, notes = bin_table(kind, N, backbone, **SETTINGS)
    again, _ = bin_table(kind, N, backbone, **SETTINGS)
    assert table.shape == (N + 1, backbone.hidden_size)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    assert len(np.unique(table[:N], axis=0)) == N
    assert notes["kind"] == kind
    np.testing.assert_array_equal(table, again)
    np.testing.assert_array_equal(table[N], backbone.word_rows(np.array([backbone.special_ids["mask"]]))[0])


def test_each_kind_is_explained_in_words(backbone):
    explained = {
        kind: describe_embedding(bin_table(kind, N, backbone, **SETTINGS)[1], kind == "trained") for kind in KINDS
    }
    assert len(set(explained.values())) == len(KINDS)
    for kind, words in explained.items():
        assert words.endswith("; missing values use the row of [MASK]")
        assert ("; trained from there;" in words) == (kind == "trained")
        assert ("; frozen;" in words) == (kind != "trained")
        assert not set('{}"') & set(words)
    assert "a smooth function of the bin (length scale 0.2)" in explained["ordinal"]
    assert "from number 100" in explained["consecutive"]
    assert "rows of the numbers 0 1 2 ... 49" in explained["numbers"]


def test_numbers_are_the_rows_of_their_tokens_and_split_ones_are_counted(minilm):
    table, notes = bin_table("numbers", 2000, minilm, **SETTINGS)
    seven = minilm.word_rows(np.array(minilm.tokenize("7")))
    np.testing.assert_array_equal(table[7], seven[0])
    split = [n for n in range(2000) if len(minilm.tokenize(str(n))) > 1]
    assert notes["numbers_of_several_tokens"] == len(split) > 0
    rows = minilm.word_rows(np.array(minilm.tokenize(str(split[0]))))
    weights = np.arange(len(rows), 0, -1)
    np.testing.assert_allclose(table[split[0]], weights @ rows / weights.sum(), rtol=1e-5, atol=1e-7)
    assert notes["tokens"][7] == ["7"]
    assert [len(tokens) > 1 for tokens in notes["tokens"]] == [n in split for n in range(2000)]


def test_ordinal_is_smooth_and_has_the_scale_of_the_word_table(minilm):
    table = bin_table("ordinal", 100, minilm, **SETTINGS)[0][:100]
    mean, deviation = minilm.word_table_statistics
    centred = (table - mean) / deviation
    np.testing.assert_allclose(centred.std(), 1, atol=0.1)
    similar = centred @ centred.T / centred.shape[1]
    x = (np.arange(100) + 0.5) / 100
    kernel = np.exp(-((x[:, None] - x) ** 2) / (2 * SETTINGS["length_scale"] ** 2))
    assert np.abs(similar - kernel).max() < 0.25  # 384 random features of the Gaussian kernel
    assert np.abs(similar - kernel).mean() < 0.06


def test_trained_starts_as_ordinal(backbone):
    trained, ordinal = (bin_table(kind, N, backbone, **SETTINGS)[0] for kind in ("trained", "ordinal"))
    np.testing.assert_array_equal(trained, ordinal)


def test_random_has_the_mean_and_deviation_of_the_word_table(minilm):
    table = bin_table("random", 5000, minilm, **SETTINGS)[0][:5000]
    mean, deviation = minilm.word_table_statistics
    np.testing.assert_allclose(table.mean(axis=0), mean, atol=5 * deviation.max() / 70)
    np.testing.assert_allclose(table.std(axis=0), deviation, rtol=0.08)


def test_consecutive_and_spread_are_rows_of_the_vocabulary(backbone):
    consecutive = bin_table("consecutive", N, backbone, **SETTINGS)[0]
    np.testing.assert_array_equal(consecutive[:N], backbone.word_rows(np.arange(100, 100 + N)))
    spread = bin_table("spread", N, backbone, **SETTINGS)[0]
    np.testing.assert_array_equal(spread[0], backbone.word_rows(np.array([0]))[0])
    np.testing.assert_array_equal(spread[N - 1], backbone.word_rows(np.array([backbone.vocabulary_size - 1]))[0])
