"""What is left out of a dataset: counted by reason, the first few shown in the report, all named in a file."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

DROPPED_SHOWN = 5
SHOWN_ROW_MAX_CHARACTERS = 24
DROPPED_NAME = "dropped.jsonl"
# Forty megabytes of names, and no more, where nearly all of a large table is left out.
NAMED_MAX_ROWS = 1_000_000
NAMED_ROW_MAX_CHARACTERS = 256


class Dropped:
    """Counts what is left out, remembers the first few rows of each reason, and writes all of them to a file.

    A line of it is {"reason": ..., "row": ..., "rows": ...}, `rows` being how many are counted by this one. The
    `row` of duplicates is the one that was taken, as its line: train.jsonl:12. The last lines may have none: what was
    too much to be named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._rows: dict[str, list[str]] = {}
        self._named: Counter[str] = Counter()
        self._file = path.open("w", encoding="utf-8")

    def add(self, reason: str, row: str, count: int = 1) -> None:
        self.counts[reason] += count
        shown = self._rows.setdefault(reason, [])
        if len(shown) < DROPPED_SHOWN:
            shown.append(row[:SHOWN_ROW_MAX_CHARACTERS])
        if self._named.total() < NAMED_MAX_ROWS:
            self._named[reason] += count
            self._write({"reason": reason, "row": row[:NAMED_ROW_MAX_CHARACTERS], "rows": count})

    def finish(self) -> None:
        """Write what was counted alone."""
        for reason, count in sorted((self.counts - self._named).items()):
            self._write({"reason": reason, "rows": count})
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def rows(self) -> dict[str, tuple[str, ...]]:
        return {reason: tuple(rows) for reason, rows in sorted(self._rows.items())}

    def _write(self, line: Mapping[str, str | int]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
