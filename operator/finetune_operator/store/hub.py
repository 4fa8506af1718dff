"""The Hugging Face hub, or a mirror of it: what a revision means, what a model consists of, its files.

The library's errors become what they mean to the user: `Refused` is something to change, `Trouble` something to wait
for.
"""

import errno
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.core.redaction import blanked

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

# What Transformers and vLLM read of a causal language model; not its pickles, and not what is in subdirectories, which
# holds the same weights once more in other formats.
WANTED_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
UNWANTED_FILES = ("*/*", "consolidated*.safetensors")
CONFIG_NAME = "config.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
PARALLEL_DOWNLOADS = 4
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
LAST_WORDS_MAX_CHARACTERS = 1000


class Trouble(Exception):
    """What another try may well get over: the network, a hub that is down, a file that arrived damaged."""


@dataclass(frozen=True)
class Wanted:
    """One model, and from where; the token stays out of what is logged."""

    id: str
    revision: str
    endpoint: str
    token: str | None

    @property
    def title(self) -> str:
        return f"{self.id} at revision {self.revision}"


def resolve(wanted: Wanted) -> str:
    """The commit that the revision means now."""
    from huggingface_hub import HfApi

    with _told_plainly(wanted):
        commit = HfApi(endpoint=wanted.endpoint, token=wanted.token or False).model_info(
            wanted.id, revision=wanted.revision
        ).sha  # fmt: skip
    if commit is None or not COMMIT.fullmatch(commit):
        raise Trouble(f"{wanted.endpoint} named no commit for {wanted.title}")
    return commit


def download(wanted: Wanted, commit: str, destination: Path, files: Sequence[str] = WANTED_FILES) -> None:
    """The model's files, those left out that are there already; the library keeps its notes in `.cache` beside them."""
    from huggingface_hub import snapshot_download

    with _told_plainly(wanted):
        snapshot_download(
            wanted.id,
            revision=commit,
            local_dir=destination,
            allow_patterns=list(files),
            ignore_patterns=list(UNWANTED_FILES),
            endpoint=wanted.endpoint,
            token=wanted.token or False,
            max_workers=PARALLEL_DOWNLOADS,
        )


def list_files(wanted: Wanted, commit: str) -> "tuple[RepoFile, ...]":
    """What is to be downloaded; refused where that is no model that Transformers and vLLM could load."""
    from huggingface_hub import HfApi, RepoFile

    with _told_plainly(wanted):
        tree = HfApi(endpoint=wanted.endpoint, token=wanted.token or False).list_repo_tree(
            wanted.id, recursive=True, revision=commit
        )
        everything = [entry for entry in tree if isinstance(entry, RepoFile)]
    files = tuple(file for file in everything if _is_wanted(file.path))
    names = {file.path for file in files}
    if CONFIG_NAME not in names:
        raise Refused.because(
            FailureReason.BASE_MODEL_NOT_FOUND,
            f"{wanted.id} has no {CONFIG_NAME}, so it is not a model in Hugging Face format",
            "name another repository in spec.baseModel.source.hub.id, such as the one that this was made from",
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise Refused.because(
            FailureReason.BASE_MODEL_NOT_FOUND,
            f"{wanted.id} has no weights in safetensors, and pickled ones are not taken: loading them runs code",
            "name a repository or revision with safetensors, or convert them and use spec.baseModel.source.volume",
        )
    return files


def no_space(fact: str) -> Refused:
    """Said before a download that would not fit, and by one that did not."""
    return Refused.because(
        FailureReason.BASE_MODEL_UNAVAILABLE,
        f"the volume of base models is too small: {fact}",
        "enlarge it, or delete directories below hub/ that no ModelVersion names, then create the job anew; a served "
        "version tries again by itself",
    )


def _is_wanted(path: str) -> bool:
    """By the library's own rule for the two lists."""
    return any(fnmatch(path, wanted) for wanted in WANTED_FILES) and not any(
        fnmatch(path, unwanted) for unwanted in UNWANTED_FILES
    )


@contextmanager
def _told_plainly(wanted: Wanted) -> Iterator[None]:
    """The library's errors as what they mean to the user: something to change, or something to wait for."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, XetDownloadError

    try:
        yield
    except HFValidationError as error:
        raise _unknown_id(wanted, str(error).splitlines()[0]) from error
    except LocalEntryNotFoundError as error:
        cause = error.__cause__ or error
        raise (_refusal(wanted, cause) or _trouble(wanted, cause)) from error
    except HfHubHTTPError as error:
        raise (_refusal(wanted, error) or _trouble(wanted, error)) from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError, XetDownloadError, json.JSONDecodeError) as error:
        raise _trouble(wanted, error) from error
    except OSError as error:
        if error.errno in FULL_DISK:
            raise no_space(f"{wanted.id} does not fit: {error.strerror}") from error
        raise Trouble(f"{type(error).__name__}: {error}") from error


def _refusal(wanted: Wanted, error: BaseException) -> Refused | None:
    """Whether the hub said something that no other try will change."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            who = "the account of the token has no access" if wanted.token else "there is no token"
            return Refused.because(
                FailureReason.BASE_MODEL_UNAVAILABLE,
                f"{wanted.id} is gated, and {who}",
                f"accept its terms at {wanted.endpoint}/{wanted.id}, and name a token of that account in "
                "spec.baseModel.source.hub.tokenSecretRef",
            )
        case DisabledRepoError():
            return Refused.because(
                FailureReason.BASE_MODEL_UNAVAILABLE,
                f"{wanted.id} is disabled at {wanted.endpoint}",
                "name another model in spec.baseModel.source.hub.id",
            )
        case RevisionNotFoundError():
            return Refused.because(
                FailureReason.BASE_MODEL_NOT_FOUND,
                f"{wanted.id} has no revision {wanted.revision}",
                "correct spec.baseModel.source.hub.revision: a branch, a tag or a whole commit",
            )
        case RepositoryNotFoundError():
            return _unknown_id(wanted, f"there is no model {wanted.id} at {wanted.endpoint}, or it is private")
        case HfHubHTTPError() if error.response.status_code == 401 and not wanted.token:
            return _unknown_id(wanted, f"there is no model {wanted.id} at {wanted.endpoint}, or it is private")
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return Refused.because(
                FailureReason.BASE_MODEL_UNAVAILABLE,
                f"{wanted.endpoint} refused access to {wanted.id} ({error.response.status_code})",
                "name a valid token that may read it in spec.baseModel.source.hub.tokenSecretRef",
            )
        case HfHubHTTPError() if error.response.status_code == 404:
            return _unknown_id(wanted, f"there is no model {wanted.title} at {wanted.endpoint}")
        case _:
            return None


def _unknown_id(wanted: Wanted, fact: str) -> Refused:
    return Refused.because(
        FailureReason.BASE_MODEL_NOT_FOUND,
        fact,
        "correct spec.baseModel.source.hub.id"
        + ("" if wanted.token else ", or name a token in tokenSecretRef where the model is private"),
    )


def _trouble(wanted: Wanted, error: BaseException) -> Trouble:
    words = blanked(" ".join(str(error).split()), [wanted.token])[:LAST_WORDS_MAX_CHARACTERS]
    return Trouble(
        f"{wanted.endpoint} can't be reached or does not answer as it should: {words or type(error).__name__}"
    )
