"""docs/config.md says what the code says, of every field."""

from conftest import REPOSITORY

from spear_jax import config as configs
from spear_jax.config_reference import MEANINGS, page


def test_every_field_is_explained_and_the_page_is_current() -> None:
    assert MEANINGS.keys() == configs.flatten(configs.default_config()).keys()
    assert (REPOSITORY / "docs" / "config.md").read_text() == page()
