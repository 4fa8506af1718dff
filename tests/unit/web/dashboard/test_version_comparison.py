"""Two models side by side: which is better in what, and what can't be said."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.resources.evaluation import MemoryOf
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.web.dashboard.templating import percent
from finetune_operator.web.dashboard.version_comparison import Row, Standing, comparison, summary
from finetune_operator.web.dashboard.version_figures import Figures, Memory, Money, figures_of, figures_of_base
from finetune_operator.web.dashboard.vote_progress import duel_of, mirrored
from tests.builders import merged
from tests.unit.web.conftest import model_version

NOTHING = Figures("nothing")
OLD = Figures(
    "plato-v1",
    elo=1500,
    ratings=4000,
    gold_star_rate=0.5,
    average_rating=4.0,
    rating_deviation=0.5,
    scores={"RougeL": 0.2},
    tokens_per_second=100.0,
    seconds_to_first_token=0.2,
    model_megabytes=20.0,
    memory=Memory(8.0, MemoryOf.CONTAINER),
    cost_per_million_tokens=Money(2.0, "USD"),
)

# The row, the new side's value, how the new side stands, and the words.
CASES: dict[str, tuple[str, dict[str, Any], Standing, str]] = {
    "more stars": ("Average rating", {"average_rating": 4.4}, Standing.BETTER, "10\u202f% higher: better"),
    "fewer gold stars": ("Gold-star rate", {"gold_star_rate": 0.25}, Standing.WORSE, "lower: worse"),
    "the same as shown": ("Average rating", {"average_rating": 4.0001}, Standing.EQUAL, "the same"),
    "more even": ("Consistency", {"rating_deviation": 0.25}, Standing.BETTER, "50\u202f% lower: better"),
    "a stronger player of others": (
        "Elo rating", {"elo": 1600}, Standing.UNDECIDED, "higher, but nobody has voted on these two yet",
    ),
    "more stars of few": (
        "Average rating", {"average_rating": 4.4, "ratings": 8}, Standing.UNDECIDED,
        "higher, but not decided by 4\u202f000 ratings and 8 ratings",
    ),
    "more even of few": (
        "Consistency", {"rating_deviation": 0.25, "ratings": 1}, Standing.UNDECIDED,
        "lower, but not decided by 4\u202f000 ratings and 1 rating",
    ),
    "a better score": ("RougeL", {"scores": {"RougeL": 0.3}}, Standing.BETTER, "50\u202f% higher: better"),
    "another metric": ("RougeL", {"scores": {"Bleu": 0.3}}, Standing.UNKNOWN, "one of them was not measured"),
    "quicker": ("Tokens per second", {"tokens_per_second": 150.0}, Standing.BETTER, "50\u202f% higher: better"),
    "later": ("Time to first token", {"seconds_to_first_token": 0.3}, Standing.WORSE, "50\u202f% higher: worse"),
    "larger": ("Model size", {"model_megabytes": 40.0}, Standing.WORSE, "100\u202f% higher: worse"),
    "less memory": (
        "Memory of its engine",
        {"memory": Memory(4.0, MemoryOf.CONTAINER)},
        Standing.BETTER,
        "50\u202f% lower: better",
    ),
    "a little more memory": (
        "Memory of its engine",
        {"memory": Memory(8.6, MemoryOf.CONTAINER)},
        Standing.UNDECIDED,
        "about the same: it also grows with an engine's age",
    ),
    "memory of another kind": (
        "Memory of its engine",
        {"memory": Memory(72.0, MemoryOf.ACCELERATORS)},
        Standing.UNKNOWN,
        "accelerators and containers can't be compared",
    ),
    "dearer": (
        "Cost per million tokens",
        {"cost_per_million_tokens": Money(3.0, "USD")},
        Standing.WORSE,
        "50\u202f% higher: worse",
    ),
    "another currency": (
        "Cost per million tokens",
        {"cost_per_million_tokens": Money(3.0, "EUR")},
        Standing.UNKNOWN,
        "different currencies can't be compared",
    ),
    "no price": (
        "Cost per million tokens",
        {"cost_per_million_tokens": None},
        Standing.UNKNOWN,
        "one of them was not measured",
    ),
    "never measured": (
        "Requests per second at saturation",
        {},
        Standing.UNKNOWN,
        "neither was measured",
    ),
}  # fmt: skip


def rows(left: Figures, right: Figures, *duel: Any) -> dict[str, Row]:
    return {row.name: row for group in comparison(left, right, *duel) for row in group.rows}


@pytest.mark.parametrize(("name", "changes", "standing", "words"), CASES.values(), ids=CASES)
def test_one_quantity(name: str, changes: dict[str, Any], standing: Standing, words: str) -> None:
    row = rows(OLD, replace(OLD, **changes))[name]
    assert (row.standing, row.words) == (standing, words)


@pytest.mark.parametrize(("name", "changes", "standing", "words"), CASES.values(), ids=CASES)
def test_the_other_side_is_the_mirror(name: str, changes: dict[str, Any], standing: Standing, words: str) -> None:
    changed = replace(OLD, **changes)
    assert rows(OLD, changed)[name].left_standing == rows(changed, OLD)[name].standing


def test_what_is_unknown_is_a_dash_and_never_0() -> None:
    found = rows(NOTHING, NOTHING)
    assert {row.left.text for row in found.values()} == {"\u2013"}
    assert {row.standing for row in found.values()} == {Standing.UNKNOWN}


VOTES = {
    "beyond doubt": (VoteCounts(fine_tuned=21, base=4, tie=3), Standing.BETTER, "preferred in 28 votes, beyond doubt"),
    "lost": (VoteCounts(fine_tuned=2, base=30), Standing.WORSE, "less liked in 32 votes, beyond doubt"),
    "ahead only": (VoteCounts(fine_tuned=3, base=1), Standing.UNDECIDED, "not decided by 4 votes"),
    "one": (VoteCounts(tie=1), Standing.UNDECIDED, "not decided by 1 vote"),
}


@pytest.mark.parametrize(("votes", "standing", "words"), VOTES.values(), ids=VOTES)
def test_votes_decide_only_beyond_doubt(votes: VoteCounts, standing: Standing, words: str) -> None:
    duel = duel_of(votes, 0.2)
    assert duel is not None
    row = rows(OLD, OLD, duel)["Win rate"]
    assert (row.standing, row.words) == (standing, words)
    assert row.right.share == pytest.approx(votes.win_rate)
    assert row.left.share == pytest.approx(1 - (votes.win_rate or 0))
    assert mirrored(mirrored(duel)).win_rate == pytest.approx(duel.win_rate)


# Share of gold stars and the ratings of either side; whether they differ beyond doubt.
RATES = {
    "of 40 ratings": ((0.71, 40), (0.84, 40), Standing.UNDECIDED),
    "of 4000 ratings": ((0.71, 4000), (0.84, 4000), Standing.BETTER),
    "few against many": ((0.71, 4000), (0.84, 40), Standing.UNDECIDED),
    "all against none": ((0.0, 40), (1.0, 40), Standing.BETTER),
    "of nobody knows how many": ((0.71, 0), (0.84, 0), Standing.BETTER),
}


@pytest.mark.parametrize(("left", "right", "standing"), RATES.values(), ids=RATES)
def test_shares_of_ratings_differ_only_beyond_doubt(
    left: tuple[float, int], right: tuple[float, int], standing: Standing
) -> None:
    sides = [replace(OLD, gold_star_rate=rate, ratings=count) for rate, count in (left, right)]
    row = rows(*sides)["Gold-star rate"]
    assert (row.standing, row.right.text) == (standing, percent(right[0]))


@pytest.mark.parametrize(("votes", "standing", "_"), VOTES.values(), ids=VOTES)
def test_elo_is_as_doubtful_as_the_votes_between_the_two(votes: VoteCounts, standing: Standing, _: str) -> None:
    right = replace(OLD, elo=1518 if standing is Standing.WORSE else 1532)
    row = rows(replace(OLD, elo=1525), right, duel_of(votes, 0.2))["Elo rating"]
    assert row.standing is standing


def test_elo_that_contradicts_the_votes_between_the_two_decides_nothing() -> None:
    votes = next(each for each, standing, _ in VOTES.values() if standing is Standing.BETTER)
    right = replace(OLD, elo=1500)
    assert rows(replace(OLD, elo=1525), right, duel_of(votes, 0.2))["Elo rating"].standing is Standing.UNDECIDED


def test_few_ratings_that_are_all_alike_are_no_proof() -> None:
    left = replace(OLD, average_rating=4.9, rating_deviation=0.35, ratings=1000)
    right = replace(OLD, average_rating=5.0, rating_deviation=0.0, ratings=30)
    found = rows(left, right)
    assert found["Average rating"].standing is Standing.UNDECIDED
    assert found["Consistency"].standing is Standing.UNDECIDED


def test_bars_of_speed_and_cost_are_of_the_larger_side() -> None:
    right = replace(OLD, tokens_per_second=50.0, cost_per_million_tokens=Money(8.0, "USD"))
    found = rows(OLD, right)
    assert [side.share for side in (found["Tokens per second"].left, found["Tokens per second"].right)] == [1.0, 0.5]
    cost = found["Cost per million tokens"]
    assert (cost.left.share, cost.right.share) == (0.25, 1.0)
    alone = rows(OLD, NOTHING)["Tokens per second"]
    assert (alone.left.share, alone.right.share) == (None, None)


def test_without_votes_there_is_no_win_rate() -> None:
    assert duel_of(VoteCounts(), 0.05) is None
    assert rows(OLD, OLD)["Win rate"].words == "nobody has voted on these two yet"


def test_scores_of_different_data_come_with_a_warning() -> None:
    left, right = replace(OLD, dataset_digest="sha256:a"), replace(OLD, dataset_digest="sha256:b")
    assert "different data" in comparison(left, right)[0].note
    assert comparison(left, replace(right, dataset_digest="sha256:a"))[0].note == ""


def test_the_summary_counts_what_both_have() -> None:
    found = summary(comparison(OLD, replace(OLD, elo=1600, model_megabytes=40.0, average_rating=4.5)))
    assert (found.better, found.worse, found.undecided, found.known) == (1, 1, 1, 9)


STATUS = {
    "metrics": {
        "testLoss": "1.5",
        "baseTestLoss": "2.5",
        "elo": 1520,
        "scores": [{"name": "RougeL", "base": "0.1", "fineTuned": "0.3"}],
        "ratings": {"count": 3, "average": "4.5", "standardDeviation": "0.5", "goldStarRate": "0.9"},
    },
    "evaluation": {
        "id": "abc",
        "time": "2026-11-22T12:00:00Z",
        "engine": "vllm-1",
        "examples": 10,
        "tokensPerSecond": {"base": "200", "fineTuned": "180"},
        "costPerMillionTokens": {"base": "1", "fineTuned": "1.2", "currency": "USD"},
        "memoryGigabytes": {"of": "Container", "base": "2.1", "fineTuned": "2.2"},
    },
}


def test_figures_of_a_version_and_of_its_base_model() -> None:
    body = merged(model_version(), {"spec": {"artifact": {"sizeBytes": 5_000_000}}})
    version = ModelVersion.parse(merged(body, {"status": STATUS}))
    own, base = figures_of(version), figures_of_base(version)
    assert (own.title, base.title) == ("plato-v2", "tiny")
    assert (own.test_loss, base.test_loss) == (1.5, 2.5)
    assert (own.scores, base.scores) == ({"RougeL": 0.3}, {"RougeL": 0.1})
    assert (own.tokens_per_second, base.tokens_per_second) == (180.0, 200.0)
    assert (own.cost_per_million_tokens, base.cost_per_million_tokens) == (Money(1.2, "USD"), Money(1.0, "USD"))
    assert (own.average_rating, base.average_rating) == (4.5, None)
    assert (own.model_megabytes, base.model_megabytes) == (5.0, None)
    assert (own.memory, base.memory) == (Memory(2.2, MemoryOf.CONTAINER), Memory(2.1, MemoryOf.CONTAINER))


def test_figures_of_a_version_of_which_nothing_is_known() -> None:
    found = figures_of(ModelVersion.parse(model_version()))
    assert found == Figures("plato-v2", dataset_digest=None)
