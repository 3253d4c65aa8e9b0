"""A stray quote swallows no rows, and live rows are those of the file, however the stream is cut."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_files import load_files, load_text

from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.file import TableFile
from spear_jax.data.tables.live import LiveTable
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.errors import InputError

ROWS = 60
OPTIONS = TableOptions(usual=Columns(values=("a", "b")), labelled=False)


def table(*notes: tuple[int, str], delimiter: str = ",", end: str = "\n") -> str:
    """Returns a table of whose notes some are given, by row."""
    cells = dict(notes)
    lines = ["a,b,note", *(f"{i % 7},{i * i % 11},{cells.get(i, 'ok')}" for i in range(ROWS))]
    return end.join(lines).replace(",", delimiter) + end


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    "notes", [((20, '"pump'),), ((20, '"pump'), (40, 'stops"')), ((20, '"two\nlines"'),), ((20, '"'),)]
)
def test_a_quoted_field_that_does_not_end_on_its_line_is_refused(
    tmp_path: Path, notes: tuple[tuple[int, str], ...], delimiter: str, end: str
) -> None:
    with pytest.raises(InputError, match="line 22: a field that opens with a quote does not end on that line"):
        load_text(tmp_path / "own.csv", table(*notes, delimiter=delimiter, end=end))


@pytest.mark.parametrize("note", ['5" pipe', 'a "" b', '"a, b; c"', '"5"" pipe"', '"a" b'])
def test_quotes_that_end_or_stand_inside_a_field_are_read(tmp_path: Path, note: str) -> None:
    series, _ = load_text(tmp_path / "own.csv", table((20, note), (40, note))).series
    assert series.values.tolist() == [i % 7 for i in range(ROWS)]


def test_a_stray_quote_swallows_no_intervals(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(table())
    marks = tmp_path / "marks.csv"
    marks.write_text('start,end,remark\n3,4,"leak\n10,12,fixed\n20,22,leak"\n')
    with pytest.raises(InputError, match=r"marks\.csv: .*line 2: a field that opens with a quote"):
        load_files(tmp_path / "own.csv", labels="intervals", intervals=str(marks))


class Pieces(io.FileIO):
    """A file that is read in pieces of the given sizes, again and again."""

    sizes: tuple[int, ...] = (1,)
    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        return super().read(min(size or 1, self.sizes[self.reads % len(self.sizes)]))


NOTES = st.sampled_from(('"a, b"', '5" pipe', '"a ""q"" b"', '"open', 'shut"', '"', '""', '"two\nlines"', "", '"a" b'))


@settings(
    deadline=None, max_examples=int(os.environ.get("SPEAR_EXAMPLES", "50")), suppress_health_check=list(HealthCheck)
)
@given(
    notes=st.dictionaries(st.integers(0, ROWS - 1), NOTES, max_size=3), sizes=st.lists(st.integers(1, 300), min_size=1)
)
def test_live_rows_are_those_of_the_file(tmp_path: Path, notes: dict[int, str], sizes: list[int]) -> None:
    path = tmp_path / "own.csv"
    path.write_text(table(*notes.items()))
    meant = [[i % 7, i * i % 11] for i in range(ROWS)]
    try:
        rows = TableFile(epath.Path(path), "own", OPTIONS).read()
        assert rows.values.tolist() == meant
        refused = ""
    except InputError as error:
        refused = str(error)
    raw = Pieces(path)
    raw.sizes = tuple(sizes)
    try:
        live = LiveTable(raw, lambda remark: None, OPTIONS)
    except InputError:
        assert refused
        return
    values = np.concatenate([np.zeros((0, 2)), *(rows.values for rows in live.chunks())]).tolist()
    assert values == meant[: len(values)]
    assert bool(live.error) == bool(refused) and (refused or len(values) == ROWS)
    first = min((row for row, note in notes.items() if note in ('"open', '"', '"two\nlines"')), default=ROWS)
    assert len(values) == first, "all rows before the quote are scored"
