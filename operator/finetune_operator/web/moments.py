"""Places in lists of what is in no cluster, by when it was made and its id, for their cursors.

Pure.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import Query

from finetune_operator.web.pages import AFTER_MAX_LENGTH, CURSOR_PREFIX
from finetune_operator.web.problems import Problem

ID = re.compile(r"[!-~]{1,128}")
AfterMoment = Annotated[
    str | None,
    Query(
        max_length=AFTER_MAX_LENGTH,
        pattern=rf"^{CURSOR_PREFIX}[-_A-Za-z0-9]+$",
        description="`next` of the page before",
    ),
]


class Moment(NamedTuple):
    """When something was made, and its id, which tells those of one moment apart."""

    time: datetime
    id: str

    def __str__(self) -> str:
        """As a cursor."""
        text = f"{self.time.isoformat()} {self.id}"
        return CURSOR_PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_moment(after: str) -> Moment:
    """Raises 422 for what is no cursor."""
    text = after.removeprefix(CURSOR_PREFIX)
    try:
        said, _, identity = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(" ")
        time = datetime.fromisoformat(said)
        if time.tzinfo is None or not ID.fullmatch(identity):
            raise _wrong()
        # The database's drivers do the same, where it can't be told from a failure of theirs.
        time = time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _wrong() from None
    return Moment(time, identity)


def _wrong() -> Problem:
    return Problem(422, "wrong-cursor", "after: this is no `next` of a page; begin with the first page")
