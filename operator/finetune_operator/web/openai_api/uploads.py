"""A file in a form (multipart/form-data), written to the disk as it comes: no more of it is in memory than a block."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from finetune_operator.web.problems import Problem

FILE_PART = "file"
FIELD_MAX_BYTES = 256
FILENAME_MAX_CHARACTERS = 255
FORM_MAX_BYTES = 65_536
"""Of everything but the file."""
MAX_PARTS = 16
WRITTEN_BYTES = 1_048_576
LARGE = 413


class Received(NamedTuple):
    """A file that is on the disk, and the form's other fields."""

    filename: str
    bytes: int
    sha256: str
    fields: dict[str, str]


@dataclass(frozen=True)
class Bounds:
    """What an upload may take; `watch` is called for each block, and ends it by raising."""

    max_bytes: int
    idle_seconds: float
    watch: Callable[[], Awaitable[None]]


class _Form:
    """Takes the body in pieces, and gives the file's content in pieces."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.is_whole = False
        self._content: list[bytes] = []
        self._header_name, self._header_value = b"", b""
        self._disposition = b""
        self._name = ""
        self._value = b""
        self._parts = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def content(self, piece: bytes) -> bytes:
        """What of the file is in a piece of the body. Raises 400."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _bad_form(f"the form can't be read: {error}") from None
        found, self._content = b"".join(self._content), []
        return found

    def _begin(self) -> None:
        self._disposition, self._value = b"", b""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _bad_form(f"the form has more than {MAX_PARTS} parts: send purpose and file alone")

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        if self._name == FILE_PART:
            if self.filename is not None:
                raise _bad_form("send one file at a time")
            self.filename = options.get(b"filename", b"").decode(errors="replace") or "upload"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_PART:
            self._content.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > FIELD_MAX_BYTES:
            raise _bad_form(f"{self._name[:64]}: longer than {FIELD_MAX_BYTES} bytes")

    def _end_part(self) -> None:
        if self._name != FILE_PART:
            self.fields[self._name[:64]] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self.is_whole = True


async def received(content_type: str | None, body: AsyncIterator[bytes], target: Path, bounds: Bounds) -> Received:
    """Write the form's file. Raises problems."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise _bad_form("send multipart/form-data with the parts purpose and file")
    form, digest, size, taken = _Form(boundary), hashlib.sha256(), 0, 0
    waiting = bytearray()
    with await asyncio.to_thread(target.open, "wb") as file:
        async for piece in _in_time(body, bounds.idle_seconds):
            taken += len(piece)
            waiting += form.content(piece)
            if taken - size - len(waiting) > FORM_MAX_BYTES:
                raise _bad_form(f"the form has more than {FORM_MAX_BYTES} bytes besides its file: send purpose alone")
            if size + len(waiting) > bounds.max_bytes:
                detail = (
                    f"the file is larger than {bounds.max_bytes} bytes (FINETUNE_FILE_MAX_BYTES): send a smaller one"
                )
                raise Problem(LARGE, "large-file", detail)
            if len(waiting) >= WRITTEN_BYTES:
                await bounds.watch()
                size += await _written(file, digest.update, waiting)
        size += await _written(file, digest.update, waiting)
        await asyncio.to_thread(_sync, file)
    if not form.is_whole or form.filename is None:
        raise _bad_form("the form ended before its file was whole" if form.filename else "file: the form has no file")
    filename = "".join(each for each in form.filename if each.isprintable())[:FILENAME_MAX_CHARACTERS]
    return Received(filename, size, digest.hexdigest(), form.fields)


async def _written(file: IO[bytes], update: Callable[[bytes], None], waiting: bytearray) -> int:
    block = bytes(waiting)
    waiting.clear()
    update(block)
    return await asyncio.to_thread(file.write, block)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _in_time(body: AsyncIterator[bytes], idle_seconds: float) -> AsyncIterator[bytes]:
    """Raises 408 where nothing comes for too long."""
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                piece = await anext(body, None)
        except TimeoutError:
            detail = f"nothing of the file arrived within {idle_seconds:g} seconds; send it again"
            raise Problem(408, "slow-body", detail) from None
        if piece is None:
            return
        yield piece


def _bad_form(detail: str) -> Problem:
    return Problem(400, "invalid-request", detail)
