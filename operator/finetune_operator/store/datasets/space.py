"""How much a dataset may take of its volume, and what is said when there is no more."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from finetune_operator.contract.failures import FailureReason, Refused

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def storage_exceeded(words: str) -> Refused:
    return Refused.because(
        FailureReason.STORAGE_EXCEEDED,
        f"there is no space left where the dataset is made: {words}",
        "enlarge the volume or delete what is no longer needed on it; a dataset takes up to three times its size while "
        "it is made",
    )


@contextmanager
def told_when_full(exceeded: Callable[[str], Refused] = storage_exceeded) -> Iterator[None]:
    """A full disk is the user's to change, and no error of the network or of the data. Raises `Refused`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise exceeded(error.strerror or str(error)) from None
        raise


def too_large(max_bytes: int) -> Refused:
    return Refused.because(
        FailureReason.STORAGE_EXCEEDED,
        f"the dataset has more than {max_bytes} bytes, which is dataset.maxBytes",
        "raise dataset.maxBytes (--max-bytes) if it is meant to be that large",
    )
