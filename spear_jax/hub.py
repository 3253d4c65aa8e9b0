"""Downloads detectors, prompts and weights from the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath
from tqdm import tqdm

from spear_jax.errors import InputError

_DETECTOR_FILES = ["detector.json", "detector.safetensors", "adapter_config.json", "adapter_model.safetensors"]
REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"
ID = re.compile(rf"{REPOSITORY}(@[\w./-]+)?")  # 'user/name', 'user/name@revision'
_TIMEOUT = 5  # seconds


class UnreachableError(InputError):
    """The Hub does not answer, for example without a network."""


class _NoBar(tqdm):
    """A progress bar that is never shown."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"disable": True})


def download(repository: str, revision: str, files: Sequence[str], *, progress: bool = True) -> Path:
    """Downloads files of a repository into the Hugging Face cache, unless they are there already.

    `files` are names or glob patterns; those that the repository lacks are skipped.

    Returns:
      The folder of the snapshot; its name is the commit.

    Raises:
      UnreachableError: the Hub does not answer.
      InputError: the repository or revision does not exist, needs a login, or the download broke off.
    """
    from huggingface_hub import HfApi, constants, errors, snapshot_download  # slow to import

    try:
        # Fails at once without a network, where a download would retry for half a minute.
        HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        # The Hub answers a request for a private repository in the same way.
        raise InputError(
            f"the Hub {constants.ENDPOINT} has no readable {revision!r} of {repository!r} ({type(error).__name__}); a"
            " private repository needs `hf auth login`"
        ) from error
    except Exception as error:  # from the Hub's client, whichever HTTP library it uses, or the system
        raise UnreachableError(f"the Hub {constants.ENDPOINT} cannot be reached ({_reason(error)})") from error
    bar: type[tqdm] | None = None if progress else _NoBar
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(files), etag_timeout=_TIMEOUT, tqdm_class=bar
        )
        return Path(folder)
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repository!r} is gated: accept its licence at https://huggingface.co/{repository} and log in"
            " (`hf auth login`, or the environment variable HF_TOKEN)"
        ) from error
    except Exception as error:
        raise InputError(
            f"the download of {repository!r} from the Hub {constants.ENDPOINT} broke off ({_reason(error)}); the same"
            " command resumes it"
        ) from error


def find_folder(name: str) -> epath.Path:
    """Finds the folder of a detector or prompt, downloading it if it is on the Hub.

    Args:
      name: a path; or, if no such path exists, 'user/name' or 'user/name@revision'.

    Returns:
      The path, or the folder of the snapshot, whose name is the commit.

    Raises:
      InputError: the repository does not exist, or is neither reachable nor in the Hugging Face cache.
    """
    path = epath.Path(name)
    if path.exists() or not ID.fullmatch(name):
        return path
    from huggingface_hub import constants, snapshot_download

    repository, _, revision = name.partition("@")
    revision = revision or "main"
    try:
        return epath.Path(download(repository, revision, _DETECTOR_FILES, progress=False))
    except UnreachableError as unreachable:
        try:
            folder = snapshot_download(
                repository, revision=revision, allow_patterns=_DETECTOR_FILES, local_files_only=True
            )
            return epath.Path(folder)
        except Exception as error:
            raise InputError(
                f"{name}: no such folder; {unreachable}, and the cache {constants.HF_HUB_CACHE} does not have it"
            ) from error
    except InputError as error:
        raise InputError(f"{name}: no such folder; {error}") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
