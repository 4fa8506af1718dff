"""What one vote costs the statistics of an ABTest: the p-value, its confidence sequence and the votes still needed.

The state between two votes is four counts, whatever has been cast before.
"""

import random
import statistics
import time
import tracemalloc
from collections.abc import Callable

from bench.report import Figure, Report
from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.core.group_sequential import looked
from finetune_operator.core.sequential import p_value, preference_interval, votes_still_needed
from finetune_operator.resources.abtest import Look, Votes
from finetune_operator.resources.abtest_decision import Decision

VOTES = 2_000
ROUNDS = 5
TIE_RATE, WIN_RATE = 0.2, 0.52
ALPHA = 0.05
GOAL_MICROSECONDS = 50.0
TOLERATED_BYTES = 1024

Update = Callable[[VoteCounts], object]


def measure() -> Report:
    """Medians over the rounds, of votes at a win rate that takes long to tell from a tie."""
    series = _series(VOTES)
    evidence = _microseconds(series, p_value)
    interval = _microseconds(series, lambda votes: preference_interval(votes, ALPHA))
    needed = _microseconds(series, lambda votes: votes_still_needed(votes, ALPHA))
    decision = Decision(min_effect="0.05", max_votes=VOTES)
    looks: list[Look] = []

    def look(votes: VoteCounts) -> None:
        if votes.total == 1:
            looks.clear()
        looks[:] = looked(decision, tuple(looks), Votes(**votes.model_dump()))

    group_sequential = _microseconds(series, look)
    grown = _peak_bytes(_series(10 * VOTES)[-1]) - _peak_bytes(series[0])
    whole, how = evidence + interval + needed, f"median of {ROUNDS} rounds of {VOTES} votes, CPU time"
    goal = f"<= {GOAL_MICROSECONDS:g} us"
    return Report(
        (
            Figure("p-value", f"{evidence:.1f} us", how, goal, evidence <= GOAL_MICROSECONDS),
            Figure("confidence sequence", f"{interval:.1f} us", how),
            Figure("votes still needed", f"{needed:.1f} us", how),
            Figure("all three", f"{whole:.1f} us", "their sum", goal, whole <= GOAL_MICROSECONDS),
            Figure(
                "looks for a minimum effect",
                f"{group_sequential:.1f} us",
                how,
                goal,
                group_sequential <= GOAL_MICROSECONDS,
            ),
            Figure(
                "memory",
                f"{grown:+d} B",
                f"peak of one update after {10 * VOTES} votes, against the first",
                "constant",
                abs(grown) <= TOLERATED_BYTES,
            ),
        )
    )


def _series(count: int) -> list[VoteCounts]:
    chance, votes, found = random.Random(5), VoteCounts(), []  # noqa: S311 - votes are no secrets
    for _ in range(count):
        word = "tie" if chance.random() < TIE_RATE else "fine_tuned" if chance.random() < WIN_RATE else "base"
        votes = votes.model_copy(update={word: getattr(votes, word) + 1})
        found.append(votes)
    return found


def _microseconds(series: list[VoteCounts], update: Update) -> float:
    def once() -> float:
        begun = time.process_time()
        for votes in series:
            update(votes)
        return (time.process_time() - begun) / len(series) * 1e6

    return statistics.median(once() for _ in range(ROUNDS))


def _peak_bytes(votes: VoteCounts) -> int:
    tracemalloc.start()
    try:
        p_value(votes), preference_interval(votes, ALPHA), votes_still_needed(votes, ALPHA)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
