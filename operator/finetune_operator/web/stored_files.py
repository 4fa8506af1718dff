"""Where the api keeps what trainings fetch from it: uploaded files, and exported datasets."""

import re
from typing import IO, NamedTuple, cast, get_args

from finetune_operator.store.exported_datasets import FileName, UnknownDataset
from finetune_operator.store.uploaded_files import DATA_NAME, FILE_ID, UnknownFile, UploadedFiles
from finetune_operator.web.dataset_exports import datasets_of
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Services

DIRECTORY = "files"


class Stored(NamedTuple):
    """A file to send and to close."""

    content: IO[bytes]
    sha256: str


def files_of(services: Services) -> UploadedFiles:
    """Beside the datasets, among which its name is none. Raises a problem where no place is set."""
    return UploadedFiles(datasets_of(services).directory / DIRECTORY)


def stored_file(services: Services, namespace: str, identity: str, name: str) -> Stored:
    """Raises 404."""
    try:
        if re.fullmatch(FILE_ID, identity):
            files = files_of(services)
            if name != DATA_NAME:
                raise UnknownFile(identity)
            sha256 = files.find(namespace, identity).sha256
            return Stored(files.opened(namespace, identity), sha256)
        if name not in get_args(FileName):
            raise UnknownDataset(identity)
        _require_home(services, namespace)
        part, datasets = cast(FileName, name), datasets_of(services)
        sha256 = datasets.find(identity).file(part).sha256
        return Stored(datasets.opened(identity, part), sha256)
    except (UnknownFile, UnknownDataset):
        raise Problem(404, "unknown-file", f"there is no {identity}/{name} for namespace {namespace}") from None


def _require_home(services: Services, namespace: str) -> None:
    """Exported datasets are ratings of all namespaces, and their ids are told where one was trained on. Raises 404."""
    settings = services.settings
    claimed = (settings.datasets_claim or "").partition("/")[0]
    if settings.namespaces != (namespace,) and namespace != claimed:
        raise Problem(
            404,
            "unknown-file",
            f"no exported dataset is given to namespace {namespace}, since it holds ratings of all: upload it there as "
            "a file, or train in the namespace of api.datasets.claimName",
        )
