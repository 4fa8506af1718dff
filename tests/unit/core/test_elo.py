"""Elo ratings from votes between pairs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.elo import AVERAGE, Duel, elo

MANY = 1_000_000

KNOWN: dict[str, tuple[tuple[Duel[str], ...], dict[str, float]]] = {
    "nobody": ((), {}),
    "no votes": ((Duel("a", "b", 0, 0.5),), {}),
    "equals": ((Duel("a", "b", 20, 0.5),), {"a": 1500, "b": 1500}),
    "ten times as often": ((Duel("a", "b", MANY, 10 / 11),), {"a": 1700, "b": 1300}),
    "never met": (
        (Duel("a", "b", MANY, 10 / 11), Duel("b", "c", MANY, 10 / 11)),
        {"a": 1900, "b": 1500, "c": 1100},
    ),
    "two that have nothing to do with each other": (
        (Duel("a", "b", MANY, 10 / 11), Duel("c", "d", 20, 0.5)),
        {"a": 1700, "b": 1300, "c": 1500, "d": 1500},
    ),
}


@pytest.mark.parametrize(("duels", "expected"), KNOWN.values(), ids=KNOWN.keys())
def test_known_ratings(duels: tuple[Duel[str], ...], expected: dict[str, float]) -> None:
    assert elo(duels) == pytest.approx(expected, abs=1)


def test_who_never_lost_is_not_infinitely_strong_but_stronger_with_each_win() -> None:
    ratings = [elo([Duel("a", "b", votes, 1.0)])["a"] for votes in (1, 10, 100)]
    assert AVERAGE < ratings[0] < ratings[1] < ratings[2] < AVERAGE + 1000


votes = st.integers(1, 500).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, 2 * total)))
tournaments = st.lists(
    st.tuples(st.permutations("abcd"), votes).map(
        lambda drawn: Duel(drawn[0][0], drawn[0][1], drawn[1][0], drawn[1][1] / 2 / drawn[1][0])
    ),
    min_size=1,
    max_size=8,
)


@given(tournaments, st.randoms(use_true_random=False))
def test_neither_order_nor_side_nor_splitting_of_votes_matters(duels: list[Duel[str]], chance: random.Random) -> None:
    turned = [Duel(duel.second, duel.first, duel.votes, 1 - duel.first_share) for duel in duels]
    chance.shuffle(turned)
    assert elo(turned) == pytest.approx(elo(duels), abs=0.1)
    halves = [Duel(duel.first, duel.second, duel.votes, duel.first_share) for duel in (*duels, *duels)]
    doubled = [Duel(duel.first, duel.second, 2 * duel.votes, duel.first_share) for duel in duels]
    assert elo(halves) == pytest.approx(elo(doubled), abs=0.1)


@given(tournaments)
def test_one_more_win_never_makes_the_winner_weaker(duels: list[Duel[str]]) -> None:
    winner, loser = duels[0].first, duels[0].second
    before, after = elo(duels), elo([*duels, Duel(winner, loser, 1, 1.0)])
    assert after[winner] > before[winner] - 0.1
    assert after[loser] < before[loser] + 0.1
