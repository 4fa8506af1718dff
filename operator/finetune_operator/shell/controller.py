"""The loop: something changed -> key -> observe -> reconcile (pure) -> execute."""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from finetune_operator.core.config import OperatorConfig
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Conflict, KubeError, NotFound, Rejected
from finetune_operator.logs import cause, get_logger
from finetune_operator.manifests.common import (
    BATCH_NAME_LABEL,
    CHILD_SELECTOR,
    ENGINE_LABEL,
    JOB_NAME_LABEL,
    VERSION_NAME_LABEL,
)
from finetune_operator.manifests.serving import wanted_engine
from finetune_operator.reconcile import abtest, batch_inference, finetunejob, modelversion
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import BatchInference
from finetune_operator.resources.common import Resource
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.shell.execute import ChildRejected, Executor, StatusRejected
from finetune_operator.shell.observe import Observer
from finetune_operator.shell.queue import WorkQueue
from finetune_operator.shell.state import ClusterState
from finetune_operator.shell.vitality import Vitality

WORKERS = 16
RESYNC_SECONDS = 600.0
CONFLICT_SECONDS = 0.3
CUSTOM_PLURALS = ("finetunejobs", "modelversions", "abtests", "batchinferences")
# Of keys only: by uid, since a new FineTuneJob may have taken the name.
DELETED_JOBS = "finetunejobs/deleted"
NAMESPACE_GOES = "because it is being terminated"
"""Of the API server's words, for which it has no code of its own."""
CHILD_PLURALS = ("jobs", "pods", "deployments")

logger = get_logger(__name__)


class Key(NamedTuple):
    """What a reconcile works on."""

    plural: str
    namespace: str
    name: str


class Controller:
    """Turns changes into keys, and keys into reconciles."""

    def __init__(
        self, client: KubeClient, state: ClusterState, observer: Observer, executor: Executor, config: OperatorConfig
    ) -> None:
        self._client = client
        self._state = state
        self._observer = observer
        self._executor = executor
        self._config = config
        self._queue: WorkQueue[Key] = WorkQueue(_report)
        self._deleted: dict[Key, FineTuneJob] = {}
        self._vitality = Vitality()

    def brought(self, plural: str, body: dict[str, Any]) -> None:
        """A watch has told of an object that is there; of its end `changed` hears."""
        self._vitality.brought(plural, body)

    def complaint(self) -> str | None:
        """Why this process should be replaced, if it should: asked by the liveness probe."""
        return self._vitality.complaint(self._queue.unfinished_seconds())

    def changed(self, plural: str, body: dict[str, Any], *, deleted: bool) -> None:
        """A watch brought an object; the state has it already."""
        if deleted:
            self._state.forget(plural, body)
            self._vitality.gone(plural, body)
            if plural == "pods":
                self._observer.engines.forget(body["metadata"]["uid"])
        for key in self._affected(plural, body):
            self._queue.add(key)
        if deleted and plural == "finetunejobs":
            self._bury(FineTuneJob.parse(body))

    def _bury(self, job: FineTuneJob) -> None:
        """What a deleted FineTuneJob leaves outside of the cluster is ended by a plan of its own."""
        if finetunejob.abandoned(job, self._config).actions:
            key = Key(DELETED_JOBS, job.metadata.namespace, job.metadata.uid)
            self._deleted[key] = job
            self._queue.add(key)

    async def run(self, namespaces: Iterable[str]) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(self._handle, WORKERS))
            group.create_task(self._resync_for_ever(tuple(namespaces)))

    async def _handle(self, key: Key) -> float | None:
        if job := self._deleted.get(key):
            await self._abandon(job)
            del self._deleted[key]
            return None
        resource, plan = await self._decide(key)
        if resource is None or plan is None:
            return None
        body = self._state.get(*key)
        old_status = body["status"] if body else {}
        try:
            acted = await self._executor.execute(resource, old_status, plan)
        except Conflict:
            # Somebody wrote in between; the watch brings it, and the decision is made anew.
            return CONFLICT_SECONDS
        except ChildRejected as error:
            verdict = await self._refused(resource, error)
            if verdict is None:
                raise
            try:
                await self._executor.execute(resource, old_status, verdict)
            except Conflict:
                return CONFLICT_SECONDS
            return None
        if acted:
            self._queue.add(key)
        return plan.requeue_after_seconds

    async def _abandon(self, job: FineTuneJob) -> None:
        """No owner is left to tell how it went: the log is."""
        name, namespace = job.metadata.name, job.metadata.namespace
        try:
            await self._executor.execute(job, {}, finetunejob.abandoned(job, self._config))
        except Conflict:
            logger.info("the training at its provider is being cancelled already", name=name, namespace=namespace)
        except (NotFound, Rejected) as error:
            if isinstance(error, Rejected) and NAMESPACE_GOES not in str(error):
                raise
            # With the namespace goes the key; a pod that was running has asked for the cancellation itself.
            logger.error(
                "a deleted training may go on at its provider: look with `finetune-operator remote strays`",
                name=name,
                namespace=namespace,
                error=str(error),
            )

    async def _refused(self, resource: Resource, error: ChildRejected) -> Plan | None:
        """A child that is invalid stays so."""
        if not error.is_invalid:
            return None
        now = datetime.now(UTC)
        match resource:
            case FineTuneJob() if error.plural == "modelversions":
                seen = await self._observer.finetunejob(resource)
                return finetunejob.unpublished(resource, seen, error.body, str(error), now, self._config)
            case FineTuneJob():
                return finetunejob.refused(resource, str(error), now, self._config)
            case ModelVersion() if error.plural != "jobs":
                world = await self._observer.modelversion(resource)
                return modelversion.refused(resource, world, str(error), now, self._config)
            case BatchInference():
                return batch_inference.refused(resource, str(error), now, self._config)
        return None

    async def _decide(self, key: Key) -> tuple[Resource | None, Plan | None]:
        now = datetime.now(UTC)
        match key.plural:
            case "finetunejobs":
                if job := self._state.resource(FineTuneJob, *key):
                    seen = await self._observer.finetunejob(job)
                    return job, finetunejob.reconcile(job, seen, now, self._config)
            case "modelversions":
                if version := self._state.resource(ModelVersion, *key):
                    world = await self._observer.modelversion(version)
                    return version, modelversion.reconcile(version, world, now, self._config)
            case "abtests":
                if test := self._state.resource(ABTest, *key):
                    facts = await self._observer.abtest(test)
                    return test, abtest.reconcile(test, facts, now, self._config)
            case "batchinferences":
                if batch := self._state.resource(BatchInference, *key):
                    known = await self._observer.batch_inference(batch)
                    return batch, batch_inference.reconcile(batch, known, now, self._config)
        return None, None

    def _affected(self, plural: str, body: dict[str, Any]) -> Iterable[Key]:
        """Whom a change concerns. Too many costs a pure reconcile, too few a stuck object."""
        metadata = body["metadata"]
        namespace, name, labels = metadata["namespace"], metadata["name"], metadata.get("labels") or {}
        if plural in CUSTOM_PLURALS:
            yield Key(plural, namespace, name)
        if job_name := labels.get(JOB_NAME_LABEL):
            yield Key("finetunejobs", namespace, job_name)
        if version_name := labels.get(VERSION_NAME_LABEL):
            yield Key("modelversions", namespace, version_name)
        if batch_name := labels.get(BATCH_NAME_LABEL):
            yield Key("batchinferences", namespace, batch_name)
        if engine := labels.get(ENGINE_LABEL):
            for version in self._state.resources(ModelVersion, "modelversions", namespace):
                if engine in (version.status.engine, wanted_engine(version)):
                    yield Key("modelversions", namespace, version.metadata.name)
        if plural in ("modelversions", "abtests"):
            yield from self._relatives(namespace, body["spec"])
            for batch in self._state.resources(BatchInference, "batchinferences", namespace):
                if (plural, name) in batch_inference.needs(batch):
                    yield Key("batchinferences", namespace, batch.metadata.name)

    def _relatives(self, namespace: str, spec: dict[str, Any]) -> Iterable[Key]:
        """Versions that share an engine or a name, and the tests on that name."""
        for version in self._state.resources(ModelVersion, "modelversions", namespace):
            same_base = version.spec.base_model.name == spec.get("baseModel", {}).get("name")
            if version.spec.model == spec["model"] or same_base:
                yield Key("modelversions", namespace, version.metadata.name)
        for test in self._state.resources(ABTest, "abtests", namespace):
            if test.spec.model == spec["model"]:
                yield Key("abtests", namespace, test.metadata.name)

    async def _resync_for_ever(self, namespaces: tuple[str, ...]) -> None:
        """A watch that was cut may miss a deletion; a listing now and then finds what has vanished."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            for namespace in namespaces:
                for plural in (*CUSTOM_PLURALS, *CHILD_PLURALS):
                    try:
                        await self._resync(plural, namespace)
                    except KubeError as error:
                        logger.warning("resync failed, the next one follows", kind=plural, error=str(error))

    async def _resync(self, plural: str, namespace: str) -> None:
        selector = CHILD_SELECTOR if plural in CHILD_PLURALS else ""
        bodies, listed_at = await self._client.list(plural, namespace, selector)
        self._vitality.listed(plural, namespace, bodies, time.monotonic())
        for gone in self._state.keep_only(plural, namespace, bodies, listed_at):
            self.changed(plural, gone, deleted=True)
        if plural in CUSTOM_PLURALS:
            for body in bodies:
                self._queue.add(Key(plural, namespace, body["metadata"]["name"]))


def _report(key: Key, error: Exception, again_after_seconds: float) -> None:
    is_defect = isinstance(error, StatusRejected) and error.is_invalid
    expected = not is_defect and (isinstance(error, KubeError) or type(error).__name__ == "EngineUnavailable")
    logger.log(
        logging.ERROR if is_defect else logging.WARNING,
        "a status is refused by its own schema: a defect of the operator"
        if is_defect
        else "reconcile failed, will be tried again",
        kind=key.plural,
        namespace=key.namespace,
        name=key.name,
        error=cause(error),
        again_after_seconds=round(again_after_seconds, 1),
        exc_info=None if expected else error,
    )
