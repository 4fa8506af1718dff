"""What the short texts stand for by which a batch is asked for: by REST, by flags and by the dashboard. Pure."""

import re

from finetune_operator.resources.batch_inference import BatchFormat
from finetune_operator.resources.dataset import STORED_PATH

UPLOAD_PREFIX = "file-"
FORMATS: dict[str, BatchFormat] = {each.value.lower(): each for each in BatchFormat}


def format_of(path: str) -> BatchFormat:
    """Of the rows at a dataset's path where nobody says it: an exported dataset's id begins with its format.

    Exports that a batch knows by no name of their own, such as pairs, have a prompt in each row.
    """
    if not re.fullmatch(STORED_PATH, path) or path.startswith(UPLOAD_PREFIX):
        return BatchFormat.PROMPTS
    return FORMATS.get(path.partition("-")[0], BatchFormat.PROMPTS)


def family_of_version(name: str) -> str:
    """The model that a version is one of."""
    return name.rpartition("-v")[0]
