"""How plans are carried out: actions in order, at most one status write, then events."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import aiohttp
import pytest

from finetune_operator.kube.errors import Conflict, KubeError, NotFound, Unavailable
from finetune_operator.reconcile.plan import Apply, Create, Delete, Event, Patch, Plan
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.shell.engines import Engines
from finetune_operator.shell.execute import Executor
from finetune_operator.shell.state import ClusterState
from tests.builders import NAMESPACE, Object, job_body, job_object, version_object

STATUS = {"phase": "Pending", "message": "waiting", "conditions": []}


class FakeCluster:
    """Objects by kind and name, with the API server's rules on names, uids and resource versions; writes are kept."""

    def __init__(self, *objects: tuple[str, Object]) -> None:
        self.writes: list[tuple[str, ...]] = []
        self.bodies: list[Object] = []
        self.failures: dict[str, KubeError] = {}
        self.objects = {(plural, body["metadata"]["name"]): deepcopy(body) for plural, body in objects}
        self._version = 100

    async def get(self, plural: str, namespace: str, name: str) -> Object:
        if (plural, name) not in self.objects:
            raise NotFound(name)
        return deepcopy(self.objects[plural, name])

    async def create(self, plural: str, namespace: str, body: Mapping[str, Any]) -> Object:
        name = body["metadata"]["name"]
        self._write("create", plural, "" if plural == "events" else name, body=body)
        if (plural, name) in self.objects:
            raise Conflict(f"{name} exists")
        made = dict(body) | {"metadata": {"namespace": namespace, "uid": f"uid-of-{name}"} | body["metadata"]}
        return self._store(plural, name, made)

    async def apply(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], field_manager: str
    ) -> Object:
        self._write("apply", plural, name, field_manager, body=body)
        known = self.objects.get((plural, name), {"metadata": {"namespace": namespace, "uid": f"uid-of-{name}"}})
        return self._store(plural, name, dict(body) | {"metadata": known["metadata"] | body["metadata"]})

    async def merge_patch(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        self._write("patch", plural, name, subresource, body=body)
        known = await self.get(plural, namespace, name)
        expected = body.get("metadata", {}).get("resourceVersion")
        if expected not in (None, known["metadata"]["resourceVersion"]):
            raise Conflict("somebody wrote in between")
        part = "status" if subresource else "spec"
        return self._store(plural, name, known | {part: known.get(part, {}) | body[part]})

    async def delete(self, plural: str, namespace: str, name: str, uid: str) -> None:
        self._write("delete", plural, name, uid)
        if (await self.get(plural, namespace, name))["metadata"]["uid"] != uid:
            raise Conflict("another object of that name")
        del self.objects[plural, name]

    def _write(self, verb: str, plural: str, *rest: str, body: Mapping[str, Any] | None = None) -> None:
        self.writes.append((verb, plural, *(part for part in rest if part)))
        self.bodies.append(dict(body or {}))
        if error := self.failures.get(plural):
            raise error

    def _store(self, plural: str, name: str, body: Object) -> Object:
        self._version += 1
        stored = deepcopy(body) | {"metadata": body["metadata"] | {"resourceVersion": str(self._version)}}
        self.objects[plural, name] = stored
        return deepcopy(stored)


class Workbench:
    """An executor with one FineTuneJob in its cluster."""

    def __init__(self, *others: tuple[str, Object], session: aiohttp.ClientSession) -> None:
        body = job_object(status=STATUS)
        self.job = FineTuneJob.parse(body)
        self.cluster = FakeCluster(("finetunejobs", body), *others)
        self.state = ClusterState()
        self.state.see("finetunejobs", body)
        self.executor = Executor(self.cluster, self.state, Engines(session, "", "http://127.0.0.1:9"))

    async def execute(self, plan: Plan) -> bool:
        body = self.state.get("finetunejobs", NAMESPACE, self.job.metadata.name)
        assert body is not None
        return await self.executor.execute(self.job, body["status"], plan)


@pytest.fixture
async def bench() -> Any:
    async with aiohttp.ClientSession() as session:
        yield lambda *others: Workbench(*others, session=session)


class TestStatus:
    async def test_a_status_that_is_as_it_was_is_not_written(self, bench: Any) -> None:
        table = bench()
        assert await table.execute(Plan(status=dict(STATUS))) is False
        assert table.cluster.writes == []

    async def test_no_status_is_no_write(self, bench: Any) -> None:
        table = bench()
        await table.execute(Plan())
        assert table.cluster.writes == []

    async def test_only_what_changed_is_written_once_on_the_status_of_what_was_read(self, bench: Any) -> None:
        table = bench()
        await table.execute(Plan(status={"phase": "Training", "conditions": []}))
        assert table.cluster.writes == [("patch", "finetunejobs", "plato-ethics", "status")]
        assert table.cluster.bodies == [
            {"metadata": {"resourceVersion": "1"}, "status": {"phase": "Training", "message": None}}
        ]

    async def test_what_was_written_is_known_at_once(self, bench: Any) -> None:
        table = bench()
        await table.execute(Plan(status=STATUS | {"phase": "Training"}))
        known = table.state.resource(FineTuneJob, "finetunejobs", NAMESPACE, "plato-ethics")
        assert known.status.phase == "Training"

    async def test_a_decision_on_an_old_state_is_refused(self, bench: Any) -> None:
        table = bench()
        await table.cluster.merge_patch(
            "finetunejobs", NAMESPACE, "plato-ethics", {"status": {"message": "by another operator"}}, "status"
        )
        with pytest.raises(Conflict):
            await table.execute(Plan(status={"phase": "Training"}, events=(Event("Normal", "Started", "now"),)))
        assert not any(plural == "events" for _, plural, *_ in table.cluster.writes)

    async def test_nothing_but_the_status_of_the_resource_is_ever_written(self, bench: Any) -> None:
        table = bench()
        everything = Plan(
            actions=(Create("jobs", job_body(table.job.metadata.uid), table.job.metadata.uid),),
            status={"phase": "Training"},
            events=(Event("Normal", "Started", "now"),),
        )
        await table.execute(everything)
        own = [(write, body) for write, body in zip(table.cluster.writes, table.cluster.bodies, strict=True)
               if write[1] == "finetunejobs"]  # fmt: skip
        assert [(write[0], write[-1], set(body)) for write, body in own] == [
            ("patch", "status", {"metadata", "status"})
        ]


class TestOrder:
    async def test_actions_then_status_then_events(self, bench: Any) -> None:
        table = bench()
        uid = table.job.metadata.uid
        plan = Plan(
            actions=(Create("jobs", job_body(uid), uid), Patch("jobs", "plato-ethics-1", {"spec": {"suspend": True}})),
            status={"phase": "Training"},
            events=(Event("Normal", "Started", "now"),),
        )
        assert await table.execute(plan) is True
        assert [write[:2] for write in table.cluster.writes] == [
            ("create", "jobs"),
            ("patch", "jobs"),
            ("patch", "finetunejobs"),
            ("create", "events"),
        ]

    async def test_an_action_that_fails_leaves_the_status_for_the_next_try(self, bench: Any) -> None:
        table = bench()
        table.cluster.failures["jobs"] = Unavailable("no")
        uid = table.job.metadata.uid
        plan = Plan(actions=(Create("jobs", job_body(uid), uid),), status={"phase": "Training"})
        with pytest.raises(Unavailable):
            await table.execute(plan)
        assert len(table.cluster.writes) == 1


class TestCreate:
    async def test_what_was_made_is_known_at_once(self, bench: Any) -> None:
        table = bench()
        uid = table.job.metadata.uid
        await table.execute(Plan(actions=(Create("jobs", job_body(uid), uid),)))
        assert table.state.get("jobs", NAMESPACE, "plato-ethics-1")["metadata"]["resourceVersion"] == "101"

    async def test_our_own_child_that_is_there_already_is_success(self, bench: Any) -> None:
        ours = job_body("uid-of-plato-ethics", suspended=True)
        table = bench(("jobs", ours))
        await table.execute(Plan(actions=(Create("jobs", job_body("uid-of-plato-ethics"), "uid-of-plato-ethics"),)))
        assert table.state.get("jobs", NAMESPACE, "plato-ethics-1")["spec"]["suspend"] is True

    async def test_a_version_is_ours_by_its_lineage(self, bench: Any) -> None:
        ours = version_object(1, {"lineage": {"jobUid": "uid-of-plato-ethics"}})
        table = bench(("modelversions", ours))
        await table.execute(Plan(actions=(Create("modelversions", ours, "uid-of-plato-ethics"),)))
        assert table.state.resource(ModelVersion, "modelversions", NAMESPACE, "plato-v1") is not None

    async def test_somebody_elses_is_a_conflict_and_seen_by_the_next_decision(self, bench: Any) -> None:
        """So the loser of a race for a version's number takes the next one, and a taken Job name is told."""
        theirs = version_object(1)
        table = bench(("modelversions", theirs))
        mine = version_object(1, {"lineage": {"jobUid": "uid-of-plato-ethics"}})
        with pytest.raises(Conflict):
            await table.execute(Plan(actions=(Create("modelversions", mine, "uid-of-plato-ethics"),)))
        known = table.state.resource(ModelVersion, "modelversions", NAMESPACE, "plato-v1")
        assert known.spec.lineage.job_uid == "job-1"


class TestApplyAndDelete:
    async def test_apply_is_made_in_the_operators_name(self, bench: Any) -> None:
        table = bench()
        body = {"metadata": {"name": "vllm-1"}, "data": {}}
        await table.execute(Plan(actions=(Apply("configmaps", body), Apply("services", body))))
        assert table.cluster.writes == [
            ("apply", "configmaps", "vllm-1", "finetune-operator"),
            ("apply", "services", "vllm-1", "finetune-operator"),
        ]

    async def test_delete_names_exactly_one_object(self, bench: Any) -> None:
        table = bench(("jobs", job_body("uid-of-plato-ethics")))
        await table.execute(Plan(actions=(Delete("jobs", "plato-ethics-1", "uid-of-plato-ethics-1"),)))
        assert table.cluster.writes == [("delete", "jobs", "plato-ethics-1", "uid-of-plato-ethics-1")]

    async def test_that_it_is_gone_already_is_success_and_remembered(self, bench: Any) -> None:
        table = bench()
        table.state.see("jobs", job_body("uid-of-plato-ethics"))
        await table.execute(Plan(actions=(Delete("jobs", "plato-ethics-1", "uid-of-plato-ethics-1"),)))
        assert table.state.get("jobs", NAMESPACE, "plato-ethics-1") is None

    async def test_another_object_of_that_name_stays(self, bench: Any) -> None:
        table = bench(("jobs", job_body("uid-of-plato-ethics")))
        with pytest.raises(Conflict):
            await table.execute(Plan(actions=(Delete("jobs", "plato-ethics-1", "uid-of-an-older-one"),)))


class TestEvents:
    async def test_an_event_names_its_object(self, bench: Any) -> None:
        table = bench()
        await table.execute(Plan(events=(Event("Warning", "OutOfMemory", "x" * 2000),)))
        (body,) = table.cluster.bodies
        assert body["involvedObject"] == {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "name": "plato-ethics",
            "namespace": NAMESPACE,
            "uid": "uid-of-plato-ethics",
        }
        assert (body["type"], body["reason"], len(body["message"])) == ("Warning", "OutOfMemory", 1024)
        assert body["metadata"]["name"].startswith("plato-ethics.")

    async def test_a_lost_event_stops_nothing(self, bench: Any) -> None:
        table = bench()
        table.cluster.failures["events"] = Unavailable("no")
        await table.execute(Plan(events=(Event("Normal", "Started", "now"), Event("Normal", "Ended", "now"))))
        assert len(table.cluster.writes) == 2
