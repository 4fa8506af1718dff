"""Requests to an OpenAI-compatible fine-tuning API.

One request is one try: whether to try again is the caller's decision, since what must not happen twice (an upload, a
new job) has to be looked for first. The API key is in the session's header and is struck out of every answer before
anybody reads it, because a server may repeat it in an error.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from pydantic import ValidationError

from finetune_operator.contract.failures import Refused
from finetune_operator.core.fine_tuning_api import (
    UID_KEY,
    Answer,
    JobError,
    Page,
    RemoteCheckpoint,
    RemoteEvent,
    RemoteFile,
    RemoteJob,
)
from finetune_operator.core.remote_training import is_passing, refusal

A = TypeVar("A", bound=Answer)

PAGE_SIZE = 100
REQUEST_TIMEOUT_SECONDS = 60.0
UPLOAD_TIMEOUT_SECONDS = 3600.0
SHOWN_MAX_CHARACTERS = 500
RETRY_AFTER_MAX_SECONDS = 600.0


class Unanswered(Exception):
    """No answer, or one that may be better later; whether the request was carried out is not known."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class FineTuningClient:
    """Raises `Unanswered` or `Refused`, and nothing else."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._key = api_key

    @classmethod
    @asynccontextmanager
    async def open(cls, base_url: str, api_key: str) -> AsyncIterator["FineTuningClient"]:
        """A client for the life of the `async with` block."""
        async with aiohttp.ClientSession() as session:
            yield cls(session, base_url, api_key)

    async def upload(self, path: Path, name: str) -> RemoteFile:
        """One JSONL file for fine-tuning, sent from the disk."""
        with path.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("purpose", "fine-tune")
            form.add_field("file", file, filename=name, content_type="application/jsonl")
            return await self._ask("POST", "/files", RemoteFile, data=form, timeout_seconds=UPLOAD_TIMEOUT_SECONDS)

    def files(self) -> AsyncIterator[RemoteFile]:
        """Everything that was uploaded for fine-tuning, the newest first."""
        return self._pages("/files", Page[RemoteFile], {"purpose": "fine-tune"})

    async def delete_file(self, file_id: str) -> None:
        await self._ask("DELETE", f"/files/{file_id}", Answer)

    async def create_job(self, body: Mapping[str, Any]) -> RemoteJob:
        return await self._ask("POST", "/fine_tuning/jobs", RemoteJob, json_body=body)

    def jobs(self, uid: str | None = None) -> AsyncIterator[RemoteJob]:
        """The newest first; `uid` asks for one FineTuneJob's alone, which not every provider honours."""
        params = {f"metadata[{UID_KEY}]": uid} if uid else {}
        return self._pages("/fine_tuning/jobs", Page[RemoteJob], params)

    async def job(self, job_id: str) -> RemoteJob:
        return await self._ask("GET", f"/fine_tuning/jobs/{job_id}", RemoteJob)

    async def cancel_job(self, job_id: str) -> RemoteJob:
        return await self._ask("POST", f"/fine_tuning/jobs/{job_id}/cancel", RemoteJob)

    def events(self, job_id: str) -> AsyncIterator[RemoteEvent]:
        """The newest first."""
        return self._pages(f"/fine_tuning/jobs/{job_id}/events", Page[RemoteEvent], {})

    def checkpoints(self, job_id: str) -> AsyncIterator[RemoteCheckpoint]:
        return self._pages(f"/fine_tuning/jobs/{job_id}/checkpoints", Page[RemoteCheckpoint], {})

    async def delete_model(self, model: str) -> None:
        """Only a fine-tuned model of the key's own organization can be deleted."""
        await self._ask("DELETE", f"/models/{model}", Answer)

    async def _pages(self, path: str, page_type: type[Page[Any]], params: Mapping[str, str]) -> AsyncIterator[Any]:
        wanted = {**params, "limit": str(PAGE_SIZE)}
        asked_after: set[str] = set()
        while True:
            page = await self._ask("GET", path, page_type, params=wanted)
            for item in page.data:
                yield item
            if not page.has_more or not page.data:
                return
            last = page.data[-1].id
            if last in asked_after:
                # A provider that takes no notice of `after` would give the same page for ever.
                return
            asked_after.add(last)
            wanted["after"] = last

    async def _ask(
        self,
        method: str,
        path: str,
        answer_type: type[A],
        *,
        params: Mapping[str, str] | None = None,
        json_body: Mapping[str, Any] | None = None,
        data: aiohttp.FormData | None = None,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> A:
        what = f"{method} {path}"
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                params=params,
                json=json_body,
                data=data,
                headers={"Authorization": f"Bearer {self._key}"},
                timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=30),
                # A redirect would take the training data, if not the key, to a place that the spec does not name.
                allow_redirects=False,
            ) as response:
                status, retry_after = response.status, response.headers.get("Retry-After", "")
                text = (await response.text(errors="replace")).replace(self._key, "[the API key]")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = f"{what}: {type(error).__name__}: {error}"
            raise Unanswered(said.replace(self._key, "[the API key]")) from None
        if status >= 300:
            raise _error(what, status, text, _seconds(retry_after))
        try:
            return answer_type.model_validate_json(text)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, detail["loc"])) or "body" for detail in error.errors()[:5])
            raise Unanswered(f"{what}: the answer is not as the API describes it: {fields}") from None


def _seconds(retry_after: str) -> float | None:
    """Of a Retry-After header; None for a date. However long the provider names, it is asked again before long."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), RETRY_AFTER_MAX_SECONDS)


def _error(what: str, status: int, text: str, retry_after_seconds: float | None) -> Unanswered | Refused:
    try:
        body = json.loads(text)["error"]
        error, error_type = JobError.model_validate(body), body.get("type")
    except (ValueError, KeyError, TypeError, AttributeError):
        error, error_type = JobError(message=text[:SHOWN_MAX_CHARACTERS]), None
    if is_passing(status, error, error_type):
        said = (error.message or "")[:SHOWN_MAX_CHARACTERS]
        return Unanswered(f"{what}: HTTP status {status}: {said}", retry_after_seconds)
    return Refused(refusal(status, error, error_type, what))
