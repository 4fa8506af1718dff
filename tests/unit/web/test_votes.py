"""Blind comparisons: what an evaluator sees, what a vote does, and what never counts."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.contract.places import TALLY_PATH
from tests.unit.web.conftest import INTERNAL, PROMPTS, Api, ab_test
from tests.unit.web.test_access import TEST, is_problem


async def counted(api: Api, **query: int) -> VoteCounts:
    response = await api.get(TALLY_PATH.format(uid="test-uid"), INTERNAL, params=query)
    return VoteCounts.model_validate(response.json()["votes"])


@pytest.mark.parametrize(
    ("candidate_is_a", "word", "meaning"),
    [
        (True, "a", "fine_tuned"),
        (True, "b", "base"),
        (False, "a", "base"),
        (False, "b", "fine_tuned"),
        (False, "tie", "tie"),
        (True, "both_bad", "both_bad"),
        (False, "fine_tuned", "fine_tuned"),
        (True, "base", "base"),
    ],
)
async def test_a_vote_by_side_means_an_arm(api: Api, candidate_is_a: bool, word: str, meaning: str) -> None:
    api.sides.append(candidate_is_a)
    comparison = await api.compare()
    result = (await api.vote(comparison["comparison_id"], word)).json()
    assert result["vote"] == meaning
    counts = {"fine_tuned": 0, "base": 0, "tie": int(meaning == "both_bad"), "both_bad": 0, meaning: 1}
    assert result["tally"] | {"win_rate": None} == counts | {"win_rate": None}
    assert not result["late"]
    side = result["sides"]["a" if candidate_is_a else "b"]
    assert side == {"arm": "fine_tuned", "served_name": "plato-v2"}
    for name in ("a", "b"):
        assert comparison["answers"][name].startswith(f"{result['sides'][name]['served_name']} says")


async def test_a_comparison_is_blind_until_its_vote(api: Api) -> None:
    comparison = await api.compare()
    assert comparison.keys() == {"comparison_id", "prompt", "answers"}
    assert comparison["answers"].keys() == {"a", "b"}
    listed = (await api.get("/v1/fine-tuning/comparisons")).json()["comparisons"]
    assert [(entry["vote"], entry["sides"]) for entry in listed] == [(None, None)]
    await api.vote(comparison["comparison_id"], "tie")
    listed = (await api.get("/v1/fine-tuning/comparisons?namespace=finetune&name=v1-v2")).json()["comparisons"]
    assert listed[0]["vote"] == "tie"
    assert listed[0]["sides"]["a"]["served_name"] == "plato-v2"


async def test_sides_are_random(api: Api) -> None:
    assert Counter(type(api.services)(api.services.settings, api.services.engine, api.cluster, api.arms).coin()
                   for _ in range(200)).keys() == {True, False}  # fmt: skip


async def test_each_evaluator_sees_all_prompts_in_turn(api: Api) -> None:
    for evaluator in ("ada", "bob"):
        seen = []
        for _ in range(4):
            comparison = await api.compare(evaluator)
            seen.append(comparison["prompt"])
            await api.vote(comparison["comparison_id"], "a", evaluator)
        assert seen == [*PROMPTS, PROMPTS[0]]
    assert (await api.get(TEST)).json()["comparisons"] == 8


async def test_an_open_comparison_is_shown_again(api: Api) -> None:
    first = await api.compare()
    assert await api.compare() == first
    assert (await api.compare("bob"))["comparison_id"] != first["comparison_id"]
    assert len(api.arms.asked) == 4


async def test_two_requests_at_once_make_one_comparison(api: Api) -> None:
    found = await asyncio.gather(*(api.compare() for _ in range(5)))
    assert len({comparison["comparison_id"] for comparison in found}) == 1
    assert (await api.get(TEST)).json()["comparisons"] == 1


@pytest.mark.parametrize(
    ("baseline", "served_name"), [({"base": True}, "tiny"), ({"modelVersion": "plato-v1"}, "plato-v1")]
)
async def test_both_arms_are_asked_by_their_served_names(
    api: Api, baseline: dict[str, object], served_name: str
) -> None:
    api.cluster.test["spec"]["baseline"] = baseline
    await api.compare()
    assert sorted(api.arms.asked) == sorted([(served_name, PROMPTS[0]), ("plato-v2", PROMPTS[0])])


@pytest.mark.parametrize("broken", ["tiny", "plato-v2"])
async def test_an_arm_that_cannot_answer_stores_nothing(api: Api, broken: str) -> None:
    api.arms.broken.add(broken)
    response = await api.post(f"{TEST}/comparisons", {"evaluator": "ada"})
    assert is_problem(response, 502, "arm-unavailable")
    assert f"{broken} did not answer" in response.json()["detail"]
    assert (await api.get(TEST)).json()["comparisons"] == 0


async def test_a_test_without_prompts_says_so(api: Api) -> None:
    api.cluster.test["spec"]["prompts"] = []
    response = await api.post(f"{TEST}/comparisons", {"evaluator": "ada"})
    assert is_problem(response, 409, "no-prompts")


async def test_a_candidate_that_is_gone(api: Api) -> None:
    del api.cluster.objects["modelversions", "finetune", "plato-v2"]
    assert is_problem(await api.post(f"{TEST}/comparisons", {"evaluator": "ada"}), 409, "unknown-model-version")
    assert (await api.get(TEST)).json()["baseline"] is None


async def test_a_vote_sent_again_changes_nothing_and_another_is_a_conflict(api: Api) -> None:
    comparison = await api.compare()
    first = await api.vote(comparison["comparison_id"], "a")
    again = await api.vote(comparison["comparison_id"], "fine_tuned")
    assert (again.status_code, again.json()) == (200, first.json())
    assert is_problem(await api.vote(comparison["comparison_id"], "b"), 409, "already-voted")
    assert await counted(api) == VoteCounts(fine_tuned=1)


async def test_a_comparison_is_its_evaluators_own(api: Api) -> None:
    comparison = await api.compare("ada")
    assert is_problem(await api.vote(comparison["comparison_id"], "a", "bob"), 403, "foreign-comparison")


async def test_a_comparison_of_another_test_is_unknown(api: Api) -> None:
    comparison = await api.compare()
    recreated = ab_test()
    recreated["metadata"]["uid"] = "another-uid"
    api.cluster.objects["abtests", "finetune", "v1-v2"] = recreated
    for comparison_id in (comparison["comparison_id"], "0" * 36):
        assert is_problem(await api.vote(comparison_id, "a"), 404, "unknown-comparison")


async def test_late_votes_are_kept_and_never_counted(api: Api) -> None:
    before, after = await api.compare("ada"), await api.compare("bob")
    await api.vote(before["comparison_id"], "a", "ada")
    api.cluster.test["status"] = {"phase": "Concluded", "verdict": "Won", "pValue": "0.01", "leader": "plato-v2"}
    late = (await api.vote(after["comparison_id"], "b", "bob")).json()
    assert late["late"]
    assert late["tally"] == {"fine_tuned": 1, "base": 0, "tie": 0, "both_bad": 0, "win_rate": 1.0}
    assert await counted(api) == VoteCounts(fine_tuned=1)
    again = (await api.vote(before["comparison_id"], "a", "ada")).json()
    assert not again["late"]
    state = (await api.get(TEST)).json()
    assert (state["verdict"], state["p_value"], state["leader"]) == ("Won", "0.01", "plato-v2")
    assert (state["late_votes"], state["comparisons"], state["baseline"]) == (1, 2, "tiny")


async def test_a_test_of_a_fixed_size_counts_its_first_votes_only(api: Api) -> None:
    api.cluster.test["spec"]["decision"] = {"method": "ChiSquared", "minVotes": 1, "maxVotes": 2}
    for evaluator, word in (("ada", "fine_tuned"), ("bob", "tie"), ("eve", "base")):
        comparison = await api.compare(evaluator)
        tally = (await api.vote(comparison["comparison_id"], word, evaluator)).json()["tally"]
    assert tally == {"fine_tuned": 1, "base": 0, "tie": 1, "both_bad": 0, "win_rate": 0.75}
    state = (await api.get(TEST)).json()
    assert (state["tally"], state["method"]) == (tally, "ChiSquared")
    assert await counted(api, max_votes=2) == VoteCounts(fine_tuned=1, tie=1)
    assert await counted(api) == VoteCounts(fine_tuned=1, base=1, tie=1)


async def test_where_a_test_stands_by_weights(api: Api) -> None:
    arms: dict[str, object] = {
        name: {"servedName": name, "score": score} for name, score in (("candidate", "0.61"), ("baseline", "0.39"))
    }
    arms["sampleRatioPValue"] = "0.5"
    votes = {"preferenceLower": "0.4", "preferenceUpper": "0.9"}
    api.cluster.test["status"] = {"phase": "Running", "chiSquaredPValue": "0.2", "arms": arms, "votes": votes}
    state = (await api.get(TEST)).json()
    assert (state["preference_lower"], state["preference_upper"], state["sample_ratio_p_value"]) == (
        "0.4",
        "0.9",
        "0.5",
    )
    assert (state["candidate_score"], state["baseline_score"], state["chi_squared_p_value"]) == ("0.61", "0.39", "0.2")


async def test_a_tie_is_half_a_win(api: Api) -> None:
    for number, (word, count) in enumerate([("fine_tuned", 12), ("base", 5), ("tie", 3)]):
        for voter in range(count):
            evaluator = f"evaluator {number} {voter}"
            comparison = await api.compare(evaluator)
            assert (await api.vote(comparison["comparison_id"], word, evaluator)).status_code == 200
    tally = (await api.get(TEST)).json()["tally"]
    assert tally == {"fine_tuned": 12, "base": 5, "tie": 3, "both_bad": 0, "win_rate": 0.675}


async def test_comparisons_are_listed_newest_first_and_in_pages(api: Api) -> None:
    for evaluator in ("ada", "bob", "eve"):
        await api.compare(evaluator)
    page = (await api.get("/v1/fine-tuning/comparisons?limit=2")).json()["comparisons"]
    assert [entry["evaluator"] for entry in page] == ["eve", "bob"]
    rest = await api.get("/v1/fine-tuning/comparisons", params={"before": page[-1]["created_at"]})
    assert [entry["evaluator"] for entry in rest.json()["comparisons"]] == ["ada"]


@pytest.mark.parametrize("text", ["' OR '1'='1", "x'); DROP TABLE abtest_votes; --", "%", ":evaluator", "ünï 💡"])
async def test_names_are_values_and_never_sql(api: Api, text: str) -> None:
    mine, other = await api.compare(text), await api.compare("ada")
    assert (await api.vote(mine["comparison_id"], "tie", text)).status_code == 200
    assert (await api.compare())["comparison_id"] == other["comparison_id"]
    assert (await api.get("/v1/fine-tuning/comparisons", params={"name": text})).json()["comparisons"] == []
    assert await counted(api) == VoteCounts(tie=1)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "tie"])), max_size=12), run=st.uuids())
async def test_only_the_first_vote_on_a_comparison_ever_counts(
    api: Api, words: list[tuple[int, str]], run: object
) -> None:
    api.cluster.test["metadata"]["uid"] = "test-uid"
    before = await counted(api)
    comparisons = [await api.compare(f"{run} {number}") for number in range(3)]
    first: dict[int, str] = {}
    for number, word in words:
        response = await api.vote(comparisons[number]["comparison_id"], word, f"{run} {number}")
        assert response.status_code == (200 if first.setdefault(number, word) == word else 409)
    after, meant = await counted(api), Counter(first.values())
    assert after.fine_tuned - before.fine_tuned == meant["a"]
    assert after.base - before.base == meant["b"]
    assert after.tie - before.tie == meant["tie"]
