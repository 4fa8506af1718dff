"""How strong each version is by all votes: a Bradley-Terry model on the scale of Elo ratings.

Unlike ratings that are updated vote by vote it does not depend on the order of the votes, and versions that never met
are compared by those that both did meet.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Player = TypeVar("Player", bound=Hashable)

AVERAGE = 1500.0
POINTS_PER_FACTOR_TEN = 400.0
PRIOR_WINS = 1.0
"""Of each over whom it met: without them, who never lost would be infinitely strong."""
PRECISION = 1e-6
MAX_ROUNDS = 10_000


@dataclass(frozen=True)
class Duel(Generic[Player]):
    """Votes between two; `first_share` counts a tie as half a win."""

    first: Player
    second: Player
    votes: int
    first_share: float


def elo(duels: Iterable[Duel[Player]]) -> Mapping[Player, float]:
    """400 points more: preferred ten times as often. The mean of all who met, directly or not, is 1500.

    Source of the iteration: Newman, "Efficient computation of rankings from pairwise comparisons", JMLR 24, 2023.
    """
    wins: defaultdict[Player, defaultdict[Player, float]] = defaultdict(lambda: defaultdict(lambda: PRIOR_WINS))
    for duel in duels:
        if duel.votes:
            wins[duel.first][duel.second] += duel.votes * duel.first_share
            wins[duel.second][duel.first] += duel.votes * (1 - duel.first_share)
    strengths = dict.fromkeys(wins, 1.0)
    for _ in range(MAX_ROUNDS):
        largest_change = 0.0
        for player, strength in strengths.items():
            others = [(other, strengths[other] + strength) for other in wins[player]]
            won = sum(wins[player][other] * strengths[other] / total for other, total in others)
            lost = sum(wins[other][player] / total for other, total in others)
            strengths[player] = won / lost
            largest_change = max(largest_change, abs(math.log(won / lost / strength)))
        if largest_change < PRECISION:
            break
    points = {player: POINTS_PER_FACTOR_TEN * math.log10(strength) for player, strength in strengths.items()}
    return {player: AVERAGE + points[player] - _mean(points, _met(wins, player)) for player in points}


def _met(wins: Mapping[Player, Mapping[Player, float]], player: Player) -> set[Player]:
    """Whom this one can be compared with, itself included."""
    found: set[Player] = set()
    new = {player}
    while new:
        found |= new
        new = {other for known in new for other in wins[known]} - found
    return found


def _mean(points: Mapping[Player, float], players: set[Player]) -> float:
    return math.fsum(points[player] for player in players) / len(players)
