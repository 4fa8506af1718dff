"""What people's ratings of a version's answers come to."""

from math import sqrt

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.evaluation import decimal
from finetune_operator.resources.evaluation import RatingMetrics

GOLD_STAR_MIN_RATING = 4
MIN_RATING, MAX_RATING = 1, 5


def rating_metrics(tally: RatingTally) -> RatingMetrics | None:
    """None where nobody has rated. The deviation is that of all ratings that there are, not estimated from a sample."""
    count = sum(tally.answers.values())
    if count == 0:
        return None
    average = sum(stars * answers for stars, answers in tally.answers.items()) / count
    variance = sum(answers * (stars - average) ** 2 for stars, answers in tally.answers.items()) / count
    gold = sum(answers for stars, answers in tally.answers.items() if stars >= GOLD_STAR_MIN_RATING)
    return RatingMetrics(
        count=count,
        average=decimal(average),
        standard_deviation=decimal(sqrt(variance)),
        gold_star_rate=decimal(gold / count),
    )
