"""Builds the wheel; installed alone, it runs the quickstart from an empty folder."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import CONFIGS, REPOSITORY

TREE = ("spear_jax", "configs", "pyproject.toml", "README.md", "LICENSE")


def call(*words: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """Runs this Python in a folder."""
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def builds_here() -> bool:
    """Returns whether the installed setuptools is new enough to build without a download."""
    if not importlib.util.find_spec("setuptools"):
        return False
    return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel from a copy: setuptools leaves a build/ folder behind that may go stale."""
    if not importlib.util.find_spec("pip"):
        pytest.skip("there is no pip here")
    folder = tmp_path_factory.mktemp("wheel")
    for name in TREE:
        place = REPOSITORY / name
        if place.is_dir():
            shutil.copytree(place, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif place.exists():
            shutil.copy(place, folder / "tree" / name)
    words = ["-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps", "./tree", "-w", "."]
    built = call(*words, *(["--no-build-isolation"] if builds_here() else []), cwd=folder)
    if built.returncode and not builds_here() and "Could not find a version" in built.stderr:
        pytest.skip("no setuptools >= 77 here, and no package index to get one from")
    assert built.returncode == 0, built.stdout + built.stderr
    (built_wheel,) = folder.glob("*.whl")
    return built_wheel


def test_wheel_holds_every_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        checksums = archive.read("spear_jax/data/sources/nasa/checksums.txt").decode()
    assert len(checksums.splitlines()) == 165
    assert "spear_jax/py.typed" in names
    templates = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "spear_jax").rglob("templates/*")}
    assert len(templates) == 4
    assert templates <= names


def test_wheel_holds_every_module_and_config_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packaged = {name for name in archive.namelist() if name.endswith(".py")}
    modules = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "spear_jax").rglob("*.py")}
    experiments = {f"spear_jax/configs/{file.relative_to(CONFIGS)}" for file in CONFIGS.rglob("*.py")}
    assert packaged == modules | experiments


@pytest.mark.one_python
@pytest.mark.landing
@pytest.mark.slow
def test_installed_wheel_runs_the_quickstart_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    words = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-index"]
    installed = call(*words, "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr

    env = {**os.environ, "PYTHONPATH": str(site)}
    where = call("-c", "import spear_jax; print(spear_jax.__file__)", cwd=empty, env=env)
    assert where.stdout.strip() == str(site / "spear_jax" / "__init__.py")

    flags = ["--config=configs/quickstart.py:debug", "--workdir=run"]
    flags += ["--config.data.synthetic.series=6", "--config.data.synthetic.length=256"]
    ran = call("-m", "spear_jax.main", *flags, cwd=empty, env=env)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert [path.name for path in empty.iterdir()] == ["run"]
    content = json.loads((empty / "run" / "results.json").read_text())
    assert content["dataset"] == "synthetic"
    assert content["training"]["epochs_done"] == 2
    assert content["versions"]["spear_jax"] == "0.1.0"

    missing = call("-m", "spear_jax.main", "--config=configs/no.py", "--workdir=no", cwd=empty, env=env)
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert str(empty / "configs/no.py") in missing.stderr
    assert str(site / "spear_jax/configs/no.py") in missing.stderr
