"""What versions have answered, as gateways tell the api: sums, so that a report that comes twice counts once."""

from datetime import date
from typing import Annotated

from pydantic import Field

from finetune_operator.contract.base import Report

USAGE_MAX_PER_REPORT = 1000
COUNT_MAX = 2**53

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]


class DayOfUsage(Report):
    """All that one gateway process has passed on to one ModelVersion on one day (UTC), since the process began.

    `calls` were answered whole and `failed` were not, a client's own mistakes and departures aside. Tokens are of the
    `calls_with_tokens` whose engine told them: a stream does so only where its client asks for it.
    """

    version_uid: Annotated[str, Field(min_length=1, max_length=64)]
    day: date
    calls: Count = 0
    failed: Count = 0
    calls_with_tokens: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0


class UsageReport(Report):
    """Body of `USAGE_PATH`; `reporter` is one gateway process, whose numbers only grow."""

    reporter: Annotated[str, Field(min_length=1, max_length=64)]
    days: Annotated[tuple[DayOfUsage, ...], Field(max_length=USAGE_MAX_PER_REPORT)]
