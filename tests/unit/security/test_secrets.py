"""Secrets are nowhere but where they are used: not in manifests, argv, files, termination messages, status or logs.

Each secret of the product is a canary here, and whoever it is told to repeats it. What the trainer's image does with
its own is in tests/images/test_trackers.py, a training at a provider as a whole in tests/unit/providers.
"""

import json
import re
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import kopf
import pytest
import yaml
from structlog.testing import capture_logs

from finetune_operator.contract.adapters import Adapter
from finetune_operator.contract.dataset import DatasetConfig, ObjectSource, RatingsSource, StoredSource
from finetune_operator.contract.experiments import AnswerPairs, Sample
from finetune_operator.contract.failures import Refused
from finetune_operator.contract.places import (
    BATCH_CONTAINER,
    DATABASE_URL_VARIABLE,
    ENGINE_API_KEY_VARIABLE,
    ENGINE_CONTAINER,
    EVALUATOR_CONTAINER,
    FETCH_CONTAINER,
    HUB_TOKEN_VARIABLE,
    INTERNAL_TOKEN_VARIABLE,
    PREPARE_CONTAINER,
    PROVIDER_KEY_VARIABLE,
    STORE_CREDENTIAL_VARIABLES,
    TRAINER_CONTAINER,
)
from finetune_operator.contract.training import JobIdentity, LoraConfig, Progress, TrainingConfig, TrainingParameters
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.evaluator.batch_pairs import Sender
from finetune_operator.evaluator.engine import Engine, EngineRefused, Patience
from finetune_operator.evaluator.engine import EngineUnavailable as NoAnswer
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.outbox import ApiAway
from finetune_operator.gateway.samples import SampleSender
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import KubeError
from finetune_operator.manifests.training_parameters import MLFLOW_TOKEN_VARIABLE, WANDB_KEY_VARIABLE
from finetune_operator.providers.fine_tuning_client import FineTuningClient, Unanswered
from finetune_operator.reconcile.finetunejob import Observed, reconcile
from finetune_operator.shell.api import Api
from finetune_operator.shell.engines import Engines, EngineUnavailable
from finetune_operator.store import base_models, prepare
from finetune_operator.store.datasets import stored
from finetune_operator.store.reporting import Reporter
from tests.builders import CONFIG, DIGEST, NOON, job_body, job_condition, make_job, pod_body, terminated, training_pod
from tests.unit.security.careless_server import careless_http, careless_postgres

GOLDEN = Path(__file__).parents[2] / "golden"
CANARY = 'Can4ry\'s \\ "p%w0rd"  @/:é'
TOKEN = "canary-0123456789abcdef"  # noqa: S105 - of a test, as a header can hold it
HOWS = ("error", "page", "loop")
JOB = JobIdentity(namespace="ns", name="plato", uid="uid-1")


def assert_nowhere(secret: str, *texts: str) -> None:
    """Not even a part of it."""
    marks = ("Can4ry", "w0rd") if secret == CANARY else (secret[:12],)
    assert [text for text in texts for mark in marks if mark in text] == []


USED_BY: Mapping[str, frozenset[str]] = {
    PREPARE_CONTAINER: frozenset(
        {DATABASE_URL_VARIABLE, HUB_TOKEN_VARIABLE, INTERNAL_TOKEN_VARIABLE, *STORE_CREDENTIAL_VARIABLES}
    ),
    FETCH_CONTAINER: frozenset({HUB_TOKEN_VARIABLE}),
    TRAINER_CONTAINER: frozenset(
        {INTERNAL_TOKEN_VARIABLE, PROVIDER_KEY_VARIABLE, MLFLOW_TOKEN_VARIABLE, WANDB_KEY_VARIABLE}
    ),
    ENGINE_CONTAINER: frozenset({ENGINE_API_KEY_VARIABLE}),
    EVALUATOR_CONTAINER: frozenset({DATABASE_URL_VARIABLE, ENGINE_API_KEY_VARIABLE, *STORE_CREDENTIAL_VARIABLES}),
    BATCH_CONTAINER: frozenset(
        {DATABASE_URL_VARIABLE, ENGINE_API_KEY_VARIABLE, INTERNAL_TOKEN_VARIABLE, *STORE_CREDENTIAL_VARIABLES}
    ),
}
SECRETS = frozenset().union(*USED_BY.values())
LOOKS_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL|DATABASE_URL")


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of all manifests that were reviewed, which are those that the product makes."""
    for file in sorted(GOLDEN.glob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text()):
            pod = (manifest.get("spec") or {}).get("template", {}).get("spec", {})
            for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
                yield f"{file.stem}/{container['name']}", container


@pytest.mark.parametrize("container", [pytest.param(found, id=name) for name, found in containers()])
def test_a_container_has_its_own_secrets_alone_and_each_by_reference(container: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in container["env"]}
    referred = {name for name, variable in variables.items() if "secretKeyRef" in variable.get("valueFrom", {})}
    assert {name for name in variables if name in SECRETS or LOOKS_SECRET.search(name)} == referred
    assert referred <= USED_BY[container["name"]]
    words = json.dumps([container.get("command", []), container.get("args", [])])
    assert not referred & set(re.findall(r"\$\((\w+)\)", words)), "Kubernetes would write it into argv"
    assert "envFrom" not in container


def test_the_reviewed_manifests_use_every_secret_there_is() -> None:
    used = {variable["name"] for _, container in containers() for variable in container["env"]}
    assert SECRETS - used == set()


def config(source: RatingsSource | ObjectSource | StoredSource) -> TrainingConfig:
    return TrainingConfig(
        job=JOB,
        model="plato",
        method="SFT",
        backend="Unsloth",
        base_model_name="tiny",
        base_model_path="tiny",
        dataset=DatasetConfig(source=source, database_timeout_seconds=0.5),
        lora=LoraConfig(),
        training=TrainingParameters(),
    )


class Pod:
    """The volumes of a pod whose containers run in this process; what they say is on standard error."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "models" / "tiny").mkdir(parents=True)
        (root / "models" / "tiny" / "config.json").write_text("{}")
        for name in ("datasets", "artifacts"):
            (root / name).mkdir()

    def prepare(self, source: RatingsSource | ObjectSource | StoredSource, environment: Mapping[str, str]) -> int:
        file, root = self.root / "training.json", self.root
        file.write_text(config(source).model_dump_json(by_alias=True))
        surroundings = prepare.Surroundings(
            root / "models", root / "datasets", root / "artifacts", root / "termination-log"
        )
        return prepare.main(file, surroundings, environment)

    @property
    def said(self) -> str:
        return (self.root / "termination-log").read_text()

    def assert_nowhere(self, secret: str, log: str, exit_code: int) -> None:
        """Neither in what the containers wrote, nor in what the operator makes of that."""
        assert log, "there is a log to look at"
        files = [path.read_text(errors="replace") for path in self.root.rglob("*") if path.is_file()]
        pod = training_pod(prepare=terminated(exit_code, self.said), phase="Failed")
        job = make_job()
        failed = job_facts(job_body(job.metadata.uid, conditions=(job_condition("Failed", "PodFailurePolicy"),)))
        plan = reconcile(job, Observed(failed, (pod_facts(pod),)), NOON, CONFIG)
        assert plan.status is not None
        assert plan.status["phase"] == "Failed"
        assert_nowhere(secret, log, *files, json.dumps(plan.status, ensure_ascii=False), repr(plan.events))


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


class TestDatabaseUrl:
    """Its password has all that is written otherwise in a URL, in libpq's own form and in SQL."""

    def test_a_server_that_repeats_the_password(self, pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
        with careless_postgres() as port:
            url = f"postgresql://plato:{quote(CANARY, safe='')}@127.0.0.1:{port}/ratings"
            code = pod.prepare(RatingsSource(), {DATABASE_URL_VARIABLE: url})
        assert "password authentication failed, it was ***" in pod.said
        pod.assert_nowhere(CANARY, capfd.readouterr().err, code)

    def test_a_server_that_is_away(self, pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
        url = f"postgresql://plato:{quote(CANARY, safe='')}@127.0.0.1:9/ratings?sslpassword={quote(CANARY)}"
        code = pod.prepare(RatingsSource(), {DATABASE_URL_VARIABLE: url})
        assert "127.0.0.1" in pod.said
        pod.assert_nowhere(CANARY, capfd.readouterr().err, code)

    @pytest.mark.parametrize(
        "url",
        [
            f"postgres//plato:{CANARY}@h/d",
            f"postgresql://plato:{CANARY}@h:port/d",
            f"mysql://plato:{quote(CANARY)}@h/d",
            f"postgresql://plato:{quote(CANARY)}@127.0.0.1:9/d?no_such_option={quote(CANARY)}",
            f"sqlite:///{CANARY}",
        ],
    )
    def test_a_url_that_is_wrong(self, pod: Pod, capfd: pytest.CaptureFixture[str], url: str) -> None:
        code = pod.prepare(RatingsSource(), {DATABASE_URL_VARIABLE: url})
        if not url.startswith("sqlite"):  # a path is no secret, and the user has to know it
            pod.assert_nowhere(CANARY, capfd.readouterr().err, code)


def test_credentials_of_a_store_that_repeats_them(pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
    with careless_http(CANARY) as url:
        source = ObjectSource(url="s3://data/rows.jsonl", endpoint=f"{url}/error")
        code = pod.prepare(source, dict(zip(STORE_CREDENTIAL_VARIABLES, ("key-id", CANARY), strict=True)))
    assert "s3://data/rows.jsonl" in pod.said
    pod.assert_nowhere(CANARY, capfd.readouterr().err, code)


@pytest.mark.parametrize("token", [TOKEN, f"{TOKEN}\n", CANARY])
@pytest.mark.parametrize("how", HOWS)
def test_the_token_of_an_api_that_repeats_it(
    pod: Pod, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str, token: str
) -> None:
    monkeypatch.setattr(stored, "BACKOFF_FIRST_SECONDS", 0.0)
    with careless_http() as url:
        source = StoredSource(path=f"file-{'0' * 32}/data.jsonl", url=f"{url}/{how}")
        code = pod.prepare(source, {INTERNAL_TOKEN_VARIABLE: token})
    assert pod.said
    pod.assert_nowhere(token.strip() if token != CANARY else token, capfd.readouterr().err, code)


@pytest.mark.parametrize("how", HOWS)
def test_the_token_of_a_hub_that_repeats_it(pod: Pod, capfd: pytest.CaptureFixture[str], how: str) -> None:
    root = pod.root
    surroundings = base_models.Surroundings(
        root / "models", root / "artifacts", root / "termination-log", waits_seconds=(), wait=lambda _: None
    )
    with careless_http() as url:
        environment = {"HF_ENDPOINT": f"{url}/{how}", HUB_TOKEN_VARIABLE: TOKEN}
        assert base_models.main("Qwen/Qwen3-tiny", "main", None, surroundings, environment) != 0
    files = [path.read_text(errors="replace") for path in root.rglob("*") if path.is_file()]
    assert_nowhere(TOKEN, capfd.readouterr().err, *files)


Client = Callable[[aiohttp.ClientSession, str], Awaitable[None]]


async def _ask_the_api(session: aiohttp.ClientSession, url: str) -> None:
    await Api(session, url, TOKEN).progress("uid-1")


async def _load_an_adapter(session: aiohttp.ClientSession, url: str) -> None:
    """What goes wrong is shown in the version's status."""
    engines = Engines(session, TOKEN, url)
    facts = replace(pod_facts(pod_body()), ready=True)
    try:
        await engines.load(facts.uid, "10.0.0.1", Adapter(name="plato-v1", path="/artifacts/a", digest=DIGEST))
    except EngineUnavailable as error:
        (seen,) = await engines.observe((facts,))
        assert_nowhere(TOKEN, *seen.failing.values(), repr(seen))
        raise error from None


async def _evaluate(session: aiohttp.ClientSession, url: str) -> None:
    """What the evaluator says last is in the version's status."""
    patience = Patience(outage_seconds=0.1, first_wait_seconds=0.2)
    await Engine(session, url, TOKEN, patience).prompt("plato-v1", [{"role": "user", "content": "Why?"}])


async def _ask_kubernetes(session: aiohttp.ClientSession, url: str) -> None:
    client = KubeClient(session, kopf.ConnectionInfo(server=url, token=TOKEN))
    await client.create("jobs", "finetune", {"metadata": {"name": "x"}})


async def _watch_kubernetes(session: aiohttp.ClientSession, url: str) -> None:
    client = KubeClient(session, kopf.ConnectionInfo(server=url, token=TOKEN))
    _ = [event async for event in client.watch("jobs", "finetune", "1")]


async def _send_samples(session: aiohttp.ClientSession, url: str) -> None:
    sender = SampleSender(session, url, TOKEN, Metrics().samples)
    values = {"ab_test": "uid", "arm": "candidate", "served_name": "plato-v1", "status": 200, "latency_ms": 5}
    sender.add(Sample.model_validate(values | {"request_id": "r", "time": NOON}))
    await sender._send(5.0)


async def _report_progress(session: aiohttp.ClientSession, url: str) -> None:
    point = Progress(job=JOB, attempt="a", step=1, total_steps=2, epoch=0.5, total_epochs=1.0, time=NOON)
    await Reporter(session, url, TOKEN).report([point])


async def _send_pairs(session: aiohttp.ClientSession, url: str) -> None:
    """Why there is nothing to vote on is in the batch's status."""
    patience = Patience(outage_seconds=0.1, first_wait_seconds=0.2)
    sent = AnswerPairs(baseline_served_name="tiny", candidate_served_name="plato-v1", pairs=())
    await Sender(session, TOKEN, patience).put(url, sent)


async def _ask_a_provider(session: aiohttp.ClientSession, url: str) -> None:
    await FineTuningClient(session, url, TOKEN).job("ftjob-1")


ERRORS = (ApiAway, EngineRefused, EngineUnavailable, KubeError, NoAnswer, Refused, Unanswered)
CLIENTS: Mapping[str, tuple[Client, bool]] = {
    "api": (_ask_the_api, False),
    "engine": (_load_an_adapter, False),
    "evaluator": (_evaluate, False),
    "kubernetes": (_ask_kubernetes, False),
    "kubernetes, watched": (_watch_kubernetes, False),
    "samples": (_send_samples, False),
    "progress": (_report_progress, False),
    "pairs": (_send_pairs, False),
    "provider": (_ask_a_provider, True),
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("ask", "is_foreign"), CLIENTS.values(), ids=CLIENTS)
async def test_a_token_is_in_no_error_and_no_log(ask: Client, is_foreign: bool, how: str) -> None:
    """Our own servers are not careless, but what is between them may answer in their place."""
    said: list[str] = []
    with careless_http("" if is_foreign else "the server's own words") as url, capture_logs() as logs:
        async with aiohttp.ClientSession() as session:
            try:
                await ask(session, f"{url}/{how}")
            except ERRORS as error:
                said += [str(error), repr(error), "".join(traceback.format_exception(error))]
                if isinstance(error, Refused):
                    said.append(error.failure.model_dump_json())
    said += [repr(entry) for entry in logs]
    assert said or how == "page", "it is told that something is wrong"
    assert_nowhere(TOKEN, *said)
