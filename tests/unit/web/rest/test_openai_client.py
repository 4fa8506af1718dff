"""OpenAI's own client, unmodified: the API key is a Kubernetes token, and a job is a FineTuneJob."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Model
from openai.types.fine_tuning import FineTuningJob as Job
from pydantic import ValidationError

from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.store import progress
from finetune_operator.web.job_requests import WrongRequest
from finetune_operator.web.openai_api import routes
from finetune_operator.web.openai_api.requests import FineTuningRequest, job_request
from tests.builders import job_object, version_object
from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.rest.conftest import Rest

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TINY = "volume://models/tiny"


@pytest.fixture
async def client(rest: Rest) -> AsyncIterator[AsyncOpenAI]:
    transport = httpx2.ASGITransport(rest.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport) as http:
        yield AsyncOpenAI(base_url="http://api/v1", api_key="editor", http_client=http, max_retries=0)


def put_job(rest: Rest, name: str = "plato-1", **options: Any) -> None:
    body = job_object(name=name, **options)
    del body["metadata"]["creationTimestamp"]
    rest.cluster.put("finetunejobs", body)


async def test_a_job_is_a_finetunejob(rest: Rest, client: AsyncOpenAI) -> None:
    made = await client.fine_tuning.jobs.create(
        model="Qwen/Qwen3-0.6B",
        training_file="ratings",
        suffix="Plato 2",
        seed=7,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": "auto", "learning_rate_multiplier": 0.5}},
        },
        metadata={"team": "ethics"},
    )
    assert Job.model_validate(made.model_dump()), "as the client's own types have it"
    assert (made.id, made.status, made.model) == ("ftjob-finetune.plato-2-0badcafe", "queued", "qwen3-0.6b")
    assert (made.seed, made.training_file, made.metadata) == (7, "ratings", {"team": "ethics"})
    assert made.hyperparameters.learning_rate_multiplier == 0.5
    stored = rest.cluster.objects["finetunejobs", "finetune", "plato-2-0badcafe"]
    assert stored["spec"] == {
        "model": "plato-2",
        "baseModel": {"name": "qwen3-0.6b", "source": {"hub": {"id": "Qwen/Qwen3-0.6B"}}},
        "training": {"epochs": 1, "learningRate": "0.0001", "seed": 7},
        "dataset": {"format": "OpenAI", "ratings": {}},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        # So that the client can ask for `fine_tuned_model`.
        "serving": {},
    }
    elsewhere = (await rest.get("/v1/fine-tuning/jobs/finetune.plato-2-0badcafe")).json()
    assert elsewhere["manifest"] == made.model_extra["finetune"]["manifest"]
    assert await client.fine_tuning.jobs.retrieve(made.id) == made


async def test_what_was_measured_is_a_file(rest: Rest, client: AsyncOpenAI) -> None:
    put_job(rest, uid="done", status={"phase": "Succeeded", "completionTime": NOON.isoformat()})
    put_job(rest, "plato-2", status={"phase": "Training"})
    job = JobIdentity(namespace="finetune", name="plato-1", uid="done")
    points = [
        Progress(
            job=job, attempt="a", step=step, total_steps=2, epoch=step / 2, total_epochs=1, time=NOON,
            loss=1.5 / step, learning_rate=2e-4, eval_loss=0.5 if step == 2 else None,
        )
        for step in (1, 2)
    ]  # fmt: skip
    await progress.record(rest.services.engine, points)
    found = await client.fine_tuning.jobs.retrieve("ftjob-finetune.plato-1")
    assert found.result_files == ["ftresult-finetune.plato-1"]
    file = await client.files.retrieve(found.result_files[0])
    assert (file.purpose, file.filename, file.created_at) == (
        "fine-tune-results",
        "step_metrics.csv",
        int(NOON.timestamp()),
    )
    content = await client.files.content(file.id)
    assert content.text == (
        "step,train_loss,valid_loss,learning_rate,grad_norm,tokens\n1,1.5,,0.0002,,\n2,0.75,0.5,0.0002,,\n"
    )
    assert file.bytes == len(content.content)
    assert (await client.fine_tuning.jobs.retrieve("ftjob-finetune.plato-2")).result_files == []
    for missing in ("ftresult-finetune.plato-2", "ftresult-finetune.nothing"):
        with pytest.raises(openai.NotFoundError):
            await client.files.content(missing)


async def test_changes(rest: Rest, client: AsyncOpenAI) -> None:
    put_job(rest, status={"phase": "Training"})
    job = "ftjob-finetune.plato-1"
    assert (await client.fine_tuning.jobs.pause(job)).model_extra["finetune"]["suspended"] is True
    assert (await client.fine_tuning.jobs.resume(job)).model_extra["finetune"]["suspended"] is False
    await client.fine_tuning.jobs.cancel(job)
    assert rest.cluster.objects["finetunejobs", "finetune", "plato-1"]["spec"]["cancel"] is True


async def test_lists_are_paged_by_the_client(rest: Rest, client: AsyncOpenAI) -> None:
    for number in range(5):
        put_job(rest, f"plato-{number}")
    found = [job.id async for job in client.fine_tuning.jobs.list(limit=2)]
    assert found == [f"ftjob-finetune.plato-{number}" for number in reversed(range(5))]
    await client.fine_tuning.jobs.create(model=TINY, training_file="ratings", metadata={"team": "law"})
    chosen = [job async for job in client.fine_tuning.jobs.list(metadata={"team": "law"})]
    assert [job.metadata for job in chosen] == [{"team": "law"}]
    assert [job async for job in client.fine_tuning.jobs.list(metadata={"team": "art"})] == []


def put_version(rest: Rest, namespace: str, number: int) -> None:
    body = version_object(number)
    own = {"namespace": namespace, "uid": f"{namespace}-{number}", "creationTimestamp": NOON.isoformat()}
    rest.cluster.put("modelversions", body | {"metadata": body["metadata"] | own})


async def test_a_version_is_a_model(rest: Rest, client: AsyncOpenAI) -> None:
    put_version(rest, "finetune", 7)
    found = await client.models.retrieve("plato-v7")
    assert Model.model_validate(found.model_dump()), "as the client's own types have it"
    assert found == await client.models.retrieve("finetune.plato-v7")
    assert (found.id, found.created, found.owned_by) == ("plato-v7", int(NOON.timestamp()), "finetune")
    assert found in [model async for model in client.models.list()]


async def test_models_go_on_after_a_page(rest: Rest, client: AsyncOpenAI) -> None:
    for number in range(7, 12):
        put_version(rest, "finetune", number)
    whole = await client.get("/models", cast_to=object)
    assert isinstance(whole, dict)
    names = [model["id"] for model in whole["data"]]
    assert (whole["has_more"], len(names)) == (False, 6)
    found, last = [], None
    for _ in range(3):
        page = await client.get(f"/models?limit=2{f'&after={last}' if last else ''}", cast_to=object)
        assert isinstance(page, dict)
        found += [model["id"] for model in page["data"]]
        last = page["last_id"]
        assert page["has_more"] == (len(found) < 6)
    assert (found, last) == (names, f"finetune.{names[-1]}")


@pytest.mark.parametrize("name", ["plato-v8", "finetune.plato-v8", "gpt-4.1", "elsewhere.plato-v7"])
async def test_no_version_is_no_model(rest: Rest, client: AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve(name)
    assert caught.value.code


async def test_what_is_not_offered_is_told(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no path /v1/responses") as caught:
        await client.responses.create(model="plato", input="Hi")
    assert (caught.value.type, caught.value.code) == ("invalid_request_error", "http")


async def test_what_can_be_no_name_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.models.retrieve("plato v7")


async def test_a_version_is_deleted_elsewhere(rest: Rest, client: AsyncOpenAI) -> None:
    put_version(rest, "finetune", 7)
    with pytest.raises(openai.APIStatusError, match="kubectl delete modelversion") as caught:
        await client.models.delete("plato-v7")
    assert (caught.value.status_code, caught.value.response.headers["allow"]) == (405, "GET, HEAD")
    assert await client.models.retrieve("plato-v7")


class TestSeveralNamespaces:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune,other"}

    async def test_a_name_is_found_among_however_many(
        self, rest: Rest, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(routes, "MODELS_MAX", 1)
        for number in range(7, 12):
            put_version(rest, "other", number)
        assert (await client.models.retrieve("plato-v7")).id == "plato-v7"

    async def test_a_name_alone_is_that_of_one_namespace(self, rest: Rest, client: AsyncOpenAI) -> None:
        put_version(rest, "other", 7)
        assert (await client.models.retrieve("plato-v7")).owned_by == "other"
        put_version(rest, "finetune", 7)
        with pytest.raises(openai.BadRequestError, match=r"finetune and other each have a plato-v7: write <namespace>"):
            await client.models.retrieve("plato-v7")
        for namespace in ("finetune", "other"):
            assert (await client.models.retrieve(f"{namespace}.plato-v7")).owned_by == namespace
        with pytest.raises(openai.NotFoundError, match="GET /v1/models lists them"):
            await client.models.retrieve("plato-v8")


STATUSES = {
    "Queued": "queued",
    "Suspended": "queued",
    "Preparing": "validating_files",
    "Training": "running",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Cancelled": "cancelled",
}


@pytest.mark.parametrize("phase", STATUSES)
async def test_the_life_of_a_job(rest: Rest, client: AsyncOpenAI, phase: str) -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": "OutOfMemory", "lastTransitionTime": NOON.isoformat()}
    progress = {"etaSeconds": 60, "lastUpdateTime": "2026-11-22T12:00:00Z"}
    status = {"phase": phase, "message": "why", "modelVersion": "plato-v1", "progress": progress}
    put_job(rest, status=status | {"conditions": [stalled]})
    job = await client.fine_tuning.jobs.retrieve("ftjob-finetune.plato-1")
    assert Job.model_validate(job.model_dump())
    assert (job.status, job.fine_tuned_model) == (STATUSES[phase], "plato-v1")
    assert job.estimated_finish == int(NOON.timestamp()) + 60
    assert (job.error.code if job.error else None) == ("OutOfMemory" if phase == "Failed" else None)


async def test_events_and_checkpoints(rest: Rest, client: AsyncOpenAI) -> None:
    put_job(rest)
    identity = JobIdentity(namespace="finetune", name="plato-1", uid="uid-of-plato-1")
    points = [
        Progress(
            job=identity,
            attempt="a",
            step=step,
            total_steps=40,
            epoch=1.0,
            total_epochs=1.0,
            loss=1 / step,
            checkpoint_step=step if step % 20 == 0 else None,
            time=NOON + timedelta(minutes=step),
        )
        for step in (10, 20, 30, 40)
    ]
    await progress.record(rest.services.engine, points)
    events = [event async for event in client.fine_tuning.jobs.list_events("ftjob-finetune.plato-1", limit=2)]
    assert [event.type for event in events] == ["metrics"] * 4 + ["message"]
    assert events[0].message == "Step 40/40, training loss=0.025"
    assert len({event.id for event in events}) == 5
    checkpoints = [each async for each in client.fine_tuning.jobs.checkpoints.list("ftjob-finetune.plato-1", limit=1)]
    assert [(each.step_number, each.metrics.train_loss) for each in checkpoints] == [(40, 0.025), (20, 0.05)]


async def test_models(client: AsyncOpenAI) -> None:
    assert [(model.id, model.owned_by) async for model in client.models.list()] == [("plato-v2", "finetune")]


ERRORS: dict[str, tuple[str, dict[str, Any], type[openai.APIStatusError], str]] = {
    "a stranger": ("stranger", {}, openai.AuthenticationError, "kubectl create token"),
    "the api's own token": ("public-token", {}, openai.PermissionDeniedError, "ClusterRole `view`"),
    "who may only read": ("reader", {}, openai.PermissionDeniedError, "cannot create"),
    "a base model that is nowhere": ("editor", {"model": "llama"}, openai.BadRequestError, "<owner>/<name>"),
    "an unknown member": ("editor", {"extra_body": {"epochs": 3}}, openai.BadRequestError, "body.epochs"),
    "a namespace that is not served": (
        "editor",
        {"training_file": "volume://c/p", "extra_body": {"namespace": "other"}},
        openai.NotFoundError,
        "namespace other",
    ),
}


MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "one of OpenAI's own models": (
        {"model": "gpt-4o-mini-2024-07-18"},
        "model",
        r"^(?!.*base_model).*no base model gpt-4o-mini-2024-07-18.*<owner>/<name>.*Qwen/Qwen3-0\.6B.*volume://<claim>/<path>",
    ),
    "a volume without a path": (
        {"model": "volume://models"},
        "model",
        "write volume://<claim>/<path>, not volume://models",
    ),
    "a file that is nowhere": ({"training_file": "gone.jsonl"}, "training_file", "training_file: write volume://"),
    "a place to validate by": ({"validation_file": "s3://b/k"}, "validation_file", "validation_file: send the id"),
    "a suffix without a letter": ({"suffix": "!"}, "suffix", "suffix: use letters"),
    "integrations": ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "reportTo"),
    "an unknown member": ({"extra_body": {"epochs": 3}}, "epochs", "body.epochs"),
    "no epoch": ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "n_epochs"),
    "a validation without a file": (
        {"validation_file": f"file-finetune.{'0' * 32}", "training_file": "ratings"},
        "validation_file",
        "training_file of an exported dataset",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
async def test_a_mistake_names_the_member_that_was_sent(client: AsyncOpenAI, case: str) -> None:
    members, param, words = MISTAKES[case]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.fine_tuning.jobs.create(**{"model": TINY, "training_file": "ratings"} | members)
    assert caught.value.param == param
    assert re.search(words, caught.value.message), caught.value.message


async def test_what_is_no_json_has_no_member(rest: Rest) -> None:
    headers = {"Authorization": "Bearer editor", "Content-Type": "application/json"}
    response = await rest.client.post("/v1/fine_tuning/jobs", content=b"{", headers=headers)
    assert (response.status_code, response.json()["error"]["param"]) == (400, None)


@pytest.mark.parametrize("case", ERRORS)
async def test_errors_are_those_that_the_client_knows(client: AsyncOpenAI, case: str) -> None:
    key, members, kind, words = ERRORS[case]
    with pytest.raises(kind) as caught:
        await client.with_options(api_key=key).fine_tuning.jobs.create(
            **{"model": TINY, "training_file": "ratings"} | members
        )
    assert words in str(caught.value)
    assert caught.value.code


@pytest.mark.parametrize(
    ("path", "is_openais"),
    [
        ("/v1/chat/completions", True),
        ("/v1/completions", True),
        ("/v1/embeddings", True),
        ("/v1/fine_tuning", True),
        ("/v1/fine_tuning/nothing", True),
        ("/v1/models/plato/nothing", True),
        ("/v1/modelsx", True),
        ("/v1/responses", True),
        ("/v1/fine-tuning/nothing", False),
        ("/v1/api-keys/nothing/more", False),
        ("/nothing", False),
    ],
)
async def test_whose_paths_have_errors_in_openais_form(rest: Rest, path: str, is_openais: bool) -> None:
    response = await rest.ask("PATCH", path)
    assert response.status_code in (404, 405)
    assert ("error" in response.json()) == is_openais


async def test_unknown_jobs_and_finished_ones(rest: Rest, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no FineTuneJob gone"):
        await client.fine_tuning.jobs.retrieve("ftjob-finetune.gone")
    with pytest.raises(openai.BadRequestError):
        await client.fine_tuning.jobs.retrieve("plato-1")
    put_job(rest, status={"phase": "Succeeded"})
    with pytest.raises(openai.BadRequestError, match="has ended"):
        await client.fine_tuning.jobs.cancel("ftjob-finetune.plato-1")
    rest.cluster.away = True
    with pytest.raises(openai.InternalServerError) as caught:
        await client.fine_tuning.jobs.retrieve("ftjob-finetune.plato-1")
    assert caught.value.response.headers["retry-after"]


DATASET = f"alpaca-{'0' * 32}"
FILE = f"file-finetune.{'0' * 32}"
PATH = f"file-{'0' * 32}/data.jsonl"
REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the base model's family": (
        {"model": "Qwen/Qwen3-0.6B@v1"},
        {"model": "qwen3-0-6b", "base_model": "Qwen/Qwen3-0.6B@v1"},
    ),
    "a long suffix": ({"suffix": "a-" * 30}, {"model": "a-" * 19 + "a"}),
    "an exported dataset": ({"training_file": DATASET}, {"dataset_path": f"{DATASET}/train.jsonl", "format": "alpaca"}),
    "as a file": ({"training_file": f"file-{DATASET}"}, {"dataset_path": f"{DATASET}/train.jsonl", "format": "alpaca"}),
    "a volume": ({"training_file": "volume://c/p.jsonl"}, {"dataset_path": "volume://c/p.jsonl", "format": "openai"}),
    "an uploaded file": (
        {"training_file": FILE},
        {"dataset_path": PATH, "format": "openai", "namespace": "finetune"},
    ),
    "two uploaded files": ({"training_file": FILE, "validation_file": FILE}, {"validation_path": PATH}),
    "without a GPU": ({"quantization": "none"}, {"quantization": "none"}),
    "auto": ({"hyperparameters": {"n_epochs": "auto", "batch_size": 2}}, {"batch_size": 2}),
    "pairs": (
        {"training_file": "s3://b/k", "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}},
        {"method": "dpo", "dpo_beta": 0.2, "dataset_path": "s3://b/k"},
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests(case: str) -> None:
    body, expected = REQUESTS[case]
    little = {"model": TINY, "training_file": "ratings"}
    found = job_request(FineTuningRequest.model_validate(little | body)).model_dump(mode="json", exclude_unset=True)
    shown = {name: float(found[name]) if isinstance(value, float) else found[name] for name, value in expected.items()}
    assert shown == expected
    assert ("format" in found) == (found.get("method") != "dpo")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"validation_file": "file-1"}, "validation_file: send the id of a file that was uploaded"),
        ({"validation_file": FILE}, "validation_path goes with a dataset_path of"),
        ({"training_file": FILE, "validation_file": FILE.replace("finetune", "other")}, "not in finetune, other"),
        ({"training_file": FILE, "namespace": "other"}, "must be in one namespace, not in finetune, other"),
        ({"integrations": [{"type": "wandb"}]}, "spec.reportTo"),
        ({"suffix": "\u00e4"}, "letters from a to z"),
        ({"hyperparameters": {"learning_rate_multiplier": "1e-10"}}, "learning_rate: .*at most 24 characters"),
    ],
)
def test_what_is_not_taken_is_told(body: dict[str, Any], message: str) -> None:
    request = FineTuningRequest.model_validate({"model": TINY, "training_file": "ratings"} | body)
    with pytest.raises(WrongRequest, match=message):
        job_request(request)


@pytest.mark.parametrize("name", ["beta", "learning_rate_multiplier"])
def test_numbers_are_bounded(name: str) -> None:
    body = {"model": TINY, "training_file": "ratings", "hyperparameters": {name: "1e-100000000"}}
    with pytest.raises(ValidationError, match="at most 24 characters"):
        FineTuningRequest.model_validate(body)


def test_reinforcement_is_no_method() -> None:
    body = {"model": TINY, "training_file": "ratings", "method": {"type": "reinforcement"}}
    with pytest.raises(ValidationError, match="supervised"):
        FineTuningRequest.model_validate(body)
