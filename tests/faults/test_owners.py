"""A folder has one owner at a time; what others put there is never touched."""

import json
import os
from pathlib import Path

import pytest
from conftest import Run, Spear, check_refusal, quick, results
from etils import epath

from spear_jax.errors import InputError
from spear_jax.storage import OwnedFolder


def own(folder: Path, mode: str = "score") -> OwnedFolder:
    return OwnedFolder(epath.Path(folder), mode)


def test_the_second_one_is_told_who_the_first_is(spear: Spear, tmp_path: Path) -> None:
    with own(tmp_path / "run").locked():
        second = spear(*quick(tmp_path / "run"))
    check_refusal(second, f"--workdir={tmp_path / 'run'}: in use by process {os.getpid()} on ", " since 20")


def test_a_lock_leaves_nothing_behind_and_keeps_what_is_there(tmp_path: Path) -> None:
    with own(tmp_path / "a" / "b").locked():
        assert json.loads((tmp_path / "a" / "b" / ".spear_jax.lock").read_text())["pid"]
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="bad row"), own(tmp_path / "mine").locked() as folder:
        folder.begin()
        (tmp_path / "mine" / "photo.jpg").write_text("put here meanwhile")
        raise InputError("bad row")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"photo.jpg", ".spear_jax.began.score"}


def test_only_the_mode_that_began_goes_on(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), own(tmp_path).locked() as folder:
        folder.begin()
        (tmp_path / "alarms.csv").write_text("")
        raise OSError("full")
    with pytest.raises(InputError), own(tmp_path).locked() as folder:  # a look that ends badly takes nothing away
        assert folder.abandoned
        raise InputError("no such detector")
    with own(tmp_path, "export").locked() as folder:
        assert not folder.abandoned and not folder.is_new()
    with own(tmp_path).locked() as folder:
        assert folder.abandoned
        folder.begin()
    with own(tmp_path).locked() as folder:
        assert not folder.abandoned


def test_half_written_files_of_killed_processes_do_not_count_and_are_removed(
    spear: Spear, finished: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    leftovers = [run / ".config.json.01234567.unfinished", run / "detector" / ".README.md.89abcdef.unfinished"]
    run.mkdir()
    leftovers[0].write_text('{"seed"')  # killed before the first file was whole
    assert own(run).is_new()
    (run / "detector").mkdir()
    (run / "config.json").write_text((finished.workdir / "config.json").read_text())
    leftovers[1].write_text("")
    outcome = spear(*quick(run, {"controls.head_only": "true"}))
    assert outcome.code == 0, outcome.err
    assert results(run)["test"] == results(finished.workdir)["test"]
    assert not list(run.rglob(".*"))
