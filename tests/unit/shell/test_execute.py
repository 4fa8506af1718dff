"""How plans are carried out: actions in order, at most one status write, then events."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from finetune_operator.contract.adapters import Adapter
from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation
from finetune_operator.kube.errors import Conflict, Rejected, Unavailable
from finetune_operator.reconcile.plan import (
    Apply,
    ApplyEngine,
    Create,
    Delete,
    Event,
    LoadAdapter,
    Patch,
    Plan,
    Probe,
    RecordEvaluation,
    UnloadAdapter,
)
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.shell.engines import Engines, EngineUnavailable
from finetune_operator.shell.execute import ChildRejected, Executor
from finetune_operator.shell.state import ClusterState
from tests.builders import NAMESPACE, NOON, Object, job_body, job_object, version_object
from tests.unit.shell.fake_cluster import FakeCluster
from tests.waiting import eventually

STATUS = {"phase": "Pending", "message": "waiting", "conditions": []}


class FakeApi:
    """Acknowledges evaluations, unless it is away."""

    def __init__(self) -> None:
        self.recorded: dict[str, datetime] = {}
        self.told: list[str] = []
        self.away = False

    async def record(self, identity: str, evaluation: RecordedEvaluation) -> None:
        self.told.append(identity)
        if not self.away:
            self.recorded[identity] = evaluation.measured_at


class Workbench:
    """An executor with one FineTuneJob in its cluster."""

    def __init__(self, *others: tuple[str, Object], session: aiohttp.ClientSession) -> None:
        body = job_object(status=STATUS)
        self.job = FineTuneJob.parse(body)
        self.cluster = FakeCluster(("finetunejobs", body), *others)
        self.state = ClusterState()
        self.state.see("finetunejobs", body)
        self.api = FakeApi()
        self.executor = Executor(self.cluster, self.state, Engines(session, "", "http://127.0.0.1:9"), self.api)

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


async def test_an_engine_that_can_not_be_asked_keeps_the_status_not_waiting(bench: Any) -> None:
    table = bench()
    with pytest.raises(EngineUnavailable, match="/v1/models"):
        await table.execute(Plan(actions=(Probe("uid", "10.0.0.1", "plato-v1"),), status={"phase": "Training"}))
    assert table.cluster.writes == [("patch", "finetunejobs", "plato-ethics", "status")]


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


REVISED = {"name": "vllm-1", "annotations": {"finetune.dev/revision": "abc"}}
ENGINE = ApplyEngine(
    "vllm-1",
    "abc",
    (Apply("configmaps", {"metadata": {"name": "vllm-1"}}), Apply("deployments", {"metadata": REVISED, "spec": {}})),
)
ADAPTER = Adapter(name="plato-v1", path="/artifacts/plato-v1", digest="sha256:" + "a" * 64)


class SlowEngines(Engines):
    """A load in a pod goes on until the pod is let go; says which have begun."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        super().__init__(session, "", "http://127.0.0.1:9")
        self.begun: list[str] = []
        self.let_go = asyncio.Event()

    async def unload(self, pod_uid: str, ip: str, name: str) -> None:
        self.begun.append(f"unload in {pod_uid}")

    async def load(self, pod_uid: str, ip: str, adapter: Adapter) -> None:
        self.begun.append(f"load in {pod_uid}")
        await self.let_go.wait()


class BrokenEngines(Engines):
    """With a defect."""

    async def probe(self, pod_uid: str, ip: str, name: str) -> None:
        raise AssertionError("a defect")


class TestAtOnce:
    async def test_pods_wait_neither_for_each_other_nor_for_the_api_server(self, bench: Any) -> None:
        table = bench()
        async with aiohttp.ClientSession() as session:
            engines = SlowEngines(session)
            executor = replace(table.executor, engines=engines)
            actions = (
                UnloadAdapter("one", "10.0.0.1", "plato-v0"),
                *(LoadAdapter(pod, "10.0.0.1", ADAPTER) for pod in ("one", "two")),
                ENGINE,
            )
            task = asyncio.create_task(executor.execute(table.job, STATUS, Plan(actions, {"phase": "Training"})))
            wanted = {"unload in one", "load in one", "load in two"}
            await eventually(lambda: set(engines.begun) == wanted and len(table.cluster.writes) == 3)
            assert engines.begun.index("unload in one") < engines.begun.index("load in one")
            assert table.cluster.writes == [
                ("apply", "configmaps", "vllm-1", "finetune-operator"),
                ("apply", "deployments", "vllm-1", "finetune-operator"),
                ("patch", "finetunejobs", "plato-ethics", "status"),
            ], "the status says what the pods do while they do it"
            assert not task.done()
            engines.let_go.set()
            assert await task is True

    async def test_versions_that_share_an_engine_apply_it_once(self, bench: Any) -> None:
        table = bench()
        outcomes = await asyncio.gather(*(table.execute(Plan((ENGINE,))) for _ in range(3)))
        assert [write[1] for write in table.cluster.writes] == ["configmaps", "deployments"]
        assert sorted(outcomes) == [False, False, True]

    async def test_where_it_fails_it_fails_for_all_who_waited_and_is_tried_anew(self, bench: Any) -> None:
        table = bench()
        table.cluster.failures["deployments"] = Unavailable("no")
        outcomes = await asyncio.gather(*(table.execute(Plan((ENGINE,))) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
        assert [write[1] for write in table.cluster.writes] == ["configmaps", "deployments"]
        del table.cluster.failures["deployments"]
        assert await table.execute(Plan((ENGINE,))) is True

    async def test_who_comes_to_something_else_waits_and_applies_that(self, bench: Any) -> None:
        table = bench()
        later = {"metadata": REVISED | {"annotations": {"finetune.dev/revision": "later"}}, "spec": {}}
        other = ApplyEngine("vllm-1", "later", (ENGINE.children[0], Apply("deployments", later)))
        outcomes = await asyncio.gather(*(table.execute(Plan((engine,))) for engine in (ENGINE, other, ENGINE)))
        assert [write[1] for write in table.cluster.writes] == ["configmaps", "deployments"] * 2
        assert outcomes == [True, True, False]
        assert table.cluster.objects["deployments", "vllm-1"]["metadata"]["annotations"] == {
            "finetune.dev/revision": "later"
        }

    async def test_an_engine_that_the_api_server_refuses_is_told_with_its_child(self, bench: Any) -> None:
        table = bench()
        table.cluster.failures["deployments"] = Rejected("must be less than the memory limit", 422)
        with pytest.raises(ChildRejected, match="memory limit") as raised:
            await table.execute(Plan((ENGINE,), status={"phase": "Training"}))
        assert raised.value.plural == "deployments"
        assert [write[1] for write in table.cluster.writes] == ["configmaps", "deployments"]

    async def test_of_two_failures_one_is_raised_and_the_other_is_logged(self, bench: Any) -> None:
        table = bench()
        table.cluster.failures["deployments"] = Unavailable("no")
        async with aiohttp.ClientSession() as session:
            executor = replace(table.executor, engines=BrokenEngines(session, "", ""))
            with pytest.raises(Unavailable), capture_logs() as logs:
                await executor.execute(table.job, {}, Plan((Probe("uid", "10.0.0.1", "plato-v1"), ENGINE)))
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["another action failed, too"]


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

    async def test_what_is_to_go_with_it_is_given_to_it_first_where_it_is_there(self, bench: Any) -> None:
        table = bench(
            ("jobs", job_body("uid-of-plato-ethics")),
            ("services", {"metadata": {"name": "vllm-1", "resourceVersion": "1"}}),
        )
        body = {"metadata": {"ownerReferences": [{"uid": "uid-of-plato-ethics-1"}]}}
        given = (Patch("configmaps", "vllm-1", body), Patch("services", "vllm-1", body))
        await table.execute(Plan(actions=(Delete("jobs", "plato-ethics-1", "uid-of-plato-ethics-1", given),)))
        assert table.cluster.writes == [
            ("patch", "configmaps", "vllm-1"),
            ("patch", "services", "vllm-1"),
            ("delete", "jobs", "plato-ethics-1", "uid-of-plato-ethics-1"),
        ]
        assert table.cluster.objects["services", "vllm-1"]["metadata"]["ownerReferences"] == [
            {"uid": "uid-of-plato-ethics-1"}
        ]

    async def test_that_it_is_gone_already_is_success_and_remembered(self, bench: Any) -> None:
        table = bench()
        table.state.see("jobs", job_body("uid-of-plato-ethics"))
        await table.execute(Plan(actions=(Delete("jobs", "plato-ethics-1", "uid-of-plato-ethics-1"),)))
        assert table.state.get("jobs", NAMESPACE, "plato-ethics-1") is None

    @pytest.mark.parametrize("plural", ["jobs", "deployments"])
    async def test_what_a_finalizer_holds_is_not_deleted_again(self, bench: Any, plural: str) -> None:
        table, held = bench(), job_body("uid-of-plato-ethics")
        held["metadata"]["deletionTimestamp"] = "2026-01-01T11:59:00Z"
        table.state.see(plural, held)
        assert await table.execute(Plan(actions=(Delete(plural, "plato-ethics-1", held["metadata"]["uid"]),))) is False
        assert table.cluster.writes == []

    async def test_what_is_going_does_not_stand_for_a_later_one(self, bench: Any) -> None:
        later = job_body("uid-of-plato-ethics")
        table = bench(("jobs", later))
        table.state.see(
            "jobs", later | {"metadata": later["metadata"] | {"uid": "an-older-one", "deletionTimestamp": "now"}}
        )
        await table.execute(Plan(actions=(Delete("jobs", "plato-ethics-1", later["metadata"]["uid"]),)))
        assert table.cluster.writes == [("delete", "jobs", "plato-ethics-1", later["metadata"]["uid"])]

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


class TestEvaluations:
    ROW = RecordedEvaluation(
        source=EvaluationSource.SERVED,
        namespace=NAMESPACE,
        model_version="plato-v1",
        model="plato",
        base_model="tiny",
        measured_at=NOON,
    )

    async def test_what_the_api_acknowledges_is_worth_another_look(self, bench: Any) -> None:
        table = bench()
        assert await table.execute(Plan(actions=(RecordEvaluation("e1", self.ROW),))) is True
        assert table.api.told == ["e1"]

    async def test_an_api_that_is_away_is_not_asked_at_once_again(self, bench: Any) -> None:
        table = bench()
        table.api.away = True
        assert await table.execute(Plan(actions=(RecordEvaluation("e1", self.ROW),), status=dict(STATUS))) is False

    async def test_an_api_that_knows_an_earlier_measurement_has_not_acknowledged_this_one(self, bench: Any) -> None:
        table = bench()
        table.api.recorded["e1"] = NOON - timedelta(hours=1)
        table.api.away = True
        assert await table.execute(Plan(actions=(RecordEvaluation("e1", self.ROW),))) is False

    async def test_a_child_that_is_not_vital_keeps_no_status_waiting(self, bench: Any) -> None:
        table = bench()
        table.cluster.failures["jobs"] = Rejected("exceeded quota", 403)
        body = job_body(table.job.metadata.uid, name="evaluator")
        create = Create("jobs", body, table.job.metadata.uid, is_vital=False)
        with pytest.raises(ChildRejected, match="exceeded quota"):
            await table.execute(Plan(actions=(create,), status={"phase": "Training"}))
        assert ("patch", "finetunejobs", "plato-ethics", "status") in table.cluster.writes
