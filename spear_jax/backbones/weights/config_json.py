"""Reads fields of a Hugging Face config.json; what is wrong is said with the file and the field."""

from collections.abc import Mapping, Sequence
from typing import Any

from spear_jax.errors import InputError


class Fields:
    """The object in a config.json, or one inside it. A field that is null counts as absent, as in transformers."""

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        """Wraps an object.

        Args:
          content: the JSON object.
          where: the file, for messages.
        """
        self._content, self.where = content, where

    def get(self, name: str, default: Any = None) -> Any:
        """A field as it stands there."""
        value = self._content.get(name)
        return default if value is None else value

    def _needed(self, name: str, default: Any) -> Any:
        value = self.get(name, default)
        if value is None:
            raise InputError(f"{self.where}: the field {name!r} is missing")
        return value

    def whole(self, name: str, default: int | None = None, least: int = 1) -> int:
        """A whole number.

        Raises:
          InputError: it is missing and has no default, or is something else.
        """
        value = self._needed(name, default)
        if type(value) is not int or value < least:
            raise InputError(f"{self.where}: {name} = {value!r}, must be a whole number from {least} up")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number.

        Raises:
          InputError: it is missing and has no default, or is something else.
        """
        value = self._needed(name, default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise InputError(f"{self.where}: {name} = {value!r}, must be a number above 0")
        return float(value)

    def small(self, name: str, default: float | None = None) -> float:
        """A number between 0 and 1, such as the epsilon of a norm.

        Raises:
          InputError: it is missing and has no default, or is something else.
        """
        value = self.number(name, default)
        if value >= 1:
            raise InputError(f"{self.where}: {name} = {value!r}, must be between 0 and 1")
        return value

    def cap(self, name: str, default: float) -> float:
        """A bound; 0, no bound, where the field is null.

        Raises:
          InputError: it is something else.
        """
        if name in self._content and self._content[name] is None:
            return 0.0
        return self.number(name, default) if self.get(name, default) else 0.0

    def flag(self, name: str, default: bool) -> bool:
        """True or false.

        Raises:
          InputError: it is something else.
        """
        value = self.get(name, default)
        if type(value) is not bool:
            raise InputError(f"{self.where}: {name} = {value!r}, must be true or false")
        return value

    def choice(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        """One of several words.

        Raises:
          InputError: it is missing and has no default, or is another word.
        """
        value = self._needed(name, default)
        if value not in allowed:
            raise InputError(
                f"{self.where}: {name} = {value!r} is not supported (supported: {', '.join(map(repr, allowed))})"
            )
        return value

    def only(self, name: str, supported: Any) -> None:
        """Refuses any value but one; the field may be absent.

        Raises:
          InputError: another value.
        """
        if self.get(name, supported) != supported:
            raise InputError(f"{self.where}: {name} = {self.get(name)!r} is not supported (supported: {supported!r})")

    def inner(self, name: str) -> "Fields | None":
        """An object inside this one, if there is one.

        Raises:
          InputError: there is something else.
        """
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise InputError(f"{self.where}: {name} = {value!r}, must be an object")
        return Fields(value, f"{self.where}: {name}")
