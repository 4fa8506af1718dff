"""An export reads and writes beside the thread that sorts: what ends one of them early ends it, with its cause."""

import os
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import pytest

from finetune_operator.store.datasets import engine, part_files
from finetune_operator.store.datasets.engine import line_blocks, opened, whole_lines
from finetune_operator.store.datasets.part_files import WAITING_MAX, PartWriter

ROWS = (1_000, 3_000_000)
"""What fits into a pipe, and more."""


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("blocks", [0, 1])
def test_reading_that_ends_early_is_no_end_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, blocks: int
) -> None:
    def broken(source: RawIOBase) -> Iterator[bytes]:
        for _, block in zip(range(blocks), whole_lines(source), strict=False):
            yield block
        raise MemoryError("no room for a line")

    monkeypatch.setattr(engine, "whole_lines", broken)
    with opened(tmp_path) as connection, pytest.raises(MemoryError, match="no room for a line"):
        list(line_blocks(connection, "SELECT range::VARCHAR FROM range($rows)", {"rows": rows}))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("writes", [1, WAITING_MAX + 3])
def test_writing_that_fails_is_told_and_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    def no_room(*_: object) -> None:
        raise MemoryError("no room to write")

    monkeypatch.setattr(part_files.Digest, "add", no_room)

    def write() -> None:
        with PartWriter(tmp_path / "train.jsonl") as part:
            for number in range(writes):
                part.write([os.urandom(part_files.KEY_BYTES) + f'{{"row": {number}}}'.encode()])

    with pytest.raises(MemoryError, match="no room to write"):
        write()
