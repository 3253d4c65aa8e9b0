"""The prompt that training starts from."""

import numpy as np
import pytest

from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.errors import InputError
from spear_jax.model.prompt import initial_prompt


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("random:tiny")


@pytest.mark.parametrize("init", ["vocabulary", "words", "normal", "uniform"])
def test_each_prompt_is_what_its_name_says(backbone, init):
    prompt = initial_prompt(init, 5, backbone, words="1 2", seed=0)
    assert prompt.shape == (5, backbone.hidden_size)
    rows = backbone.word_rows(np.arange(backbone.vocabulary_size))
    is_row = [bool((row == rows).all(axis=1).any()) for row in prompt]
    assert all(is_row) == (init in ("vocabulary", "words"))
    if init == "words":
        np.testing.assert_array_equal(prompt[0], prompt[2])
    if init == "uniform":
        assert np.abs(prompt).max() <= 0.5


def test_a_prompt_file_must_fit(backbone, tmp_path):
    good, wrong, bad = (tmp_path / f"{name}.npy" for name in ("good", "wrong", "bad"))
    expected = np.ones((5, backbone.hidden_size), np.float32)
    np.save(good, expected)
    np.save(wrong, np.ones((4, backbone.hidden_size)))
    np.save(bad, np.full((5, backbone.hidden_size), np.nan))
    np.testing.assert_array_equal(initial_prompt(str(good), 5, backbone, words="", seed=0), expected)
    for file in (wrong, bad):
        with pytest.raises(InputError, match=r"expected finite numbers of shape \(5, 32\)"):
            initial_prompt(str(file), 5, backbone, words="", seed=0)
