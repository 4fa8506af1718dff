"""What compatible providers answer, and what is made of it: only what is needed has to be as the API describes it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_operator.core.fine_tuning_api import (
    JobStatus,
    Page,
    RemoteCheckpoint,
    RemoteEvent,
    RemoteFile,
    RemoteJob,
)

NOON = 1_700_000_000
LENIENT = (RemoteFile, RemoteJob, RemoteEvent, RemoteCheckpoint)
NEEDED = {"id": "ftjob-1", "status": "running"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def job(**fields: Any) -> RemoteJob:
    return RemoteJob.model_validate(NEEDED | fields)


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (NOON, NOON),
        (NOON + 0.25, NOON),
        (str(NOON), NOON),
        (f"{NOON}.75", NOON + 1),
        ("2023-11-14T22:13:20Z", NOON),
        ("2023-11-14T23:13:20+01:00", NOON),
        ("2023-11-14 22:13:20", NOON),
        (None, 0),
        ("soon", 0),
        ("", 0),
        (-5, 0),
        (10**400, 0),
        ([], 0),
        ({"seconds": 1}, 0),
        (float("inf"), 0),
    ],
)
def test_times_are_told_in_many_ways(told: object, read: int) -> None:
    assert job(created_at=told).created_at == read
    assert job(finished_at=told).finished_at == (read or None)
    assert RemoteEvent.model_validate({"id": "1", "created_at": told}).created_at == read


@pytest.mark.parametrize(
    ("field", "told", "read"),
    [
        ("trained_tokens", 1500.0, 1500),
        ("trained_tokens", "1500", 1500),
        ("trained_tokens", "many", None),
        ("model", None, ""),
        ("training_file", ["file-1"], None),
        ("metadata", {"finetune_job_uid": "u", "tries": 3}, {"finetune_job_uid": "u"}),
        ("metadata", [], None),
        ("fine_tuned_model", 7, None),
        ("error", [], None),
        ("status", "paused", JobStatus.RUNNING),
    ],
)
def test_what_is_not_needed_counts_as_not_said_where_it_cannot_be_read(field: str, told: object, read: object) -> None:
    assert getattr(job(**{field: told}), field) == read


def test_an_error_may_be_a_sentence() -> None:
    found = job(error="out of credit").error
    assert found is not None
    assert found.message == "out of credit"
    partly = job(error={"code": 17, "message": "bad rows"}).error
    assert partly is not None
    assert (partly.code, partly.message) == (None, "bad rows")


@pytest.mark.parametrize("body", [{}, {"status": "running"}, {"id": None, "status": "running"}, {"id": "ftjob-1"}])
def test_without_an_id_or_a_status_it_is_no_job(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RemoteJob.model_validate(body)


def test_a_list_with_a_job_that_cannot_be_read_is_not_an_empty_one() -> None:
    """Else the job that was made before would not be found, and made again."""
    page = Page[RemoteJob]
    with pytest.raises(ValidationError):
        page.model_validate({"data": [NEEDED, {"id": None}]})
    with pytest.raises(ValidationError):
        page.model_validate({"data": None})
    found = page.model_validate({"data": [NEEDED | {"created_at": "?"}], "has_more": None})
    assert [item.id for item in found.data] == ["ftjob-1"]
    assert not found.has_more


@given(st.sampled_from(LENIENT), st.data())
def test_no_optional_field_ends_a_training(kind: type[RemoteJob], data: st.DataObject) -> None:
    optional = [name for name, field in kind.model_fields.items() if not field.is_required()]
    odd = data.draw(st.dictionaries(st.sampled_from(optional), JSON))
    kind.model_validate(odd | NEEDED)
