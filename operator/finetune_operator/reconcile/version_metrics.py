"""What is known of a version: what its training measured, how people voted and rated, and what an answer costs."""

from collections.abc import Sequence

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.conditions import Absent, Finding
from finetune_operator.core.cost import NoPrice, PriceBook
from finetune_operator.core.elo import Duel, elo
from finetune_operator.core.inference_cost import token_price
from finetune_operator.core.ratings import rating_metrics
from finetune_operator.core.served_size import served_bytes
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.evaluation import MetricValue, RatingMetrics, VersionMetrics
from finetune_operator.resources.modelversion import ModelVersion

COST_CONDITION = "CostKnown"


def version_metrics(version: ModelVersion, tests: Sequence[ABTest], rated: RatingTally | None) -> VersionMetrics | None:
    """What was measured, how people voted last, and how they rated; `rated` is None where there is no news."""
    record = version.spec.lineage.evaluation
    win_rate, rating = _win_rate(version, tests), _elo(version, tests)
    found = VersionMetrics(
        test_loss=record and record.test_loss,
        base_test_loss=record and record.base_test_loss,
        scores=_scores(version),
        win_rate=win_rate,
        elo=rating,
        model_bytes=served_bytes(version),
        ratings=_ratings(version, rated),
    )
    return found if found != VersionMetrics() else None


def cost_finding(version: ModelVersion, prices: PriceBook) -> Finding | Absent:
    """Whether it is known what its answers cost, of a version that answers here or at its provider."""
    if version.spec.serving is None and version.spec.base_model.source.openai is None:
        return Absent(COST_CONDITION)
    price = token_price(version, prices)
    if isinstance(price, NoPrice):
        return Finding(COST_CONDITION, False, price.reason, price.message)
    return Finding(COST_CONDITION, True, "Priced", price.basis)


def _scores(version: ModelVersion) -> tuple[MetricValue, ...]:
    """Those of the served version first, then what the training alone measured."""
    served, record = version.status.evaluation, version.spec.lineage.evaluation
    newest = served.metrics if served else ()
    known = {value.name for value in newest}
    return (*newest, *(value for value in (record.metrics if record else ()) if value.name not in known))


def _win_rate(version: ModelVersion, tests: Sequence[ABTest]) -> str | None:
    """It outlives its test: a test that was deleted has been held all the same."""
    ended = [
        (test.status.concluded_at, test.status.votes.win_rate)
        for test in tests
        if test.spec.candidate.model_version == version.metadata.name
        and test.status.concluded_at
        and test.status.votes
        and test.status.votes.win_rate
    ]
    known = version.status.metrics.win_rate if version.status.metrics else None
    return max(ended)[1] if ended else known


def _ratings(version: ModelVersion, rated: RatingTally | None) -> RatingMetrics | None:
    """The last ones known while nobody tells."""
    if rated is not None:
        return rating_metrics(rated)
    return version.status.metrics.ratings if version.status.metrics else None


def _elo(version: ModelVersion, tests: Sequence[ABTest]) -> int | None:
    """By all tests of its model that have ended, its own or not; the last one known once none of its own is left."""
    ratings = elo(_duel(test) for test in tests if test.spec.model == version.spec.model and test.status.concluded_at)
    known = version.status.metrics.elo if version.status.metrics else None
    rating = ratings.get(version.metadata.name)
    return known if rating is None else round(rating)


def _duel(test: ABTest) -> Duel[str | None]:
    """None: the base model."""
    candidate, baseline, votes = test.spec.candidate.model_version, test.spec.baseline.model_version, test.status.votes
    if votes is None or votes.total == 0:
        return Duel(candidate, baseline, 0, 0.5)
    return Duel(candidate, baseline, votes.total, (votes.fine_tuned + votes.tie / 2) / votes.total)
