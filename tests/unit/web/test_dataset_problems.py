"""What a FineTuneJob's dataset fails with, said in the names that a request has."""

import re

import pytest

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.core.datasets import DropReason, size_failure
from finetune_operator.store.dataset_worker import ExportEmpty, FilterLeft
from finetune_operator.web.dataset_problems import FIELDS, empty, refused
from finetune_operator.web.dataset_schemas import ExportRequest
from finetune_operator.web.settings import Settings

CONFIG = DatasetConfig(source=RatingsSource(), min_examples=50)
CAMEL_CASE = re.compile(r"\b[a-z]+[A-Z]\w*")


@pytest.mark.parametrize("method", ["SFT", "DPO"])
@pytest.mark.parametrize("kept", [0, 3])
@pytest.mark.parametrize("reason", DropReason)
def test_no_name_of_a_resource_is_left(reason: DropReason, kept: int, method: str) -> None:
    failure = size_failure(kept, {reason: 40}, CONFIG, method)
    assert failure is not None
    problem = refused(failure)
    assert problem.status == 422
    assert not CAMEL_CASE.search(problem.detail), problem.detail
    assert "dataset." not in problem.detail


def test_every_field_is_one_of_a_request() -> None:
    assert (
        set(FIELDS.values()) - {Settings.model_fields["datasets_max_bytes"].alias} <= ExportRequest.model_fields.keys()
    )


REASONS = {
    FailureReason.DATABASE_UNREACHABLE: ("postgresql://u@db.internal/x: refused", "r", 503, "ratings-unreachable", ""),
    FailureReason.DATASET_INVALID: (
        "no column x",
        "remove the filters of spec.dataset.ratings",
        422,
        "dataset-invalid",
        "no column x; remove the filters of the request",
    ),
    FailureReason.STORAGE_EXCEEDED: (
        "more than 9 bytes, which is dataset.maxBytes",
        "r",
        507,
        "datasets-full",
        "which is FINETUNE_DATASETS_MAX_BYTES; delete",
    ),
    FailureReason.INVALID_CONFIG: ("fact", "remedy", 422, "dataset-invalid", "fact; remedy"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons_are_kinds(reason: FailureReason) -> None:
    message, remedy, status, kind, words = REASONS[reason]
    problem = refused(Failure(reason=reason, message=message, remedy=remedy))
    assert (problem.status, problem.kind) == (status, kind)
    assert words in problem.detail
    assert "db.internal" not in problem.detail


@pytest.mark.parametrize(
    ("filters", "detail"),
    [
        ((("the table", 0), ("minRating=4", 0)), "ml_analysis_rating has no rows"),
        ((("the table", 9), ("minRating=4", 0)), "min_rating=4 leaves none of the 9"),
        ((("the table", 9), ("domain='minRating=1'", 2), ("taskType='x'", 0)), "task_type='x' leaves none of the 2"),
        ((("the table", 9), ("domain='minRating=1'", 0)), "domain='minRating=1' leaves none of the 9"),
    ],
)
def test_the_filter_that_took_the_last_row_is_named(filters: tuple[tuple[str, int], ...], detail: str) -> None:
    problem = empty(ExportEmpty(filters=tuple(FilterLeft(filter=name, rows=rows) for name, rows in filters)))
    assert (problem.status, problem.kind) == (422, "dataset-empty")
    assert detail in problem.detail
