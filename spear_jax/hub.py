"""Detectors and prompts on the Hugging Face Hub, by id.

Pulling is here; pushing is `hf upload user/name runs/x/detector`.
"""

import functools
import re
from pathlib import Path
from typing import Any

from etils import epath
from tqdm import tqdm

from spear_jax.errors import InputError

FILES = ["detector.json", "detector.safetensors", "adapter_config.json", "adapter_model.safetensors"]


_SECONDS = 5  # until the Hub counts as unreachable


def is_id(name: str) -> bool:
    """True for 'user/name' and 'user/name@revision'."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", name) is not None


def local(name: str) -> epath.Path:
    """A folder as it is; where there is none of this name and it reads as a Hub id, the snapshot pulled from the Hub.

    Args:
      name: a path, or 'user/name' or 'user/name@revision'.

    Returns:
      The folder; that of a snapshot has its commit as its name.

    Raises:
      InputError: a Hub id that is not there, or cannot be pulled now and is not in the Hugging Face cache.
    """
    path = epath.Path(name)
    return path if path.exists() or not is_id(name) else epath.Path(_pull(name))


class _Silent(tqdm):
    """Files of some kilobytes need no progress bar."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"disable": True})


def _pull(name: str) -> Path:
    from huggingface_hub import HfApi, constants, errors, snapshot_download  # a local folder needs none of it

    repository, _, revision = name.partition("@")
    revision = revision or "main"
    snapshot = functools.partial(
        snapshot_download, repository, revision=revision, allow_patterns=FILES, tqdm_class=_Silent
    )
    where = f"{name}: no such folder here, and the Hub {constants.ENDPOINT}"
    try:
        # Without a network this fails at once, where a download would retry for half a minute.
        HfApi().model_info(repository, revision=revision, timeout=_SECONDS)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as fault:
        # The Hub answers so for a private repository too, and for a gated one where nobody is logged in.
        raise InputError(
            f"{where} has no {revision!r} of {repository!r} that may be read ({type(fault).__name__});"
            " a private one needs `hf auth login`"
        ) from fault
    except Exception as fault:  # of the Hub's client, the HTTP library that it happens to use, or the system
        try:
            return Path(snapshot(local_files_only=True))
        except Exception as missing:
            raise InputError(
                f"{where} cannot be asked ({_reason(fault)}); the cache {constants.HF_HUB_CACHE} does not have it"
            ) from missing
    try:
        return Path(snapshot(etag_timeout=_SECONDS))
    except Exception as fault:
        raise InputError(
            f"{name}: cannot be pulled from the Hub {constants.ENDPOINT} ({_reason(fault)}); the same command tries"
            " again"
        ) from fault


def _reason(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}".splitlines()[0]
