"""Where a page of rows begins, in an order from new to old, whatever was added or deleted meanwhile. Pure."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.orm import InstrumentedAttribute


class Mark(NamedTuple):
    """The last row of the page before."""

    time: datetime
    id: str


def beyond(
    time: InstrumentedAttribute[datetime], identity: InstrumentedAttribute[str], mark: Mark
) -> ColumnElement[bool]:
    """Whether a row comes after it, the newest first and those of one moment by their ids."""
    # The first condition is for an index of the times alone.
    return and_(time <= mark.time, or_(time < mark.time, identity > mark.id))
