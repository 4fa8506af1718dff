"""Test of paired votes for a stated minimum effect: a truncated group-sequential design.

It looks ten times on the way to a horizon, the most votes it takes, and spends alpha by how much of that way is behind:
alpha * t^3 until the part t of it (Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika
1983; Kim and DeMets 1987). Boundaries are worked out from the votes that a look really found, however late it came, and
from how many of them were no ties: between equals each of these is a fair coin whatever the ties are, so that the
probability of every course is counted, not approximated, and false verdicts are alpha at most.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil, exp, floor, fsum, lgamma, log, sqrt
from operator import mul
from statistics import NormalDist
from typing import NamedTuple

from finetune_operator.resources.abtest import Look, Votes
from finetune_operator.resources.abtest_decision import DEFAULT_MAX_VOTES, VOTE_LOOKS, Decision

EVEN = 0.5
POWER = 0.8
"""Probability of finding a difference of just the minimum effect by the horizon."""
LEAST_HORIZON_RATIO = 1.1
"""The horizon over the size of a test that looks once is never less: looking on the way costs some votes."""
MOST_HORIZON_RATIO, MOST_HORIZON_MORE = 1.2, 8
"""It is never more than this times that size, and these votes, which matter where a few votes are enough."""
HORIZON_STEP = 100
"""A horizon is worked out to a hundredth of itself."""
SPENDING_EXPONENT = 3
DEVIATIONS = 9.0
"""Lattice points farther from a mean than this have less probability together than a float's last digit."""
REMEMBERED_COURSES = 256


class _Course(NamedTuple):
    """What an undecided test between equals may look like: `chances[i]` of `lowest` + i wins, and the alpha spent."""

    decisive: int
    lowest: int
    chances: tuple[float, ...]
    spent: float


def most_votes(decision: Decision) -> int:
    """Votes after which the test ends: those that were said, or what the minimum effect takes."""
    if decision.max_votes is None and decision.min_effect is not None:
        return max(decision.min_votes, horizon(float(decision.min_effect), float(decision.alpha)))
    return decision.max_votes or DEFAULT_MAX_VOTES


def votes_bound(decision: Decision) -> int:
    """Little more than `most_votes`, and never less, at once: a horizon may take a second to be worked out."""
    if decision.max_votes is None and decision.min_effect is not None:
        return max(decision.min_votes, horizon_bounds(float(decision.min_effect), float(decision.alpha))[1])
    return decision.max_votes or DEFAULT_MAX_VOTES


@lru_cache(REMEMBERED_COURSES)
def horizon(min_effect: float, alpha: float) -> int:
    """Votes that find a win rate of 0.5 + `min_effect` with probability `POWER` where there are no ties; with ties, of
    which each counts half in the win rate, the probability is larger."""
    votes, most = horizon_bounds(min_effect, alpha)
    while votes < most and _probability_of_winning(votes, EVEN + min_effect, alpha) < POWER:
        votes += ceil(votes / HORIZON_STEP)
    return votes


def horizon_bounds(min_effect: float, alpha: float) -> tuple[int, int]:
    """Least and most that the horizon may be, without working it out."""
    normal = NormalDist()
    deviations = normal.inv_cdf(1 - alpha / 2) / 2 + normal.inv_cdf(POWER) * sqrt(EVEN**2 - min_effect**2)
    looking_once = (deviations / min_effect) ** 2
    return ceil(LEAST_HORIZON_RATIO * looking_once), ceil(MOST_HORIZON_RATIO * looking_once) + MOST_HORIZON_MORE


def _probability_of_winning(most: int, share: float, alpha: float) -> float:
    """Of a candidate that gets this share of votes without ties, by one of the planned looks."""
    past: tuple[tuple[int, int], ...] = ()
    lowest, chances, decisive, won = 0, [1.0], 0, 0.0
    for votes in _planned(most, 1):
        needed = lead_needed(past, votes, _allowed(alpha, votes, most))
        lowest, chances = _after(lowest, chances, votes - decisive, share)
        decisive, past = votes, (*past, (votes, needed))
        undecided = _undecided_wins(votes, needed)
        won += sum(chances[max(0, undecided.stop - lowest) :])
        lowest, chances = undecided.start, [_chance(lowest, chances, wins) for wins in undecided]
    return won


def _planned(most: int, least: int) -> Iterable[int]:
    found = (max(ceil(number * most / VOTE_LOOKS), least) for number in range(1, VOTE_LOOKS + 1))
    return sorted(set(found))


def _allowed(alpha: float, votes: int, most: int) -> float:
    """What of alpha may be spent so far."""
    return alpha * min(1.0, votes / most) ** SPENDING_EXPONENT


def next_look(decision: Decision, looks: tuple[Look, ...]) -> int | None:
    """Votes at which the next look is due; None after the last one, and after one that was significant."""
    if looks and looks[-1].is_significant:
        return None
    most, seen = most_votes(decision), looks[-1].votes if looks else 0
    return next((votes for votes in _planned(most, decision.min_votes) if votes > seen), None)


def looked(decision: Decision, looks: tuple[Look, ...], votes: Votes) -> tuple[Look, ...]:
    """The looks so far, with one more if it is due. What was looked at once is not looked at again."""
    due, decisive = next_look(decision, looks), votes.fine_tuned + votes.base
    if due is None or votes.total < due or (looks and decisive < looks[-1].fine_tuned + looks[-1].base):
        return looks
    allowed = _allowed(float(decision.alpha), votes.total, most_votes(decision))
    past = tuple((look.fine_tuned + look.base, look.lead_needed) for look in looks)
    needed = lead_needed(past, decisive, allowed)
    return (*looks, Look(votes=votes.total, fine_tuned=votes.fine_tuned, base=votes.base, lead_needed=needed))


def lead_needed(past: tuple[tuple[int, int], ...], decisive: int, allowed: float) -> int:
    """The least lead after so many decisive votes that keeps the probability of any false verdict so far within
    `allowed`; `past` has the decisive votes of each look before and the lead that it needed. It may be more than there
    are votes."""
    before = _undecided(past)
    lowest, chances = _after(before.lowest, before.chances, decisive - before.decisive, EVEN)
    lead, spent = decisive + 2, before.spent
    while lead >= 2:
        wins = (decisive + lead - 2) // 2
        both_sides = _chance(lowest, chances, wins) + _chance(lowest, chances, decisive - wins)
        if spent + both_sides > allowed:
            break
        lead, spent = lead - 2, spent + both_sides
    return lead


@lru_cache(REMEMBERED_COURSES)
def _undecided(looks: tuple[tuple[int, int], ...]) -> _Course:
    if not looks:
        return _Course(0, 0, (1.0,), 0.0)
    *earlier, (decisive, needed) = looks
    before = _undecided(tuple(earlier))
    lowest, chances = _after(before.lowest, before.chances, decisive - before.decisive, EVEN)
    undecided = _undecided_wins(decisive, needed)
    kept = tuple(_chance(lowest, chances, wins) for wins in undecided)
    # Not what is left of 1, whose rounding error is more than a small alpha.
    lost, won = chances[: max(0, undecided.start - lowest)], chances[max(0, undecided.stop - lowest) :]
    return _Course(decisive, undecided.start, kept, before.spent + fsum(lost) + fsum(won))


def _undecided_wins(decisive: int, needed: int) -> range:
    """Numbers of wins at which neither leads by as much as is needed."""
    return range((decisive - needed) // 2 + 1, (decisive + needed + 1) // 2)


def _after(lowest: int, chances: Sequence[float], votes: int, share: float) -> tuple[int, list[float]]:
    """The least number of wins and the chances from there on, once there are so many more decisive votes."""
    least, steps = _binomial(votes, share)
    padding = [0.0] * (len(steps) - 1)
    padded, turned = [*padding, *chances, *padding], steps[::-1]
    found = [sum(map(mul, padded[i : i + len(steps)], turned)) for i in range(len(chances) + len(steps) - 1)]
    return lowest + least, found


def _chance(lowest: int, chances: Sequence[float], wins: int) -> float:
    return chances[wins - lowest] if 0 <= wins - lowest < len(chances) else 0.0


@lru_cache(REMEMBERED_COURSES)
def _binomial(votes: int, share: float) -> tuple[int, tuple[float, ...]]:
    """The least number of wins worth counting, and the probabilities from there on."""
    mean, reach = votes * share, DEVIATIONS * sqrt(votes * share * (1 - share)) + DEVIATIONS
    least, most = max(0, floor(mean - reach)), min(votes, ceil(mean + reach))
    ways, win, loss = lgamma(votes + 1), log(share), log(1 - share)
    return least, tuple(
        exp(ways - lgamma(wins + 1) - lgamma(votes - wins + 1) + wins * win + (votes - wins) * loss)
        for wins in range(least, most + 1)
    )
