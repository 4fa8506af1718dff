"""Why no dataset could be made, in the names that a request has."""

import re

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.store.dataset_worker import ExportEmpty
from finetune_operator.web.problems import Problem

# The field of a request, or the setting of the api, for each name by which a FineTuneJob knows the same.
FIELDS = {
    "goldStarOnly": "gold_star_only",
    "minConfidence": "min_confidence",
    "minRating": "min_rating",
    "taskType": "task_type",
    "dataset.maxBytes": "FINETUNE_DATASETS_MAX_BYTES",
    "dataset.maxCharacters": "max_characters",
    "dataset.minConfidenceDiff": "min_confidence_diff",
    "dataset.minExamples": "min_examples",
    "dataset.minPromptCharacters": "min_prompt_characters",
    "dataset.minRatingDifference": "min_rating_difference",
    "dataset.minResponseCharacters": "min_response_characters",
    "dataset.ratings.domain": "domain",
    "dataset.ratings.goldStarOnly": "gold_star_only",
    "dataset.ratings.limit": "limit",
    "dataset.ratings.minConfidence": "min_confidence",
    "dataset.ratings.minRating": "min_rating",
    "dataset.ratings.philosopher": "philosopher",
    "dataset.ratings.taskType": "task_type",
}
_DATASET_FIELD = re.compile(r"dataset(\.ratings)?\.[a-zA-Z]+")
_FILTER = re.compile(r"^[a-zA-Z]+")


def empty(outcome: ExportEmpty) -> Problem:
    """Which filter took the last row."""
    before = 0
    for number, left in enumerate(outcome.filters):
        if left.rows == 0:
            if number == 0:
                detail = "the table ml_analysis_rating has no rows; collect ratings first, or name another database"
                return Problem(422, "dataset-empty", detail)
            name = in_request(left.filter)
            detail = f"{name} leaves none of the {before} ratings that the filters before it leave; relax it"
            return Problem(422, "dataset-empty", detail)
        before = left.rows
    return Problem(422, "dataset-empty", "no rating is left; relax the filters")


def in_request(name: str) -> str:
    """A filter as a request calls it."""
    return _FILTER.sub(lambda found: FIELDS.get(found[0], found[0]), name)


def refused(failure: Failure) -> Problem:
    """The failure of a FineTuneJob's dataset as an answer to a request."""
    match failure.reason:
        case FailureReason.DATABASE_UNREACHABLE:
            # The driver's words may name hosts and users, which are for the log.
            detail = (
                "the ratings database did not answer; the api's log says why. Check the URL in the Secret that the "
                "chart's value api.ratings.existingSecret names, and api.ratings.claimName for SQLite"
            )
            return Problem(503, "ratings-unreachable", detail)
        case FailureReason.DATASET_EMPTY | FailureReason.DATASET_TOO_SMALL:
            # Counts and names of rules, no text of a user.
            words = f"{failure.message}; {failure.remedy} (fields of POST /v1/fine-tuning/datasets/export)"
            kind = "dataset-empty" if failure.reason == FailureReason.DATASET_EMPTY else "dataset-too-small"
            return Problem(422, kind, _in_our_names(words))
        case FailureReason.STORAGE_EXCEEDED:
            return full(_in_our_names(failure.message))
        case _:
            remedy = failure.remedy.replace("spec.dataset.ratings", "the request")
            return Problem(422, "dataset-invalid", f"{failure.message}; {remedy}")


def full(fact: str) -> Problem:
    remedy = (
        "delete datasets that are no longer needed (DELETE /v1/fine-tuning/datasets/<id>), narrow the filters, or "
        "raise the chart's values api.datasets.maxCount and api.datasets.maxBytes, or the volume's size"
    )
    return Problem(507, "datasets-full", f"{fact}; {remedy}")


def _in_our_names(words: str) -> str:
    return _DATASET_FIELD.sub(lambda found: FIELDS.get(found[0], found[0]), words)
