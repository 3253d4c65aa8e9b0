"""Refuses quoted fields of a CSV that do not end on their line: a stray quote would swallow all rows up to the next."""

import io
import re


class OneLineFields(io.RawIOBase):
    """A CSV, open for reading, in which every field ends on the line that it begins on."""

    def __init__(self, file: io.BufferedIOBase, delimiter: str) -> None:
        """Starts before the first line."""
        self._file, self._begun, self._lines = file, b"", 0
        sign = re.escape(delimiter)
        field = rf'(?: *+"(?:[^"\r\n]++|"")*+"|(?! *"))[^{sign}\r\n]*+'
        self._whole_lines = re.compile(rf"(?:{field}(?:{sign}{field})*+(?:\r\n?|\n|\Z))*+".encode())

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads the next bytes.

        Raises:
          ValueError: a field does not end on its line.
        """
        piece = self._file.read(len(buffer))
        self._check(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def _check(self, piece: bytes) -> None:
        text = self._begun + piece
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1 if piece else len(text)
        lines, self._begun = text[:end], text[end:]
        if b'"' in lines:
            match = self._whole_lines.match(lines)
            assert match  # since no line is enough
            if match.end() < len(lines):
                line = self._lines + lines[: match.end()].count(b"\n") + 1
                raise ValueError(f"line {line}: a field that opens with a quote does not end on that line")
        self._lines += lines.count(b"\n")
