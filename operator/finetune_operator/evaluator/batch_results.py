"""The answers of one model to all rows, on a volume, by however many attempts.

Lines are appended as the answers come, and each attempt goes on from those that are whole: a row is answered once, and
what a killed writer left of a line is cut off. Once all are there they are written again in the order of the rows, so
that the files of two models can be read side by side and the same answers have the same digest.
"""

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from finetune_operator.contract.batch_inference import ResultFile
from finetune_operator.core.batch_inference import Outcome, read_outcome
from finetune_operator.store import durable

NOT_YET = -1


class PartialResults:
    """The lines so far; closed by leaving the `with` block. The caller alone may have them open."""

    def __init__(self, file: Path, rows: int) -> None:
        self._offsets = array("q", [NOT_YET]) * rows
        self._content = file.open("a+b")
        self._end = 0
        self._first_failed: tuple[int, str] | None = None
        self.done = self.failed = self.prompt_tokens = self.completion_tokens = 0
        self._recover()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._content.close()

    def __contains__(self, index: int) -> bool:
        return self._offsets[index] != NOT_YET

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, line: bytes) -> None:
        """Append one answer; from now on a killed process does not lose it."""
        outcome = read_outcome(line)
        if outcome is None:
            raise ValueError(f"no line of results: {line[:200]!r}")
        self._content.write(line)
        self._content.flush()
        self._count(outcome, len(line))

    def line(self, index: int) -> bytes | None:
        """Of one row, once it is answered."""
        if index not in self:
            return None
        self._content.seek(self._offsets[index])
        return self._content.readline()

    def publish(self, served_name: str, file: Path, name: str) -> ResultFile:
        """All rows in their order under the final name, durably; again the same if it was done before."""
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f".{file.name}.tmp")
        digest, size = hashlib.sha256(), 0
        with temporary.open("wb") as out:
            for line in self._in_order():
                out.write(line)
                digest.update(line)
                size += len(line)
        durable.sync(temporary)
        temporary.rename(file)
        durable.sync(file.parent)
        return ResultFile(
            served_name=served_name,
            name=name,
            rows=self.done,
            failed=self.failed,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            size_bytes=size,
            sha256=digest.hexdigest(),
            first_error=self._first_failed[1] if self._first_failed else None,
        )

    def _in_order(self) -> Iterator[bytes]:
        for offset in self._offsets:
            self._content.seek(offset)
            yield self._content.readline()

    def _recover(self) -> None:
        """Whatever follows a line that is torn is asked for again."""
        self._content.seek(0)
        for line in self._content:
            outcome = read_outcome(line)
            if outcome is None or not 0 <= outcome.index < len(self._offsets) or outcome.index in self:
                break
            self._count(outcome, len(line))
        self._content.truncate(self._end)

    def _count(self, outcome: Outcome, length: int) -> None:
        self._offsets[outcome.index] = self._end
        self._end += length
        self.done += 1
        self.prompt_tokens += outcome.prompt_tokens
        self.completion_tokens += outcome.completion_tokens
        if outcome.error is None:
            return
        self.failed += 1
        if self._first_failed is None or outcome.index < self._first_failed[0]:
            self._first_failed = (outcome.index, outcome.error)
