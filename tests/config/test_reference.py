"""docs/config.md is what the table of fields generates."""

from conftest import REPOSITORY

from spear_jax.config.reference import explain_fields


def test_the_page_is_current() -> None:
    assert (REPOSITORY / "docs" / "config.md").read_text() == explain_fields()
