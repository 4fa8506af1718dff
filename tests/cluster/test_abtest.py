"""ABTests from waiting for their arms to a verdict that stays."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import pytest

from finetune_operator.contract.experiments import (
    ArmTallies,
    ArmTally,
    SplitTally,
    VoteCounts,
    VotersTally,
    WinRatePoint,
)
from finetune_operator.resources.abtest import WIN_RATES_MAX_POINTS
from tests.cluster.samples import NOON, Manifest, ab_test, model_version
from tests.cluster.world import World, condition
from tests.waiting import throughout


async def running_test(world: World, **spec: Any) -> Manifest:
    """plato-v1 is deployed, plato-v2 loaded, and people may vote."""
    await world.serve("plato-v1", "plato-v2")
    await world.edit("modelversions", "plato-v1", state="Deployed")
    await world.reaches("modelversions", "plato-v1", state="Deployed")
    await world.edit("modelversions", "plato-v1", state=None)
    made = await world.create(ab_test("duel", **spec))
    await world.reaches("abtests", "duel", phase="Running")
    return made


async def test_a_test_waits_until_both_versions_are_loaded(world: World) -> None:
    await world.create(ab_test("duel", traffic={"candidatePercent": 20}))
    await world.reaches("abtests", "duel", phase="Pending")
    await world.says("abtests", "duel", "Ready", status="False", reason="VersionNotFound", message="plato-v1")

    await world.create(model_version("plato-v1"))
    await world.create(model_version("plato-v2"))
    await world.says("abtests", "duel", "Ready", status="False", reason="VersionNotLoaded", message="plato-v1")
    await world.start_engine("plato-v1")

    running = await world.reaches("abtests", "duel", phase="Running", split="80/20")
    assert running["status"]["startTime"]
    assert condition(running, "TrafficConfigured")["status"] == "True"
    assert condition(running, "Ready")["status"] == "True"
    assert condition(running, "Concluded")["status"] == "False"
    assert condition(running, "Reconciling") == {}


async def test_votes_become_win_rate_and_p_value(world: World) -> None:
    made = await running_test(world)

    world.api.count(made, candidate=3, baseline=1, tie=2)

    counted = await world.reaches(
        "abtests",
        "duel",
        phase="Running",
        leader="plato-v2",
        votes={"fineTuned": 3, "base": 1, "tie": 2, "total": 6, "winRate": "0.6667", "winRatePercent": "66.7%"},
        arms={"baseline": {"servedName": "plato-v1"}, "candidate": {"servedName": "plato-v2"}},
    )
    assert 0.05 < float(counted["status"]["pValue"]) <= 1
    assert counted["status"]["votesStillNeeded"] > 0


async def test_the_status_takes_all_that_is_told_of_voters_and_subjects(world: World) -> None:
    made = await running_test(world, traffic={"candidatePercent": 50})
    points = [WinRatePoint(time=NOON, votes=VoteCounts(fine_tuned=n, tie=1)) for n in range(WIN_RATES_MAX_POINTS)]

    world.api.count(
        made,
        candidate=12,
        baseline=5,
        tie=3,
        both_bad=2,
        voters=VotersTally(evaluators=4, heaviest=VoteCounts(fine_tuned=7, base=1), agreement=0.75),
        win_rates=tuple(points),
        splits=(SplitTally(candidate_percent=50, baseline=5000, candidate=4500),),
    )

    counted = await world.reaches(
        "abtests",
        "duel",
        votes={"tie": 3, "bothBad": 2, "preferenceLower": "0.3644", "preferenceUpper": "0.9335"},
        voters={"evaluators": 4, "heaviestVotes": 8, "leaderWithoutHeaviest": "plato-v2", "agreement": "0.75"},
        arms={"baseline": {"subjects": 5000}, "candidate": {"subjects": 4500}},
    )
    assert len(counted["status"]["winRates"]) == WIN_RATES_MAX_POINTS
    assert counted["status"]["winRates"][-1] == {"time": "2026-01-01T12:00:00Z", "votes": 50, "winRate": "0.99"}
    mismatch = {"status": "False", "reason": "SampleRatioMismatch", "message": "5000 subjects of plato-v1 and 4500 of"}
    await world.says("abtests", "duel", "SampleRatioMatches", **mismatch)
    (event,) = await world.told("SampleRatioMismatch", made["metadata"]["uid"])
    assert event["type"] == "Warning"


@dataclass(frozen=True)
class Ending:
    """How people voted, and what follows."""

    title: str
    candidate: int
    baseline: int
    verdict: str
    active: str
    max_votes: int = 2000
    on_win: str = "Promote"


ENDINGS = [
    Ending("a win promotes the candidate", 30, 2, "Won", "plato-v2"),
    Ending("a win only notifies", 30, 2, "Won", "plato-v1", on_win="Notify"),
    Ending("a loss keeps the baseline", 2, 30, "Lost", "plato-v1"),
    Ending("no difference after all votes keeps the baseline", 20, 20, "Inconclusive", "plato-v1", max_votes=40),
]


@pytest.mark.parametrize("case", ENDINGS, ids=lambda case: case.title)
async def test_a_verdict_has_its_consequence_once_and_late_votes_do_not_flip_it(world: World, case: Ending) -> None:
    made = await running_test(world, decision={"minVotes": 10, "maxVotes": case.max_votes}, onWin=case.on_win)

    world.api.count(made, candidate=case.candidate, baseline=case.baseline)
    concluded = await world.reaches("abtests", "duel", phase="Concluded", verdict=case.verdict)
    await world.reaches("modelversions", case.active, state="Deployed")
    await world.reaches("modelversions", next(iter({"plato-v1", "plato-v2"} - {case.active})), state="Ready")
    await world.reaches("modelversions", "plato-v2", metrics={"winRate": concluded["status"]["votes"]["winRate"]})
    await world.settled()
    verdict, active = concluded["status"], await world.get("modelversions", case.active)
    assert verdict["concludedAt"]
    assert condition(concluded, "Concluded")["reason"] == case.verdict
    mark = world.audit.end()
    world.api.count(made, candidate=case.baseline * 3, baseline=case.candidate * 3)

    async def nothing_changes() -> None:
        assert (await world.get("abtests", "duel"))["status"] == verdict
        assert (await world.get("modelversions", case.active))["status"] == active["status"]

    await throughout(nothing_changes, seconds=1.5)
    assert [str(write) for write in world.audit.writes(world.namespace, mark) if not write.is_event] == []


async def test_a_promotion_by_verdict_says_so_in_the_history(world: World) -> None:
    made = await running_test(world)

    world.api.count(made, candidate=30, baseline=2)

    promoted = await world.reaches("modelversions", "plato-v2", state="Deployed")
    assert [entry["why"] for entry in promoted["status"]["history"]] == ["won ABTest duel"]
    assert promoted["status"]["history"][0]["previous"] == "plato-v1"
    replaced = await world.reaches("modelversions", "plato-v1", state="Ready")
    assert replaced["status"]["history"][-1]["why"] == "plato-v2 is active"


async def test_a_rollback_after_a_won_test_stays(world: World) -> None:
    made = await running_test(world)
    world.api.count(made, candidate=30, baseline=2)
    await world.reaches("modelversions", "plato-v2", state="Deployed")

    await world.edit("modelversions", "plato-v1", state="Deployed")
    await world.reaches("modelversions", "plato-v1", state="Deployed")

    async def stays() -> None:
        assert (await world.get("modelversions", "plato-v1"))["status"]["state"] == "Deployed"

    await throughout(stays, seconds=1.5)


async def test_a_test_without_its_candidate_is_aborted(world: World) -> None:
    await running_test(world)

    await world.delete("modelversions", "plato-v2")

    aborted = await world.reaches("abtests", "duel", phase="Concluded", verdict="Aborted")
    assert "ModelVersion plato-v2 is gone: create a new ABTest" in aborted["status"]["message"]
    assert condition(aborted, "Stalled")["status"] == "True"
    await world.reaches("modelversions", "plato-v1", state="Deployed")


async def test_the_base_model_can_be_the_baseline(world: World) -> None:
    await world.serve("plato-v1", promotion="Always")
    spec = {"baseline": {"modelVersion": None, "base": True}, "candidate": {"modelVersion": "plato-v1"}}
    made = await world.create(ab_test("against-base", **spec))
    await world.reaches("abtests", "against-base", phase="Running")

    world.api.count(made, candidate=1, baseline=4)

    await world.reaches("abtests", "against-base", leader="tiny", arms={"baseline": {"servedName": "tiny"}})


async def test_while_the_api_is_away_a_test_goes_on_and_its_votes_stay(world: World) -> None:
    made = await running_test(world)
    world.api.count(made, candidate=3, baseline=1)
    counted = await world.reaches("abtests", "duel", votes={"total": 4})

    await world.api.stop()

    async def stays() -> None:
        assert (await world.get("abtests", "duel"))["status"] == counted["status"]

    await throughout(stays, seconds=2)
    world.api.count(made, candidate=30, baseline=2)
    await world.api.start()
    await world.reaches("abtests", "duel", verdict="Won")


async def test_only_one_test_at_a_time_splits_the_traffic_of_a_model(world: World) -> None:
    await running_test(world, traffic={"candidatePercent": 20})

    await world.create(ab_test("second", traffic={"candidatePercent": 50}))
    await world.says("abtests", "second", "Ready", status="False", reason="AnotherTestRunning", message="duel")

    await world.delete("abtests", "duel")
    await world.reaches("abtests", "second", phase="Running")


def measured(count: int = 40, *, errors: int = 0, latency_ms: int = 100, tokens: float = 50) -> ArmTally:
    """What production traffic showed of one arm."""
    return ArmTally(
        samples=count + errors,
        errors=errors,
        mean_latency_ms=latency_ms,
        latency_subjects=count,
        standard_error_latency_ms=latency_ms / 20 / sqrt(count),
        samples_with_tokens=count,
        mean_prompt_tokens=12,
        mean_completion_tokens=tokens,
        token_subjects=count,
        standard_error_completion_tokens=tokens / 20 / sqrt(count),
    )


async def test_an_active_candidate_that_breaks_a_guardrail_is_rolled_back_once(world: World) -> None:
    """plato-v2 went live, and a test of it against plato-v1 finds that it fails."""
    made = await running_test(
        world, traffic={"candidatePercent": 50}, guardrails={"maxErrorRate": "0.02"}, onLoss="Rollback"
    )
    await world.edit("modelversions", "plato-v2", state="Deployed")
    await world.reaches("modelversions", "plato-v2", state="Deployed")
    await world.reaches("modelversions", "plato-v1", state="Ready")
    await world.edit("modelversions", "plato-v2", state=None)

    world.api.count(made, arms=ArmTallies(baseline=measured(100), candidate=measured(90, errors=10)))

    lost = await world.reaches("abtests", "duel", phase="Concluded", verdict="Lost")
    assert condition(lost, "Concluded")["reason"] == "GuardrailBreached"
    assert "an error rate of 0.1 exceeds maxErrorRate 0.02" in lost["status"]["message"]
    restored = await world.reaches("modelversions", "plato-v1", state="Deployed")
    assert restored["status"]["history"][-1]["why"] == "candidate plato-v2 lost ABTest duel"
    assert restored["status"]["history"][-1]["previous"] == "plato-v2"
    await world.reaches("modelversions", "plato-v2", state="Ready")

    await world.edit("modelversions", "plato-v2", state="Deployed")
    await world.reaches("modelversions", "plato-v2", state="Deployed")
    await world.edit("modelversions", "plato-v2", state=None)

    async def stays() -> None:
        assert (await world.get("modelversions", "plato-v2"))["status"]["state"] == "Deployed"

    await throughout(stays, seconds=1.5)


async def test_votes_and_weighted_score_must_agree(world: World) -> None:
    weights = {"accuracy": 60, "latency": 20, "cost": 20}
    made = await running_test(world, decision={"weights": weights, "maxVotes": 60})

    slow = ArmTallies(baseline=measured(), candidate=measured(latency_ms=2000, tokens=2000))
    world.api.count(made, candidate=30, baseline=10, arms=slow)
    disputed = await world.reaches("abtests", "duel", phase="Running", votes={"total": 40})
    assert "people prefer plato-v2, the weighted score 0.4644" in disputed["status"]["message"]
    assert "does not exclude a tie" in disputed["status"]["message"]
    assert disputed["status"]["arms"]["candidate"]["score"] == "0.4644"
    assert float(disputed["status"]["pValue"]) <= 0.05

    quick = ArmTallies(baseline=measured(), candidate=measured(latency_ms=90))
    world.api.count(made, candidate=40, baseline=10, arms=quick)
    await world.reaches("abtests", "duel", phase="Concluded", verdict="Won")
    await world.reaches("modelversions", "plato-v2", state="Deployed")


async def test_chi_squared_decides_at_the_last_vote_and_not_before(world: World) -> None:
    made = await running_test(world, decision={"method": "ChiSquared", "maxVotes": 50})

    world.api.count(made, candidate=49)
    early = await world.reaches("abtests", "duel", phase="Running", votes={"total": 49}, votesStillNeeded=1)
    assert float(early["status"]["chiSquaredPValue"]) < 1e-6

    world.api.count(made, candidate=49, baseline=1)
    won = await world.reaches("abtests", "duel", phase="Concluded", verdict="Won")
    assert "chi-squared p" in won["status"]["message"]
