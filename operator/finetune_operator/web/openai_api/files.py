"""Public: files to train on, for OpenAI's unmodified clients. Each belongs to a namespace, whose trainings can use it.

Files are personal data as ratings are: whoever may train in a namespace may send and read those that are there.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, StreamingResponse

from finetune_operator.contract.failures import Failure
from finetune_operator.logs import get_logger
from finetune_operator.store import progress
from finetune_operator.store.dataset_worker import CheckOrder, FileChecked
from finetune_operator.store.datasets.stored import UPLOAD_PREFIX
from finetune_operator.store.uploaded_files import (
    DATA_NAME,
    NoRoom,
    Quota,
    UnknownFile,
    UploadedFile,
    UploadedFiles,
    file_id,
)
from finetune_operator.web.acting import JOBS, Acting
from finetune_operator.web.auth import Caller, CallerOf, may_train, open_api, require_caller, require_right
from finetune_operator.web.identity import EXPORT
from finetune_operator.web.ids import ID, NAMESPACE_PATTERN, NamespaceQuery, ObjectId
from finetune_operator.web.job_views import JobStatus, status_of
from finetune_operator.web.openai_api.errors import documented_errors
from finetune_operator.web.openai_api.schemas import DeletedFile, FileObject, Files
from finetune_operator.web.openai_api.uploads import Bounds, Received, received
from finetune_operator.web.openai_api.views import RESULT_PREFIX, file_object, listed, result_content, result_file
from finetune_operator.web.problems import Problem
from finetune_operator.web.required_rights import DELETE_FILE, READ_FILE, TRAIN_ANYWHERE, TRAIN_THERE
from finetune_operator.web.services import Object, Services, ServicesOf
from finetune_operator.web.stored_files import files_of

PURPOSE = "fine-tune"
WAITING = frozenset({JobStatus.QUEUED, JobStatus.PREPARING})
FULL = 507
MULTIPART = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": [PURPOSE]},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}

ID_PATTERN = rf"^{UPLOAD_PREFIX}{NAMESPACE_PATTERN}\.[0-9a-f]{{32}}$"
FileId = Annotated[str, PathParameter(pattern=ID_PATTERN, description="`file-<namespace>.<digest>`")]
ReadFileId = Annotated[
    str,
    PathParameter(
        pattern=f"{ID_PATTERN}|^{RESULT_PREFIX}{ID}$",
        description="`file-<namespace>.<digest>`, or `ftresult-<namespace>.<name>` of a training's series",
    ),
]
SERIES_MAX_POINTS = 10_000
SENT_HEADERS = ("content-disposition", "content-length", "last-modified", "etag")
SENT_BYTES = 65_536
READING = documented_errors(400, 401, 403, 404, 409, 503)

logger = get_logger(__name__)
router = APIRouter(prefix="/v1/files", tags=["openai"], dependencies=[Depends(require_caller)])


@router.post(
    "",
    response_model=FileObject,
    responses=documented_errors(400, 401, 403, 404, 408, 409, 413, 503, 504, 507),
    openapi_extra=MULTIPART | TRAIN_THERE,
)
async def create_file(
    services: ServicesOf, caller: CallerOf, request: Request, namespace: NamespaceQuery = None
) -> Object:
    """Send JSON lines to train on: conversations (`messages`), or pairs (`prompt`, `chosen`, `rejected`).

    `namespace` is not OpenAI's, and may be left out where the api serves one. The same content is the same file.
    """
    place = Acting(services, caller).namespace_or_only(namespace)
    await _require_trainer(services, caller, place)
    files, settings = files_of(services), services.settings
    async with services.uploads.one(), _work_directory(files) as directory:
        target = directory / DATA_NAME

        async def watch() -> None:
            await asyncio.to_thread(_require_space, services, directory)

        bounds = Bounds(settings.file_max_bytes, settings.body_timeout_seconds, watch)
        await watch()
        try:
            async with asyncio.timeout(settings.file_timeout_seconds):
                got = await received(request.headers.get("content-type"), _body(request), target, bounds)
        except TimeoutError:
            detail = f"the file did not arrive within {settings.file_timeout_seconds:g} seconds"
            raise Problem(408, "slow-body", detail) from None
        _require_purpose(got)
        checked = await _checked(services, request, target, got.filename)
        file = UploadedFile(
            id=file_id(got.sha256),
            namespace=place,
            filename=got.filename,
            bytes=got.bytes,
            sha256=got.sha256,
            rows=checked.rows,
            format=checked.format,
            created_at=services.now(),
            created_by=caller.name,
        )
        try:
            quota = Quota(settings.files_max_bytes, settings.files_namespace_max_bytes)
            kept = await asyncio.to_thread(files.publish, directory, file, quota)
        except NoRoom as error:
            raise Problem(FULL, "files-full", _full(file, error)) from None
    logger.info("file uploaded", file=kept.id, namespace=place, rows=kept.rows, bytes=kept.bytes, by=caller.name)
    return file_object(kept)


@router.get(
    "", response_model=Files, responses=documented_errors(400, 401, 403, 404, 409, 503), openapi_extra=TRAIN_ANYWHERE
)
async def list_files(
    services: ServicesOf,
    caller: CallerOf,
    purpose: str | None = None,
    order: Literal["asc", "desc"] = "desc",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: Annotated[str | None, Query(max_length=512, description="The last id of the page before")] = None,
    namespace: NamespaceQuery = None,
) -> Object:
    """Files of the namespaces that the caller may train in."""
    if namespace is not None:
        Acting(services, caller).require_served(namespace)
    asked = (namespace,) if namespace else services.settings.namespaces
    asked = asked or tuple(await asyncio.to_thread(files_of(services).namespaces))
    mine = [each for each in asked if (await may_train(services, caller, each))]
    if asked and not mine:
        await _require_trainer(services, caller, asked[0])
    files = files_of(services)
    found = [file for each in mine for file in await asyncio.to_thread(files.newest_first, each)]
    found.sort(key=lambda file: (file.created_at, file.id), reverse=order == "desc")
    shown = [file_object(file) for file in found if purpose in (None, PURPOSE)]
    return listed(shown, limit, after)


@router.get("/{file_id}", response_model=FileObject, responses=READING, openapi_extra=READ_FILE)
async def retrieve_file(services: ServicesOf, caller: CallerOf, file_id: ReadFileId) -> Object:
    """One file."""
    if file_id.startswith(RESULT_PREFIX):
        return result_file(*await _result(services, caller, file_id))
    return file_object(await found_file(services, caller, file_id))


@router.get(
    "/{file_id}/content",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/jsonl": {}, "text/csv": {}}, "description": "As it was sent; a series as CSV"},
        **READING,
    },
    openapi_extra=READ_FILE,
)
async def retrieve_file_content(services: ServicesOf, caller: CallerOf, file_id: ReadFileId) -> Response:
    """What was sent, or what was measured."""
    if file_id.startswith(RESULT_PREFIX):
        _, series = await _result(services, caller, file_id)
        headers = {"content-disposition": 'attachment; filename="step_metrics.csv"'}
        return Response(series, media_type="text/csv", headers=headers)
    file = await found_file(services, caller, file_id)
    try:
        content = await asyncio.to_thread(files_of(services).opened, file.namespace, file.id)
    except UnknownFile:
        raise _unknown(file_id) from None
    logger.info("file downloaded", file=file.id, namespace=file.namespace, by=caller.name)
    named = FileResponse("", filename=file.filename, stat_result=os.fstat(content.fileno()))
    headers = {name: named.headers[name] for name in SENT_HEADERS}
    return StreamingResponse(_blocks(content), media_type="application/jsonl", headers=headers)


@router.delete("/{file_id}", response_model=DeletedFile, responses=READING, openapi_extra=DELETE_FILE)
async def delete_file(services: ServicesOf, caller: CallerOf, file_id: FileId) -> Object:
    """Delete it, unless a training that the caller can see has still to read it. What was trained stays."""
    file = await found_file(services, caller, file_id)
    if caller.token is not None and (job := await _reader(Acting(services, caller), file)):
        detail = f"FineTuneJob {job} has not read {file_id} yet: wait until it trains, or cancel it"
        raise Problem(409, "file-in-use", detail)
    try:
        await asyncio.to_thread(files_of(services).delete, file.namespace, file.id)
    except UnknownFile:
        raise _unknown(file_id) from None
    logger.info("file deleted", file=file.id, namespace=file.namespace, by=caller.name)
    return {"id": file_id, "object": "file", "deleted": True}


async def found_file(services: Services, caller: Caller, text: str) -> UploadedFile:
    """What an id names. Raises problems."""
    acting = Acting(services, caller)
    namespace, _, digest = text.removeprefix(UPLOAD_PREFIX).partition(".")
    acting.require_served(namespace)
    await _require_trainer(services, caller, namespace)
    try:
        return await asyncio.to_thread(files_of(services).find, namespace, f"{UPLOAD_PREFIX}{digest}")
    except UnknownFile:
        raise _unknown(text) from None


async def _result(services: Services, caller: Caller, text: str) -> tuple[Object, bytes]:
    """The training whose file this is, and the file. Raises problems."""
    acting = Acting(services, caller)
    found = acting.identified(text.removeprefix(RESULT_PREFIX))
    await _require_trainer(services, caller, found.namespace)
    body = await acting.get(JOBS, found)
    if status_of(body) is not JobStatus.COMPLETED:
        raise _unknown(text)
    points, _ = await progress.series(services.engine, body["metadata"]["uid"], SERIES_MAX_POINTS)
    return body, result_content(points)


async def _require_trainer(services: Services, caller: Caller, namespace: str) -> None:
    if caller.token is None and services.settings.api_token is None:
        raise open_api("files")
    await require_right(services, caller, EXPORT, namespace)


async def _reader(acting: Acting, file: UploadedFile) -> ObjectId | None:
    """A training that would miss it."""
    path = f"{file.id}/{DATA_NAME}"
    async for chunk in acting.chunks(JOBS, file.namespace):
        for body in chunk:
            stored = body["spec"].get("dataset", {}).get("stored") or {}
            if path in (stored.get("path"), stored.get("validationPath")) and status_of(body) in WAITING:
                return ObjectId(file.namespace, body["metadata"]["name"])
    return None


async def _checked(services: Services, request: Request, target: Path, name: str) -> FileChecked:
    """Read by a process of its own, which many rows can't hold us up in. Raises 400 with the row's number."""

    async def watch() -> None:
        if await request.is_disconnected():
            raise Problem(400, "client-gone", "the client closed the connection before the answer")

    order = CheckOrder(file=target, name=name)
    match await services.worker.outcome(order, watch, services.settings.file_timeout_seconds):
        case FileChecked() as checked:
            return checked
        case Failure() as failure:
            raise Problem(422, "invalid-file", f"{failure.message}; {failure.remedy}")
        case other:
            raise Problem(500, "internal", f"the worker answered with {other.kind}; see the api's log")


def _full(file: UploadedFile, error: NoRoom) -> str:
    if error.of_namespace:
        limit, whose, value = "FINETUNE_FILES_NAMESPACE_MAX_BYTES", f"namespace {file.namespace}", "maxNamespaceBytes"
    else:
        limit, whose, value = "FINETUNE_FILES_MAX_BYTES", "all namespaces together", "maxTotalBytes"
    return (
        f"the file has {file.bytes} bytes, and {error.left_bytes} are left of those that {whose} may have ({limit}): "
        f"delete files that are no longer needed (DELETE /v1/files/<id>), or raise the chart's value api.files.{value}"
    )


def _require_purpose(got: Received) -> None:
    others = sorted(set(got.fields) - {"purpose"})
    if others:
        raise Problem(422, "invalid-request", f"{', '.join(others)}: not taken; files stay until they are deleted")
    if got.fields.get("purpose") != PURPOSE:
        raise Problem(422, "invalid-request", f"purpose: only {PURPOSE} is taken, files are for trainings alone")


def _require_space(services: Services, directory: Path) -> None:
    free, kept = shutil.disk_usage(directory).free, services.settings.datasets_min_free_bytes
    if free < kept:
        detail = f"the volume has {free} bytes left, and FINETUNE_DATASETS_MIN_FREE_BYTES keeps {kept} free"
        raise Problem(FULL, "files-full", detail)


@asynccontextmanager
async def _work_directory(files: UploadedFiles) -> AsyncIterator[Path]:
    try:
        made = files.work_directory()
        directory = await asyncio.to_thread(made.__enter__)
    except OSError as error:
        logger.error("the files' directory can't be used", directory=str(files.directory), error=str(error))
        detail = f"{files.directory} can't be written ({error.strerror}); check the volume for datasets"
        raise Problem(503, "datasets-unavailable", detail) from None
    try:
        yield directory
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


async def _blocks(content: IO[bytes]) -> AsyncIterator[bytes]:
    with content:
        while block := await asyncio.to_thread(content.read, SENT_BYTES):
            yield block


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


def _unknown(text: str) -> Problem:
    return Problem(404, "unknown-file", f"there is no file {text}; GET /v1/files lists what there is")
