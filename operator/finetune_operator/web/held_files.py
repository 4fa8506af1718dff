"""A file as an answer, which goes on though somebody deletes it meanwhile."""

import os
from collections.abc import Mapping
from typing import IO

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

OPEN_FILES = "/dev/fd"


class HeldFileResponse(FileResponse):
    """Of an open file, which it closes. A plain `FileResponse` opens its path after the handler has ended."""

    def __init__(
        self,
        content: IO[bytes],
        *,
        headers: Mapping[str, str],
        media_type: str,
        filename: str | None = None,
    ) -> None:
        handle = content.fileno()
        super().__init__(
            f"{OPEN_FILES}/{handle}",
            headers=headers,
            media_type=media_type,
            filename=filename,
            stat_result=os.fstat(handle),
        )
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._content:
            await super().__call__(scope, receive, send)
