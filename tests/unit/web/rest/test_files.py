"""Files to train on, by OpenAI's own client, unmodified, and over a real socket to the container that prepares."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import uvicorn
from openai import AsyncOpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob as Job

from finetune_operator.contract.dataset import DatasetConfig, StoredSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import INTERNAL_TOKEN_VARIABLE, STORED_FILE_PATH
from finetune_operator.store.datasets.export import Export
from finetune_operator.store.uploaded_files import UploadedFiles
from finetune_operator.web.worker_process import WorkerProcess
from tests.builders import job_object
from tests.unit.gateway.servers import HOST, free_port
from tests.unit.web.conftest import ENVIRONMENT, INTERNAL
from tests.unit.web.ratings_api import WorkerThread
from tests.unit.web.rest.conftest import ANONYMOUS, API_TOKEN, EDITOR, READER, Rest
from tests.unit.web.rest.played_api_server import EDIT, User
from tests.waiting import eventually

FILES = "/v1/files"
TINY = "volume://models/tiny"


def rows(count: int, begin: int = 0) -> bytes:
    return b"".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"What is question {number}?"},
                    {"role": "assistant", "content": f"It is the question with the number {number}."},
                ]
            }
        ).encode()
        + b"\n"
        for number in range(begin, begin + count)
    )


PAIRS = b"".join(
    json.dumps(
        {"prompt": f"What is {number}, then?", "chosen": "A number, of course.", "rejected": "No idea."}
    ).encode()
    + b"\n"
    for number in range(3)
)
CONTENT = rows(12)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def environment(directory: Path) -> dict[str, str]:
    return ENVIRONMENT | {
        "FINETUNE_NAMESPACES": "finetune",
        "FINETUNE_DATASETS_DIRECTORY": str(directory),
        "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
        "FINETUNE_FILE_MAX_BYTES": "100000",
        "FINETUNE_FILES_MAX_BYTES": "150000",
    }


@pytest.fixture
async def client(rest: Rest) -> AsyncIterator[AsyncOpenAI]:
    object.__setattr__(rest.services, "worker", WorkerThread())
    transport = httpx2.ASGITransport(rest.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport) as http:
        yield AsyncOpenAI(base_url="http://api/v1", api_key="editor", http_client=http, max_retries=0)


async def upload(client: AsyncOpenAI, content: bytes = CONTENT, name: str = "train.jsonl") -> FileObject:
    return await client.files.create(file=(name, content), purpose="fine-tune")


def left(directory: Path) -> list[str]:
    """What is there besides files."""
    return [entry.name for entry in (directory / "files").glob(".work-*")]


async def test_the_life_of_a_file(client: AsyncOpenAI, directory: Path) -> None:
    made = await upload(client)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert FileObject.model_validate(made.model_dump()), "as the client's own types have it"
    assert made.id == f"file-finetune.{digest[:32]}"
    assert (made.filename, made.bytes, made.purpose, made.status) == (
        "train.jsonl",
        len(CONTENT),
        "fine-tune",
        "processed",
    )
    assert await client.files.retrieve(made.id) == made
    assert (await client.files.content(made.id)).content == CONTENT
    assert [file.id async for file in client.files.list()] == [made.id]
    deleted = await client.files.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    assert [file async for file in client.files.list()] == []
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        await client.files.retrieve(made.id)
    assert left(directory) == []


async def test_a_file_that_is_deleted_while_it_is_sent_is_sent_whole(
    client: AsyncOpenAI, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await upload(client)
    monkeypatch.setattr(
        "finetune_operator.web.openai_api.files.logger.info", lambda *_, **__: shutil.rmtree(directory / "files")
    )
    assert (await client.files.content(made.id)).content == CONTENT
    assert not (directory / "files").exists()


async def test_a_file_is_not_deleted_while_another_process_publishes(client: AsyncOpenAI, directory: Path) -> None:
    made = await upload(client)
    with (directory / "files" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deleting = asyncio.create_task(client.files.delete(made.id))
        await asyncio.wait([deleting], timeout=0.3)
        assert not deleting.done()
        assert (await client.files.content(made.id)).content == CONTENT
    assert (await deleting).deleted


async def test_lists_are_paged_and_ordered(client: AsyncOpenAI) -> None:
    made = [(await upload(client, rows(2, begin))).id for begin in (0, 10, 20)]
    assert [file.id async for file in client.files.list(limit=2)] == made[::-1]
    assert [file.id async for file in client.files.list(order="asc", limit=2)] == made
    assert [file async for file in client.files.list(purpose="batch")] == []


async def test_the_same_content_is_the_same_file(client: AsyncOpenAI) -> None:
    first, second = await upload(client), await upload(client, name="again.jsonl")
    assert second == first
    assert len([file async for file in client.files.list()]) == 1


async def test_a_training_on_files(rest: Rest, client: AsyncOpenAI) -> None:
    train, test = await upload(client), await upload(client, rows(3, 100), "test.jsonl")
    made = await client.fine_tuning.jobs.create(model=TINY, training_file=train.id, validation_file=test.id)
    assert Job.model_validate(made.model_dump())
    assert (made.training_file, made.validation_file) == (train.id, test.id)
    (stored,) = [body for (plural, _, _), body in rest.cluster.objects.items() if plural == "finetunejobs"]
    assert stored["spec"]["dataset"] == {
        "format": "OpenAI",
        "stored": {
            "path": f"file-{train.id.rpartition('.')[2]}/data.jsonl",
            "validationPath": f"file-{test.id.rpartition('.')[2]}/data.jsonl",
        },
    }


async def test_pairs_are_for_dpo_alone(client: AsyncOpenAI) -> None:
    pairs, conversations = await upload(client, PAIRS), await upload(client)
    made = await client.fine_tuning.jobs.create(model=TINY, training_file=pairs.id, method={"type": "dpo"})
    assert (made.training_file, made.method and made.method.type) == (pairs.id, "dpo")
    with pytest.raises(openai.BadRequestError, match="it should have conversations"):
        await client.fine_tuning.jobs.create(model=TINY, training_file=pairs.id)
    with pytest.raises(openai.BadRequestError, match="it should have pairs"):
        await client.fine_tuning.jobs.create(model=TINY, training_file=conversations.id, method={"type": "dpo"})


async def test_a_file_that_is_not_there_is_told_when_the_training_is_made(rest: Rest, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        await client.fine_tuning.jobs.create(model=TINY, training_file=f"file-finetune.{'0' * 32}")
    assert rest.cluster.names("finetunejobs") == []


async def test_a_file_is_not_deleted_before_its_training_has_read_it(rest: Rest, client: AsyncOpenAI) -> None:
    made = await upload(client)
    job = await client.fine_tuning.jobs.create(model=TINY, training_file=made.id)
    with pytest.raises(openai.BadRequestError, match=r"FineTuneJob finetune\..* has not read"):
        await client.files.delete(made.id)
    name = job.id.partition(".")[2]
    await rest.cluster.tell("finetunejobs", "finetune", name, phase="Training")
    await client.files.delete(made.id)


async def test_other_trainings_keep_no_file(rest: Rest, client: AsyncOpenAI) -> None:
    made = await upload(client)
    rest.cluster.put("finetunejobs", job_object(name="other", status={"phase": "Preparing"}))
    await client.files.delete(made.id)


LONG = b"x" * 70_000
REFUSED: dict[str, tuple[bytes, str]] = {
    "no JSON": (CONTENT + b"{\n", "row 13 of train.jsonl is not a OpenAI record"),
    "no messages": (rows(1) + b'{"prompt": "a"}\n', "row 2 of train.jsonl is not a OpenAI record: messages"),
    "nobody answers": (b'{"messages": [{"role": "user", "content": "a"}]}', "row 1 of train.jsonl"),
    "pairs among conversations": (rows(2) + PAIRS, "row 3 of train.jsonl is not a OpenAI record"),
    "conversations among pairs": (PAIRS + rows(1), "row 4 of train.jsonl is not a DPO record"),
    "a key twice": (b'{"messages": [], "messages": []}\n', "row 1 of train.jsonl"),
    "nothing": (b"", "train.jsonl has no rows"),
    "blank lines": (b"\n\n", "train.jsonl has no rows"),
    "compressed": (b"\x1f\x8b\x08\x00rest", "compressed with gzip"),
    "Parquet": (b"PAR1\x00\x00", "row 1 of train.jsonl"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_rows_are_read_before_the_file_is_taken(client: AsyncOpenAI, directory: Path, case: str) -> None:
    content, words = REFUSED[case]
    with pytest.raises(openai.BadRequestError) as caught:
        await upload(client, content)
    assert words in str(caught.value)
    assert [file async for file in client.files.list()] == []
    assert left(directory) == []


async def test_the_process_that_reads_rows_is_a_real_one(rest: Rest, client: AsyncOpenAI) -> None:
    object.__setattr__(rest.services, "worker", WorkerProcess())
    assert (await upload(client)).status == "processed"
    with pytest.raises(openai.BadRequestError, match=r"row 1 of train\.jsonl"):
        await upload(client, b"1\n")


async def test_purposes_and_other_fields(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="only fine-tune is taken"):
        await client.files.create(file=("a.jsonl", CONTENT), purpose="batch")
    with pytest.raises(openai.BadRequestError, match=r"expires_after\[anchor\], expires_after\[seconds\]: not taken"):
        await client.files.create(
            file=("a.jsonl", CONTENT), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
        )


BOUNDARY = "b0undary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> bytes:
    written = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + content + b"\r\n"
        for name, content in parts
    )
    return b"".join(written) + f"--{BOUNDARY}".encode() + end


FILE_PART = ('name="file"; filename="a.jsonl"', CONTENT)
PURPOSE_PART = ('name="purpose"', b"fine-tune")
FORMS: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no form": (b"{}", {"Content-Type": "application/json"}, 400, "send multipart/form-data"),
    "no boundary": (b"", {"Content-Type": "multipart/form-data"}, 400, "send multipart/form-data"),
    "no file": (form(PURPOSE_PART), FORM, 400, "the form has no file"),
    "no purpose": (form(FILE_PART), FORM, 400, "only fine-tune"),
    "two files": (form(PURPOSE_PART, FILE_PART, FILE_PART), FORM, 400, "one file at a time"),
    "cut off": (form(PURPOSE_PART, FILE_PART)[:-300], FORM, 400, "ended before its file was whole"),
    "nonsense": (b"nonsense", FORM, 400, "the form can't be read"),
    "a long field": (form(('name="purpose"', LONG), FILE_PART), FORM, 400, "longer than 256 bytes"),
    "many fields": (
        form(*[(f'name="field-{number}"', b"") for number in range(17)], FILE_PART),
        FORM,
        400,
        "more than 16 parts",
    ),
    "a field many times": (form(*[PURPOSE_PART] * 17, FILE_PART), FORM, 400, "more than 16 parts"),
    "long headers": (
        form(*[(f'name="purpose"\r\nX-A: {"a" * 3000}\r\nX-B: {"b" * 3000}', b"fine-tune")] * 15, FILE_PART),
        FORM,
        400,
        "65536 bytes besides its file",
    ),
    "a large file": (form(PURPOSE_PART, (FILE_PART[0], rows(2000))), FORM, 413, "larger than 100000 bytes"),
}


@pytest.mark.parametrize("case", FORMS)
async def test_wrong_forms(rest: Rest, client: AsyncOpenAI, directory: Path, case: str) -> None:
    content, headers, status, words = FORMS[case]
    response = await rest.client.post(FILES, content=content, headers=EDITOR | headers)
    assert response.status_code == status, response.text
    assert words in response.json()["error"]["message"]
    assert left(directory) == []


async def test_a_file_that_stops_to_arrive(rest: Rest, client: AsyncOpenAI, directory: Path) -> None:
    settings = rest.services.settings.model_copy(update={"body_timeout_seconds": 0.05})
    object.__setattr__(rest.services, "settings", settings)
    whole = form(PURPOSE_PART, FILE_PART)

    async def slowly() -> AsyncIterator[bytes]:
        yield whole[:200]
        await asyncio.sleep(5)
        yield whole[200:]

    response = await rest.client.post(FILES, content=slowly(), headers=EDITOR | FORM)
    assert (response.status_code, response.json()["error"]["code"]) == (408, "slow_body")
    assert left(directory) == []


async def test_who_may_not_train_sends_nothing(rest: Rest, client: AsyncOpenAI) -> None:
    sent = 0

    async def content() -> AsyncIterator[bytes]:
        nonlocal sent
        for piece in (form(PURPOSE_PART, FILE_PART),) * 2:
            sent += 1
            yield piece

    for caller, status in ((READER, 403), (ANONYMOUS, 401)):
        response = await rest.client.post(FILES, content=content(), headers=caller | FORM)
        assert response.status_code == status
    assert sent == 0, "refused before the body was read"


async def test_rights_are_of_the_files_namespace(rest: Rest, client: AsyncOpenAI) -> None:
    settings = rest.services.settings.model_copy(update={"namespaces": ("finetune", "law")})
    object.__setattr__(rest.services, "settings", settings)
    rest.cluster.users["lawyer"] = User("lawyer", EDIT, {"law"})
    lawyer = client.with_options(api_key="lawyer")
    made = await lawyer.files.create(file=("a.jsonl", CONTENT), purpose="fine-tune", extra_query={"namespace": "law"})
    assert made.id.startswith("file-law.")
    with pytest.raises(openai.BadRequestError, match="say in which `namespace`"):
        await upload(lawyer)
    ours = await client.files.create(
        file=("a.jsonl", CONTENT), purpose="fine-tune", extra_query={"namespace": "finetune"}
    )
    assert [file.id async for file in lawyer.files.list()] == [made.id]
    assert {file.id async for file in client.files.list()} == {made.id, ours.id}
    with pytest.raises(openai.PermissionDeniedError):
        await lawyer.files.content(ours.id)
    with pytest.raises(openai.PermissionDeniedError):
        await client.with_options(api_key="reader").files.retrieve(ours.id)
    job = await lawyer.fine_tuning.jobs.create(model=TINY, training_file=made.id)
    assert job.id.startswith("ftjob-law."), "where its file is"
    other = await rest.get(STORED_FILE_PATH.format(namespace="other", id=made.id, file="data.jsonl"), INTERNAL)
    assert other.status_code in (404, 422)


async def test_the_apis_own_token_may_send_files(rest: Rest, client: AsyncOpenAI) -> None:
    made = await upload(client.with_options(api_key=API_TOKEN["Authorization"].removeprefix("Bearer ")))
    assert (await client.files.retrieve(made.id)).id == made.id


async def test_there_is_only_so_much_room(rest: Rest, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await upload(client, rows(600))
    full = r"all namespaces .*FINETUNE_FILES_MAX_BYTES.*api\.files\.maxTotalBytes"
    with pytest.raises(openai.InternalServerError, match=full) as caught:
        await upload(client, rows(600, 1000))
    assert caught.value.status_code == 507
    await client.files.delete(first.id)
    await upload(client, rows(600, 1000))
    settings = rest.services.settings.model_copy(update={"datasets_min_free_bytes": 10**18})
    object.__setattr__(rest.services, "settings", settings)
    with pytest.raises(openai.InternalServerError, match="FINETUNE_DATASETS_MIN_FREE_BYTES"):
        await upload(client)


class TestTwoNamespaces:
    @pytest.fixture
    def environment(self, environment: dict[str, str]) -> dict[str, str]:
        quota = {"FINETUNE_FILES_MAX_BYTES": "200000", "FINETUNE_FILES_NAMESPACE_MAX_BYTES": "110000"}
        return environment | quota | {"FINETUNE_NAMESPACES": "finetune,other"}

    async def test_one_leaves_room_for_the_other(self, client: AsyncOpenAI) -> None:
        here, there = ({"namespace": each} for each in ("finetune", "other"))

        async def send(content: bytes, namespace: dict[str, str]) -> FileObject:
            return await client.files.create(file=("f", content), purpose="fine-tune", extra_query=namespace)

        first = await send(rows(600), here)
        full = r"namespace finetune .*FINETUNE_FILES_NAMESPACE_MAX_BYTES.*api\.files\.maxNamespaceBytes"
        with pytest.raises(openai.InternalServerError, match=full) as caught:
            await send(rows(600, 1000), here)
        assert caught.value.status_code == 507
        await send(rows(600, 1000), there)
        with pytest.raises(openai.InternalServerError, match="namespace other"):
            await send(rows(600, 2000), there)
        await client.files.delete(first.id)
        await send(rows(600, 2000), here)


async def test_without_a_place_for_datasets_there_are_no_files(rest: Rest, client: AsyncOpenAI) -> None:
    settings = rest.services.settings.model_copy(update={"datasets_directory": None})
    object.__setattr__(rest.services, "settings", settings)
    with pytest.raises(openai.BadRequestError, match=r"api\.datasets\.claimName"):
        await upload(client)


async def test_what_a_killed_upload_left_is_removed_after_a_day(client: AsyncOpenAI, directory: Path) -> None:
    for name, age in (("old", 90_000), ("new", 60)):
        place = directory / "files" / f".work-{name}"
        place.mkdir(parents=True)
        times = place.stat().st_mtime - age
        os.utime(place, (times, times))
    await upload(client)
    assert left(directory) == [".work-new"]


async def test_links_and_damaged_entries_are_not_followed(client: AsyncOpenAI, directory: Path) -> None:
    made = await upload(client)
    place = directory / "files" / "finetune" / f"file-{made.id.rpartition('.')[2]}"
    secret = directory / "secret"
    secret.write_text("secret")
    (place / "data.jsonl").unlink()
    (place / "data.jsonl").symlink_to(secret)
    with pytest.raises(openai.NotFoundError):
        await client.files.content(made.id)
    shutil.move(place / "file.json", place / "other.json")
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)
    assert await upload(client) == made.model_copy(
        update={"created_at": (await client.files.retrieve(made.id)).created_at}
    )
    assert UploadedFiles(directory / "files").opened("finetune", place.name).read() == CONTENT


@asynccontextmanager
async def listening(rest: Rest) -> AsyncIterator[str]:
    """The api on a port."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(rest.app, host=HOST, port=port, log_config=None, access_log=False))
    running = asyncio.create_task(server.serve())

    async def is_up() -> bool:
        return server.started

    try:
        await eventually(is_up)
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        await running


async def test_what_was_sent_is_what_is_trained_on(rest: Rest, client: AsyncOpenAI, tmp_path: Path) -> None:
    train, test = await upload(client), await upload(client, rows(3, 100))
    work = tmp_path / "work"
    work.mkdir()
    async with listening(rest) as url:

        def source(file: FileObject, namespace: str = "finetune") -> StoredSource:
            identity = f"file-{file.id.rpartition('.')[2]}"
            below = STORED_FILE_PATH.format(namespace=namespace, id=identity, file="data.jsonl")
            return StoredSource(path=f"{identity}/data.jsonl", url=f"{url}{below}")

        async def made(config: DatasetConfig, token: str = "internal-token") -> Any:  # noqa: S107 - of this test
            environment = {INTERNAL_TOKEN_VARIABLE: token}
            return await asyncio.to_thread(Export(config, "ChatML", tmp_path, environment, work).write)

        report = await made(DatasetConfig(source=source(train), validation=source(test), format="OpenAI"))
        assert (report.rows, report.test_rows) == (12, 3)
        assert "question 10" in (work / "test.jsonl").read_text()
        with pytest.raises(Refused, match="does not keep") as caught:
            await made(DatasetConfig(source=source(train, "other"), format="OpenAI"))
        assert caught.value.failure.reason == FailureReason.DATASET_INVALID
        with pytest.raises(Refused, match="refused this namespace's internal token"):
            await made(DatasetConfig(source=source(train), format="OpenAI"), token="public-token")  # noqa: S106
