"""docs/config.md says what the code says, of every field."""

from conftest import REPOSITORY

from spear_jax.config import fields, reading
from spear_jax.config.fields import MEANINGS
from spear_jax.config.reference import page


def test_every_field_is_explained_and_the_page_is_current() -> None:
    assert MEANINGS.keys() == reading.flatten(fields.default_config()).keys()
    assert (REPOSITORY / "docs" / "config.md").read_text() == page()
