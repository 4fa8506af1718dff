"""The loop's answer to what the API server says, with everything but the network real."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from finetune_operator.kube.errors import Conflict, Rejected, Unavailable
from finetune_operator.manifests.training import training_job_name, training_labels
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.shell import controller as shell_controller
from finetune_operator.shell.api import Api
from finetune_operator.shell.controller import Controller
from finetune_operator.shell.engines import Engines
from finetune_operator.shell.execute import Executor
from finetune_operator.shell.observe import Observer
from finetune_operator.shell.state import ClusterState
from tests.builders import (
    CONFIG,
    NAMESPACE,
    Object,
    batch_object,
    condition,
    job_body,
    job_condition,
    job_object,
    make_result,
    merged,
    terminated,
    training_pod,
    version_object,
    wire,
)
from tests.unit.shell.fake_cluster import FakeCluster
from tests.waiting import eventually, throughout

AT_PROVIDER = job_object(
    {
        "backend": "OpenAI",
        "openai": {"secretRef": {"name": "openai", "key": "api-key"}},
        "baseModel": {"source": {"volume": None, "openai": {"model": "gpt-4.1-mini"}}},
    },
    status={"jobName": "plato-ethics-1"},
)
INVALID = Rejected("spec.resources.requests: must be less than memory limit", 422)


@asynccontextmanager
async def operator(*objects: tuple[str, dict[str, Any]]) -> AsyncIterator[tuple[Controller, FakeCluster]]:
    """A running controller that is told of its own writes at once, and of nothing else."""
    async with aiohttp.ClientSession() as session:
        cluster, state = FakeCluster(*objects), ClusterState()
        engines = Engines(session, "", "http://127.0.0.1:9")
        for plural, body in objects:
            state.see(plural, body)
        api = Api(session, None, "")
        controller = Controller(
            cluster, state, Observer(state, engines, api), Executor(cluster, state, engines, api), CONFIG
        )
        task = asyncio.create_task(controller.run((NAMESPACE,)))
        try:
            yield controller, cluster
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


def stalled(cluster: FakeCluster, plural: str, name: str) -> str:
    status = cluster.objects[plural, name].get("status", {})
    return next((entry["reason"] for entry in status.get("conditions", []) if entry["type"] == "Stalled"), "")


async def test_a_new_job_gets_its_kubernetes_job_once() -> None:
    body = job_object(status={})
    async with operator(("finetunejobs", body)) as (controller, cluster):
        for _ in range(5):
            controller.changed("finetunejobs", body, deleted=False)
        await eventually(lambda: any(plural == "events" for _, plural, *_ in cluster.writes))
    assert [write[1] for write in cluster.writes] == ["jobs", "finetunejobs", "events"]


@pytest.mark.parametrize(
    ("plural", "child", "body", "reason"),
    [
        ("finetunejobs", "jobs", job_object(status={}), "InvalidConfig"),
        ("modelversions", "deployments", version_object(1, status={}), "EngineRefused"),
    ],
)
async def test_an_invalid_child_is_told_and_not_tried_again(
    plural: str, child: str, body: dict[str, Any], reason: str
) -> None:
    async with operator((plural, body)) as (controller, cluster):
        cluster.failures[child] = INVALID
        controller.changed(plural, body, deleted=False)
        name = body["metadata"]["name"]
        await eventually(lambda: stalled(cluster, plural, name) == reason)
        controller.changed(plural, cluster.objects[plural, name], deleted=False)
        await eventually(lambda: cluster.writes[-1][1] == "events")
    assert sum(write[1] == child for write in cluster.writes) == 1


def trained() -> tuple[Object, tuple[str, Object], tuple[str, Object]]:
    """A FineTuneJob, and its Job and pod after a training that went well."""
    body = job_object(status={"phase": "Training"})
    job = FineTuneJob.parse(body)
    complete = job_body(job.metadata.uid, name=training_job_name(job), conditions=(job_condition("Complete"),))
    pod = training_pod(phase="Succeeded", trainer=terminated(0, wire(make_result())), labels=training_labels(job))
    return body, ("jobs", complete), ("pods", pod)


async def test_a_version_that_is_invalid_is_told_with_what_was_trained() -> None:
    body, *children = trained()
    async with operator(("finetunejobs", body), *children) as (controller, cluster):
        cluster.failures["modelversions"] = INVALID
        controller.changed("finetunejobs", body, deleted=False)
        await eventually(lambda: stalled(cluster, "finetunejobs", "plato-ethics") == "InvalidConfig")
    status = cluster.objects["finetunejobs", "plato-ethics"]["status"]
    uri = "volume://artifacts/finetune/plato/uid-of-plato-ethics/adapter"
    assert status["message"] == (
        f"trained, but the API server refused ModelVersion plato-v1: {INVALID}: "
        f"its artifact is {uri}; create that ModelVersion without what is refused, or a new FineTuneJob"
    )
    assert status["result"]["finalLoss"] == "0.234"
    assert "modelVersion" not in status


@pytest.mark.parametrize("phase", ["begins", "ends"])
async def test_a_status_that_is_refused_fails_no_training_and_is_a_defect(phase: str) -> None:
    body, children = (job_object(status={}), ()) if phase == "begins" else (trained()[0], trained()[1:])
    with capture_logs() as logs:
        async with operator(("finetunejobs", body), *children) as (controller, cluster):
            cluster.failures["finetunejobs"] = Rejected("status.message: Too long", 422)
            controller.changed("finetunejobs", body, deleted=False)
            await eventually(lambda: sum(write[1] == "finetunejobs" for write in cluster.writes) >= 2)
            del cluster.failures["finetunejobs"]
            wanted = "Pending" if phase == "begins" else "Succeeded"
            await eventually(lambda: cluster.objects["finetunejobs", "plato-ethics"]["status"].get("phase") == wanted)
    assert stalled(cluster, "finetunejobs", "plato-ethics") == ""
    assert ("error", "a status is refused by its own schema: a defect of the operator") in {
        (entry["log_level"], entry["event"]) for entry in logs
    }


async def test_a_patch_that_is_refused_fails_no_training() -> None:
    body, (_, job), _ = trained()
    job |= {"status": {}, "metadata": job["metadata"] | {"resourceVersion": "1"}}
    body["spec"]["suspend"] = True
    async with operator(("finetunejobs", body), ("jobs", job)) as (controller, cluster):
        cluster.failures["jobs"] = INVALID
        controller.changed("finetunejobs", body, deleted=False)
        await eventually(lambda: len(cluster.writes) >= 2)
        assert {write[:2] for write in cluster.writes} == {("patch", "jobs")}
        del cluster.failures["jobs"]
        await eventually(lambda: cluster.objects["finetunejobs", "plato-ethics"]["status"].get("phase") == "Suspended")


async def test_a_child_that_a_finalizer_holds_is_not_deleted_again_and_again() -> None:
    body = job_object({"cancel": True}, status={})
    held = job_body(body["metadata"]["uid"], name=training_job_name(FineTuneJob.parse(body)))
    held["metadata"]["deletionTimestamp"] = "2026-01-01T11:59:00Z"
    async with operator(("finetunejobs", body), ("jobs", held)) as (controller, cluster):
        controller.changed("finetunejobs", body, deleted=False)
        await eventually(lambda: "conditions" in cluster.objects["finetunejobs", "plato-ethics"]["status"])

        def quiet() -> None:
            assert [write[:2] for write in cluster.writes] == [("patch", "finetunejobs")]

        await throughout(quiet, seconds=0.5)


@pytest.mark.parametrize(
    "error", [Rejected("exceeded quota", 403), Unavailable("later", 503), Conflict("meanwhile", 409)]
)
async def test_what_may_pass_is_tried_again(error: Exception) -> None:
    body = job_object(status={})
    async with operator(("finetunejobs", body)) as (controller, cluster):
        cluster.failures["jobs"] = error
        controller.changed("finetunejobs", body, deleted=False)
        await eventually(lambda: len(cluster.writes) >= 1)
        del cluster.failures["jobs"]
        await eventually(lambda: cluster.objects["finetunejobs", "plato-ethics"]["status"].get("phase") == "Pending")
    assert stalled(cluster, "finetunejobs", "plato-ethics") == ""


async def test_a_training_at_a_provider_is_cancelled_there_when_its_finetunejob_is_deleted() -> None:
    async with operator() as (controller, cluster):
        for _ in range(2):
            controller.changed("finetunejobs", AT_PROVIDER, deleted=True)
        await eventually(lambda: cluster.objects)

        def quiet() -> None:
            assert {write[:2] for write in cluster.writes} == {("create", "jobs")}
            assert len(cluster.writes) <= 2

        await throughout(quiet, seconds=0.3)
    (made,) = cluster.objects.values()
    assert made["spec"]["template"]["spec"]["containers"][0]["args"][:2] == ["train-remote", "--cancel"]


async def test_where_its_namespace_goes_too_a_deleted_training_is_only_told_of() -> None:
    with capture_logs() as logs:
        async with operator() as (controller, cluster):
            cluster.failures["jobs"] = Rejected("forbidden: because it is being terminated", 403)
            controller.changed("finetunejobs", AT_PROVIDER, deleted=True)
            await eventually(lambda: [entry for entry in logs if "remote strays" in entry["event"]])

            def quiet() -> None:
                assert len(cluster.writes) == 1

            await throughout(quiet, seconds=0.5)


async def test_a_quota_that_is_used_up_only_delays_the_cancellation_at_the_provider() -> None:
    async with operator() as (controller, cluster):
        cluster.failures["jobs"] = Rejected("forbidden: exceeded quota", 403)
        controller.changed("finetunejobs", AT_PROVIDER, deleted=True)
        await eventually(lambda: len(cluster.writes) > 1)
        del cluster.failures["jobs"]
        await eventually(lambda: cluster.objects)


def loaded(number: int) -> dict[str, Any]:
    """A version that its engine has."""
    return version_object(number, status={"conditions": [condition("Loaded")]})


async def test_a_batch_begins_when_its_version_is_loaded() -> None:
    body, absent = batch_object(status={}), version_object(1)
    async with operator(("batchinferences", body), ("modelversions", absent)) as (controller, cluster):
        controller.changed("batchinferences", body, deleted=False)
        await eventually(lambda: cluster.objects["batchinferences", "answers"]["status"].get("phase") == "Pending")
        assert not [write for write in cluster.writes if write[1] == "jobs"]
        ready = loaded(1)
        ready["metadata"]["resourceVersion"] = "2"
        controller._state.see("modelversions", ready)
        controller.changed("modelversions", ready, deleted=False)
        await eventually(lambda: [write for write in cluster.writes if write[:2] == ("create", "jobs")])


async def test_a_batch_whose_job_is_invalid_is_told_and_not_tried_again() -> None:
    body = batch_object(status={})
    async with operator(("batchinferences", body), ("modelversions", loaded(1))) as (controller, cluster):
        cluster.failures["jobs"] = INVALID
        controller.changed("batchinferences", body, deleted=False)
        await eventually(lambda: stalled(cluster, "batchinferences", "answers") == "InvalidConfig")
        controller.changed("batchinferences", cluster.objects["batchinferences", "answers"], deleted=False)
        await eventually(lambda: cluster.writes[-1][1] == "events")
    assert sum(write[1] == "jobs" for write in cluster.writes) == 1


@pytest.mark.parametrize("is_brought", [True, False])
async def test_a_watch_that_does_not_bring_what_listings_tell_fails_the_probe(
    monkeypatch: pytest.MonkeyPatch, is_brought: bool
) -> None:
    hours = iter((0, 3600, 7200))
    monkeypatch.setattr(shell_controller, "time", SimpleNamespace(monotonic=lambda: float(next(hours))))
    job = merged(job_body("uid-of-somebody"), {"metadata": {"resourceVersion": "7"}})
    async with operator(("jobs", job)) as (controller, cluster):
        if is_brought:
            controller.brought("jobs", job)
        await controller._resync("jobs", NAMESPACE)
        assert controller.complaint() is None, "it may yet come"
        await controller._resync("jobs", NAMESPACE)
        assert (controller.complaint() is None) == is_brought
        cluster.objects.clear()
        await controller._resync("jobs", NAMESPACE)
        assert controller.complaint() is None, "nobody misses what is gone"
