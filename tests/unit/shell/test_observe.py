"""What the reconciles are shown."""

import aiohttp

from finetune_operator.core.workloads import PodFacts
from finetune_operator.manifests.batch_inference import batch_job_name
from finetune_operator.manifests.common import BATCH_UID_LABEL, EVALUATION_LABEL, VERSION_UID_LABEL
from finetune_operator.manifests.evaluation import evaluation_id
from finetune_operator.manifests.serving import engine_name
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.shell.api import Api
from finetune_operator.shell.engines import Engines
from finetune_operator.shell.observe import Observer
from finetune_operator.shell.state import ClusterState
from tests.builders import (
    NAMESPACE,
    NOON,
    abtest_object,
    deployment_body,
    job_body,
    make_batch,
    make_job,
    make_version,
    pod_body,
    version_object,
)

V1 = make_version(1)
assert V1.spec.serving
ENGINE = engine_name(V1.spec, V1.spec.serving)


class SlowEngines(Engines):
    """Engines during whose answer another version is made and loaded."""

    def __init__(self, session: aiohttp.ClientSession, state: ClusterState) -> None:
        super().__init__(session, "", "http://127.0.0.1:9")
        self.state = state

    async def observe(self, pods: tuple[PodFacts, ...], *, merged: bool = False) -> tuple[EnginePod, ...]:
        self.state.see("modelversions", version_object(2))
        return tuple(EnginePod(pod, listed={"plato-v1": "/a", "plato-v2": "/b"}) for pod in pods)


async def test_a_version_that_is_listed_is_always_known() -> None:
    """Otherwise the one would unload what was loaded for the other while it was looking."""
    async with aiohttp.ClientSession() as session:
        state = ClusterState()
        state.see("modelversions", version_object(1))
        state.see("pods", pod_body("mine", labels={"finetune.dev/engine": ENGINE}))
        other = pod_body("theirs", labels={"finetune.dev/engine": ENGINE})
        other["metadata"]["namespace"] = "elsewhere"
        state.see("pods", other)
        state.see("deployments", deployment_body(ENGINE, revision="r1"))
        observer = Observer(state, SlowEngines(session, state), Api(session, None, ""))
        seen = await observer.modelversion(V1)
    assert [version.metadata.name for version in seen.versions] == ["plato-v1", "plato-v2"]
    assert [entry.pod.name for entry in seen.pods] == ["mine"]
    assert seen.deployment is not None
    assert seen.deployment.revision == "r1"


async def test_engines_that_were_made_for_a_version_are_seen_until_they_are_gone() -> None:
    """By their owner references: a status tells only of one of them."""
    async with aiohttp.ClientSession() as session:
        state = ClusterState()
        state.see("modelversions", version_object(1))
        for name, owner in ((ENGINE, "plato-v1"), ("vllm-former", "plato-v1"), ("vllm-of-another", "plato-v2")):
            body = deployment_body(name)
            body["metadata"]["ownerReferences"] = [{"uid": f"uid-of-{owner}"}]
            state.see("deployments", body)
        state.see("pods", pod_body("old", labels={"finetune.dev/engine": "vllm-former"}))
        seen = await Observer(state, SlowEngines(session, state), Api(session, None, "")).modelversion(V1)
    assert [(engine.name, [entry.pod.name for entry in engine.pods]) for engine in seen.left] == [
        ("vllm-former", ["old"])
    ]
    assert seen.deployment is not None


async def test_pods_of_a_deployment_that_was_made_anew_are_not_those_of_the_former_one() -> None:
    async with aiohttp.ClientSession() as session:
        state = ClusterState()
        state.see("modelversions", version_object(1))
        deployment = deployment_body(ENGINE)
        deployment["metadata"]["creationTimestamp"] = "2026-11-22T12:00:05Z"
        state.see("deployments", deployment)
        for name, created in (("left", "2026-11-22T12:00:04Z"), ("new", "2026-11-22T12:00:05Z")):
            pod = pod_body(name, labels={"finetune.dev/engine": ENGINE})
            pod["metadata"]["creationTimestamp"] = created
            state.see("pods", pod)
        seen = await Observer(state, SlowEngines(session, state), Api(session, None, "")).modelversion(V1)
    assert [entry.pod.name for entry in seen.pods] == ["new"]


async def test_a_registered_version_has_no_engine_to_look_at() -> None:
    async with aiohttp.ClientSession() as session:
        state = ClusterState()
        observer = Observer(state, Engines(session, "", "http://127.0.0.1:9"), Api(session, None, ""))
        seen = await observer.modelversion(make_version(1, {"serving": None}))
    assert (seen.pods, seen.deployment) == ((), None)


async def test_without_an_api_there_is_no_news() -> None:
    job = make_job(status={"phase": "Training"})
    async with aiohttp.ClientSession() as session:
        state = ClusterState()
        state.see("jobs", job_body(job.metadata.uid, name="plato-ethics-c1edb0df"))
        state.see("modelversions", version_object(1))
        observer = Observer(state, Engines(session, "", ""), Api(session, None, ""))
        seen = await observer.finetunejob(job)
    assert seen.progress is None
    assert seen.job is not None
    assert [version.metadata.namespace for version in seen.versions] == [NAMESPACE]
    assert isinstance(seen.versions[0], ModelVersion)


async def test_a_version_sees_its_evaluators_and_of_these_the_pods_of_what_is_asked_for_now() -> None:
    version = make_version(1, {"evaluation": {"metrics": ["F1"]}})
    uid, identity = version.metadata.uid, evaluation_id(version.spec)
    assert identity is not None
    async with aiohttp.ClientSession() as session:
        state = ClusterState()
        for name, evaluation in (("now", identity), ("before", "0123456789ab")):
            own = {VERSION_UID_LABEL: uid, EVALUATION_LABEL: evaluation}
            state.see("jobs", job_body(uid, name=name, labels=own))
            state.see("pods", pod_body(f"{name}-1", labels=own))
        api = Api(session, None, "")
        api.recorded["e1"] = NOON
        seen = await Observer(state, Engines(session, "", "http://127.0.0.1:9"), api).modelversion(version)
    assert {job.name for job in seen.evaluation.jobs} == {"now", "before"}
    assert [pod.name for pod in seen.evaluation.pods] == ["now-1"]
    assert seen.evaluation.recorded == {("e1", NOON)}


async def test_a_batch_sees_its_job_its_pods_and_the_abtest_that_it_names() -> None:
    batch = make_batch({"compareWith": {"base": True}, "abTest": {"name": "duel"}})
    own = {BATCH_UID_LABEL: batch.metadata.uid}
    async with aiohttp.ClientSession() as session:
        state = ClusterState()
        state.see("jobs", job_body(batch.metadata.uid, name=batch_job_name(batch), labels=own))
        state.see("pods", pod_body("mine", labels=own))
        state.see("pods", pod_body("theirs", labels={BATCH_UID_LABEL: "another"}))
        state.see("abtests", abtest_object())
        state.see("modelversions", version_object(1))
        observer = Observer(state, Engines(session, "", "http://127.0.0.1:9"), Api(session, None, ""))
        seen = await observer.batch_inference(batch)
    assert seen.job is not None
    assert [pod.name for pod in seen.pods] == ["mine"]
    assert seen.test is not None
    assert [version.metadata.name for version in seen.versions] == ["plato-v1"]
    assert seen.progress is None
