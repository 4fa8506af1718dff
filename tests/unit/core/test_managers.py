"""Who has set a field of a spec, from what the API server remembers."""

from typing import Any

import pytest

from finetune_operator.core.managers import entries_about, manager_of
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import version_object


def manages(manager: str, *fields: str, time: str | None = "2026-01-01T10:00:00Z", **others: Any) -> dict[str, Any]:
    owned: dict[str, Any] = {"f:spec": {f"f:{name}": {} for name in fields}} if fields else {"f:metadata": {}}
    entry = {"manager": manager, "operation": "Update", "apiVersion": "finetune.dev/v1alpha1", "fieldsV1": owned}
    return entry | ({"time": time} if time else {}) | others


CASES: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "nobody is known": ([], None),
    "one": ([manages("kubectl-patch", "state")], "kubectl-patch"),
    "one of other fields": ([manages("kubectl-patch", "notes")], None),
    "one of no field of the spec": ([manages("kubectl-label")], None),
    "the last of two": (
        [manages("argocd-controller", "state", time="2026-01-01T11:00:00Z"), manages("kubectl-patch", "state")],
        "argocd-controller",
    ),
    "one without a time": ([manages("old-client", "state", time=None), manages("kubectl", "state")], "kubectl"),
}


@pytest.mark.parametrize(("entries", "who"), CASES.values(), ids=CASES.keys())
def test_who_has_set_it_last(entries: list[dict[str, Any]], who: str | None) -> None:
    body = version_object(1)
    body["metadata"]["managedFields"] = entries
    assert manager_of(ModelVersion.parse(body), "state") == who
    body["metadata"]["managedFields"] = entries_about(entries, ("state", "promotion"))
    assert manager_of(ModelVersion.parse(body), "state") == who


def test_what_is_kept_is_no_more_than_what_is_asked() -> None:
    entries = [manages("kubectl", "state", "model", "baseModel"), manages("controller"), manages("other", "notes")]
    assert entries_about(entries, ("state", "promotion")) == [
        {"manager": "kubectl", "time": "2026-01-01T10:00:00Z", "fieldsV1": {"f:spec": {"f:state": {}}}}
    ]
    assert entries_about(entries_about(entries, ("state",)), ("state",)) == entries_about(entries, ("state",))
