"""The end of a container's log as it is told to the api, where it outlives the pod."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field

from finetune_operator.contract.base import Report
from finetune_operator.contract.training import JobIdentity

LOG_MAX_LINES = 200
LOG_MAX_BYTES = 65_536
LINE_MAX_CHARACTERS = 8_192


def _keepable(text: str) -> str:
    """NUL is what PostgreSQL can't keep."""
    kept = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(kept.encode()) > LOG_MAX_BYTES:
        raise ValueError(f"the text has {len(kept.encode())} bytes in UTF-8; send its last {LOG_MAX_BYTES} at most")
    return kept


class LogTail(Report):
    """Body of `PROGRESS_LOG_PATH`: the last lines at `time`, which take the place of those told before."""

    job: JobIdentity
    container: Literal["prepare", "trainer"]
    text: Annotated[str, Field(max_length=LOG_MAX_BYTES), AfterValidator(_keepable)]
    time: AwareDatetime

    @classmethod
    def of(cls, job: JobIdentity, container: Literal["prepare", "trainer"], text: str, time: datetime) -> Self:
        """The last whole lines of a text, as many as there is room for."""
        lines = [
            _shortened(line) for line in text.replace("\0", "\N{REPLACEMENT CHARACTER}").splitlines()[-LOG_MAX_LINES:]
        ]
        room, first = LOG_MAX_BYTES, len(lines)
        while first and (room := room - len(lines[first - 1].encode()) - 1) >= 0:
            first -= 1
        return cls(job=job, container=container, text="".join(f"{line}\n" for line in lines[first:]), time=time)


def _shortened(line: str) -> str:
    clean = line.encode(errors="replace").decode()
    return clean if len(clean) <= LINE_MAX_CHARACTERS else f"{clean[:LINE_MAX_CHARACTERS]}..."
