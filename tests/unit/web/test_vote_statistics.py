"""Who voted, how well people agree, and the win rate after each vote."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_operator.contract.experiments import AbTestTally, SplitTally, VoteCounts
from finetune_operator.contract.places import SAMPLES_PATH, TALLY_PATH
from finetune_operator.core.sequential import p_value
from finetune_operator.resources.abtest import WIN_RATES_MAX_POINTS
from tests.unit.web.conftest import INTERNAL, NOON, Api, sample
from tests.unit.web.test_access import TEST, is_problem

Ballot = tuple[str, str]


async def cast(api: Api, *ballots: Ballot) -> None:
    """Votes of these evaluators, one after the other; each gets the prompts in turn."""
    for evaluator, word in ballots:
        comparison = await api.compare(evaluator)
        assert (await api.vote(comparison["comparison_id"], word, evaluator)).status_code == 200


async def tally(api: Api, **query: int) -> AbTestTally:
    response = await api.get(TALLY_PATH.format(uid="test-uid"), INTERNAL, params=query)
    return AbTestTally.model_validate_json(response.content)


AGREEMENT: dict[str, tuple[list[Ballot], float | None]] = {
    "nobody": ([], None),
    "one alone": ([("ada", "base")], None),
    "both the same": ([("ada", "base"), ("bob", "base")], 1.0),
    "the contrary": ([("ada", "base"), ("bob", "fine_tuned")], 0.0),
    "two of three": ([("ada", "base"), ("bob", "base"), ("eve", "tie")], 1 / 3),
    "neither is good": ([("ada", "both_bad"), ("bob", "tie")], 1.0),
    "of different prompts": ([("ada", "base"), ("ada", "tie"), ("bob", "base")], 1.0),
    "a second vote on the same prompt": (
        [*[("ada", word) for word in ("base", "tie", "tie", "fine_tuned")], ("bob", "base")],
        1.0,
    ),
}


@pytest.mark.parametrize(("ballots", "expected"), AGREEMENT.values(), ids=AGREEMENT.keys())
async def test_how_often_two_people_agree(api: Api, ballots: list[Ballot], expected: float | None) -> None:
    await cast(api, *ballots)
    assert (await tally(api)).voters.agreement == pytest.approx(expected)
    assert (await api.get(f"{TEST}/voters")).json()["agreement"] == pytest.approx(expected)


async def test_the_heaviest_voter_comes_first(api: Api) -> None:
    await cast(api, ("bob", "base"), ("ada", "fine_tuned"), ("ada", "both_bad"), ("ada", "fine_tuned"), ("eve", "base"))
    api.cluster.test["status"] = {"voters": {"leaderWithoutHeaviest": "tiny", "pValueWithoutHeaviest": "0.8"}}
    found = (await api.get(f"{TEST}/voters")).json()
    counts = {"fine_tuned": 0, "base": 0, "tie": 0, "both_bad": 0}
    assert found == {
        "evaluators": 3,
        "agreement": pytest.approx(1 / 3),
        "leader_without_heaviest": "tiny",
        "p_value_without_heaviest": "0.8",
        "voters": [
            {
                "evaluator": "ada",
                "tally": counts | {"fine_tuned": 2, "tie": 1, "both_bad": 1, "win_rate": pytest.approx(5 / 6)},
                "agreement": 0.0,
            },
            {"evaluator": "bob", "tally": counts | {"base": 1, "win_rate": 0.0}, "agreement": 0.5},
            {"evaluator": "eve", "tally": counts | {"base": 1, "win_rate": 0.0}, "agreement": 0.5},
        ],
        "has_more": False,
        "next": None,
    }
    first = (await api.get(f"{TEST}/voters?limit=1")).json()
    assert (first["evaluators"], [voter["evaluator"] for voter in first["voters"]]) == (3, ["ada"])
    told = (await tally(api)).voters
    assert (told.evaluators, told.heaviest) == (3, VoteCounts(fine_tuned=2, tie=1, both_bad=1))


async def test_who_votes_a_hundred_times_on_one_comparison_has_one_vote(api: Api) -> None:
    comparison = await api.compare()
    for number in range(100):
        await api.vote(comparison["comparison_id"], "fine_tuned" if number % 3 == 0 else "base")
    assert (await tally(api)).voters.heaviest == VoteCounts(fine_tuned=1)


async def test_the_win_rate_after_each_vote(api: Api) -> None:
    await cast(api, ("ada", "fine_tuned"), ("bob", "base"), ("eve", "both_bad"), ("ada", "fine_tuned"))
    points: list[dict[str, Any]] = (await api.get(f"{TEST}/win-rates")).json()["points"]
    assert [point["tally"]["win_rate"] for point in points] == [1.0, 0.5, 0.5, 0.625]
    assert points[-1]["tally"] == {"fine_tuned": 2, "base": 1, "tie": 1, "both_bad": 1, "win_rate": 0.625}
    assert points[-1]["p_value"] == p_value(VoteCounts(fine_tuned=2, base=1))
    times = [datetime.fromisoformat(point["time"]) for point in points]
    assert times == sorted(times)
    assert NOON < times[0] < NOON + timedelta(minutes=1)
    assert [point.votes.win_rate for point in (await tally(api)).win_rates] == [1.0, 0.5, 0.5, 0.625]


@pytest.mark.parametrize(
    ("max_points", "after"), [(2, [7]), (3, [4, 7]), (4, [3, 6, 7]), (7, [2, 4, 6, 7]), (8, [*range(1, 8)])]
)
async def test_a_long_series_is_thinned_and_keeps_its_end(api: Api, max_points: int, after: list[int]) -> None:
    await cast(api, *(("ada", "fine_tuned") for _ in range(7)))
    points = (await api.get(f"{TEST}/win-rates?max_points={max_points}")).json()["points"]
    assert [point["tally"]["fine_tuned"] for point in points] == after


async def test_the_operator_hears_a_bounded_series(api: Api) -> None:
    await cast(api, *(("ada", "base") for _ in range(WIN_RATES_MAX_POINTS + 5)))
    told = (await tally(api)).win_rates
    assert len(told) <= WIN_RATES_MAX_POINTS
    assert told[-1].votes.base == WIN_RATES_MAX_POINTS + 5


async def test_only_votes_that_count_are_spoken_of(api: Api) -> None:
    await cast(api, ("ada", "base"), ("bob", "base"))
    api.cluster.test["status"] = {"phase": "Concluded", "verdict": "Lost"}
    await cast(api, ("eve", "fine_tuned"))
    told = await tally(api, max_votes=1)
    assert (told.votes, told.voters.evaluators, len(told.win_rates)) == (VoteCounts(base=1), 1, 1)
    assert (await api.get(f"{TEST}/voters")).json()["evaluators"] == 2
    assert len((await api.get(f"{TEST}/win-rates")).json()["points"]) == 2


@pytest.mark.parametrize("path", ["voters", "win-rates"])
async def test_an_unknown_test_has_neither(api: Api, path: str) -> None:
    assert is_problem(await api.get(f"/v1/fine-tuning/ab-test/finetune/none/{path}"), 404, "unknown-ab-test")
    assert is_problem(await api.get(f"{TEST}/{path}", headers={}), 401, "unauthorized")


def split_sample(number: int, arm: str, subject: str | None = None, percent: int | None = None) -> dict[str, Any]:
    return sample(number, arm) | {"subject": subject, "candidatePercent": percent}


async def test_a_subject_counts_once_by_its_first_sample(api: Api) -> None:
    """Its arm may change when the share is raised; an older gateway tells no subject."""
    batch = [
        split_sample(1, "baseline", "ada", 20),
        split_sample(2, "baseline", "ada", 20),
        split_sample(3, "candidate", "ada", 50),
        split_sample(4, "candidate", "bob", 50),
        split_sample(5, "candidate", "eve", 20),
        split_sample(6, "candidate"),
    ]
    for _ in range(2):
        assert (await api.post(SAMPLES_PATH, {"samples": batch}, INTERNAL)).status_code == 204
    told = await tally(api)
    assert told.splits == (
        SplitTally(candidate_percent=20, baseline=1, candidate=1),
        SplitTally(candidate_percent=50, baseline=0, candidate=1),
    )
    assert (told.arms.baseline.samples, told.arms.candidate.samples) == (2, 4)


@pytest.mark.parametrize("wrong", [{"subject": "x" * 17}, {"subject": ""}, {"candidatePercent": 101}])
async def test_a_subject_has_the_length_of_a_pseudonym(api: Api, wrong: dict[str, Any]) -> None:
    response = await api.post(SAMPLES_PATH, {"samples": [split_sample(1, "baseline", "ada", 50) | wrong]}, INTERNAL)
    assert response.status_code == 422
