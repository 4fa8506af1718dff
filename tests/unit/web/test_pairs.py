"""Pairs of answers that a batch or users' requests bring: what people vote on before the test's own prompts."""

from typing import Any

import pytest

from finetune_operator.contract.experiments import AnswerPair, AnswerPairs, VoteCounts
from finetune_operator.contract.places import PAIRS_PATH
from tests.unit.web.conftest import INTERNAL, PROMPTS, Api
from tests.unit.web.test_access import TEST, is_problem
from tests.unit.web.test_votes import counted


def pair(number: int, **changes: Any) -> AnswerPair:
    fields = {
        "id": f"pair-{number}",
        "prompt": f"{number}+{number}?",
        "baseline_answer": f"base {number}",
        "candidate_answer": f"tuned {number}",
    }
    return AnswerPair.model_validate(fields | changes)


async def put(api: Api, *pairs: AnswerPair, test: str = "test-uid", keep_max: int | None = None) -> None:
    sent = AnswerPairs(baseline_served_name="tiny", candidate_served_name="plato-v2", pairs=pairs, keep_max=keep_max)
    body = sent.model_dump(mode="json", by_alias=True)
    response = await api.client.put(PAIRS_PATH.format(uid=test), json=body, headers=INTERNAL)
    assert response.status_code == 204, response.text


async def judged(api: Api, times: int, evaluator: str = "ada") -> list[str]:
    """The prompts that this evaluator gets, one after the other."""
    prompts = []
    for _ in range(times):
        comparison = await api.compare(evaluator)
        prompts.append(comparison["prompt"])
        await api.vote(comparison["comparison_id"], "tie", evaluator)
    return prompts


async def test_they_are_voted_on_without_asking_anybody(api: Api) -> None:
    await put(api, pair(1))
    comparison = await api.compare()
    assert comparison["prompt"] == "1+1?"
    assert comparison["answers"] == {"a": "tuned 1", "b": "base 1"}
    assert api.arms.asked == []
    result = (await api.vote(comparison["comparison_id"], "a")).json()
    assert result["vote"] == "fine_tuned"
    assert result["sides"]["b"] == {"arm": "base", "served_name": "tiny"}


async def test_what_nobody_has_judged_comes_first_and_then_the_prompts(api: Api) -> None:
    await put(api, pair(1), pair(2), pair(3))
    assert await judged(api, 1, "ada") == ["1+1?"]
    seen = await judged(api, 3, "bob")
    assert seen[:2] == ["2+2?", "3+3?"]
    assert [*seen[2:], *await judged(api, 1, "ada")] == [PROMPTS[2], PROMPTS[1]]


async def test_without_prompts_others_give_a_second_opinion(api: Api) -> None:
    """People mostly agree on two answers: ten votes on them are not ten observations."""
    api.cluster.test["spec"]["prompts"] = []
    await put(api, pair(1))
    opened = [await api.compare(evaluator) for evaluator in ("ada", "bob")]
    results = [
        (await api.vote(comparison["comparison_id"], "fine_tuned", evaluator)).json()
        for comparison, evaluator in zip(opened, ("ada", "bob"), strict=True)
    ]
    assert [result["second_opinion"] for result in results] == [False, True]
    assert (await api.get(f"{TEST}/voters")).json()["agreement"] == 1
    assert await judged(api, 1, "eve") == ["1+1?"]
    state = (await api.get(TEST)).json()
    assert (state["tally"]["fine_tuned"], state["tally"]["tie"], state["second_opinions"]) == (1, 0, 2)
    assert await counted(api) == VoteCounts(fine_tuned=1)
    voters = (await api.get(f"{TEST}/voters")).json()
    assert (voters["evaluators"], voters["agreement"]) == (1, pytest.approx(1 / 3))
    assert {each["evaluator"]: each["tally"]["fine_tuned"] for each in voters["voters"]} == {
        "ada": 1,
        "bob": 0,
        "eve": 0,
    }
    listed = (await api.get("/v1/fine-tuning/comparisons")).json()["comparisons"]
    assert [entry["second_opinion"] for entry in listed] == [True, True, False]


async def test_answers_that_come_out_as_before_are_the_same_pair(api: Api) -> None:
    """As a model gives them that is sure of itself, however it is sampled."""
    api.arms.answers = {"tiny": "no", "plato-v2": "yes"}
    for evaluator, is_second in (("ada", False), ("bob", True)):
        comparison = await api.compare(evaluator)
        assert comparison["prompt"] == PROMPTS[0]
        result = (await api.vote(comparison["comparison_id"], "a", evaluator)).json()
        assert result["second_opinion"] is is_second
    assert await judged(api, 1, "ada") == [PROMPTS[1]]
    assert (await counted(api)).total == 2


async def test_votes_spread_over_all_of_them(api: Api) -> None:
    await put(api, *(pair(number) for number in range(1, 4)))
    seen = [(await judged(api, 1, f"evaluator-{number}"))[0] for number in range(3)]
    assert sorted(seen) == ["1+1?", "2+2?", "3+3?"]


async def test_sent_again_they_are_no_news(api: Api) -> None:
    await put(api, pair(1))
    await put(api, pair(1, candidate_answer="another"), pair(2))
    assert sorted(await judged(api, 2)) == ["1+1?", "2+2?"]
    listed = (await api.get("/v1/fine-tuning/comparisons")).json()["comparisons"]
    assert "tuned 1" in {entry["answers"]["a"] for entry in listed}


async def test_those_of_another_test_are_not_shown(api: Api) -> None:
    await put(api, pair(1), test="another-uid")
    assert await judged(api, 1) == [PROMPTS[0]]


async def test_a_test_without_prompts_ends_with_them(api: Api) -> None:
    api.cluster.test["spec"]["prompts"] = []
    await put(api, pair(1))
    await judged(api, 1)
    assert is_problem(await api.post(f"{TEST}/comparisons", {"evaluator": "ada"}), 409, "no-prompts")


async def test_more_than_will_be_judged_are_not_kept(api: Api) -> None:
    api.cluster.test["spec"]["prompts"] = []
    await put(api, pair(1))
    await put(api, *(pair(number) for number in range(2, 6)), keep_max=3)
    await put(api, pair(6), keep_max=3)
    assert sorted(await judged(api, 3)) == ["1+1?", "2+2?", "3+3?"]
    assert is_problem(await api.post(f"{TEST}/comparisons", {"evaluator": "ada"}), 409, "no-prompts")


async def test_what_is_told_again_takes_no_room_of_what_is_new(api: Api) -> None:
    api.cluster.test["spec"]["prompts"] = []
    await put(api, pair(1), pair(2), keep_max=3)
    await put(api, pair(1), pair(2), pair(2), pair(3), pair(4), keep_max=3)
    assert sorted(await judged(api, 3)) == ["1+1?", "2+2?", "3+3?"]


async def test_who_waits_for_requests_is_told_so(api: Api) -> None:
    api.cluster.test["spec"] |= {"prompts": [], "traffic": {"shadowPercent": 10, "pairPercent": 10}}
    response = await api.post(f"{TEST}/comparisons", {"evaluator": "ada"})
    assert is_problem(response, 409, "no-prompts")
    assert "come back later" in response.json()["detail"]


@pytest.mark.parametrize("change", [{"id": ""}, {"id": "x" * 37}, {"prompt": None}])
async def test_what_is_no_pair_is_refused(api: Api, change: dict[str, Any]) -> None:
    body = {
        "baselineServedName": "tiny",
        "candidateServedName": "plato-v2",
        "pairs": [pair(1).model_dump(mode="json", by_alias=True) | change],
    }
    response = await api.client.put(PAIRS_PATH.format(uid="test-uid"), json=body, headers=INTERNAL)
    assert response.status_code == 422
