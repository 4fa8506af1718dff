"""Two operators conclude a test while people vote: there is one verdict, and what comes after it is late."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import kopf

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Conflict
from finetune_operator.reconcile.abtest import Observed, reconcile
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.store.votes import Choice
from tests.builders import CONFIG
from tests.unit.web.conftest import model_version
from tests.unit.web.voting import Voters, api_with

VOTERS, VOTES_BEFORE_TIRED = 6, 12
LOADED = {"type": "Loaded", "status": "True", "reason": "Loaded", "lastTransitionTime": "2026-11-21T12:00:00Z"}


async def operate(kube: KubeClient, voters: Voters, voting: asyncio.Event) -> None:
    """Look, decide and write, over and over, also after the verdict; who is late with a write looks again."""
    body = model_version()
    body["spec"]["serving"] = {}
    version = ModelVersion.parse(body | {"status": {"state": "Ready", "conditions": [LOADED]}})
    looks_left = 3
    while looks_left:
        looks_left -= voting.is_set()
        test = ABTest.parse(await kube.get("abtests", "finetune", "v1-v2"))
        tally = await voters.tally("test-uid")
        plan = reconcile(test, Observed((version,), (test,), tally), datetime.now(UTC), CONFIG)
        patch = {"metadata": {"resourceVersion": test.metadata.resource_version}, "status": plan.status}
        try:
            await kube.merge_patch("abtests", "finetune", "v1-v2", patch, "status")
        except Conflict:
            continue


async def verdict_of(kube: KubeClient) -> str | None:
    return (await kube.get("abtests", "finetune", "v1-v2")).get("status", {}).get("verdict")


async def vote_until_concluded(voters: Voters, kube: KubeClient, evaluator: str) -> None:
    while await verdict_of(kube) is None:
        await voters.judges(evaluator, 1, lambda: Choice.FINE_TUNED)
    # Everybody has changed their mind, which comes too late.
    before = set(voters.ballots.of(evaluator))
    await voters.judges(evaluator, VOTES_BEFORE_TIRED, lambda: Choice.BASE)
    after = set(voters.ballots.of(evaluator)) - before
    assert {(comparison, evaluator) for comparison in after} <= voters.ballots.late


async def test_two_operators_and_many_voters_come_to_one_verdict(tmp_path: Path) -> None:
    async with (
        api_with(tmp_path, f"sqlite:///{tmp_path}/votes.db") as (_, voters, cluster),
        aiohttp.ClientSession() as session,
    ):
        kube = KubeClient(session, kopf.ConnectionInfo(server=cluster.url))
        done = asyncio.Event()
        async with asyncio.TaskGroup() as operators:
            for _ in range(2):
                operators.create_task(operate(kube, voters, done))
            async with asyncio.TaskGroup() as people:
                for number in range(VOTERS):
                    people.create_task(vote_until_concluded(voters, kube, f"voter {number}"))
            done.set()
        assert cluster.refused_writes > 0, "the operators never met"
        assert [verdict for verdict, _ in cluster.verdicts] == ["Won"]
        votes, ballots = (await voters.tally("test-uid")).votes, voters.ballots
        assert votes.total == len(ballots.acknowledged) - len(ballots.late)
        assert (votes.base, len(ballots.late) >= VOTERS * VOTES_BEFORE_TIRED) == (0, True)
