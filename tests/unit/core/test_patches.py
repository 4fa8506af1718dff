"""Merge patches: the smallest write that turns one document into another."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.patches import merge_patch

SCALARS = st.one_of(st.booleans(), st.integers(), st.text(max_size=5))
KEYS = st.sampled_from(["phase", "progress", "conditions", "votes"])
VALUES = st.recursive(
    st.one_of(SCALARS, st.lists(SCALARS, max_size=3)),
    lambda children: st.dictionaries(KEYS, children, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


def rfc7386(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7386, section 2, as the API server does it."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = rfc7386(result.get(key), value)
    return result


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing changes": ({"a": {"b": 1}}, {"a": {"b": 1}}, {}),
    "a field changes": ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, {"a": {"b": 3}}),
    "a field appears": ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    "a field goes": ({"a": 1, "b": 2}, {"b": 2}, {"a": None}),
    "a nested field goes": ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}, {"a": {"b": None}}),
    "lists are replaced whole": ({"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 3]}),
    "a map becomes text": ({"a": {"b": 1}}, {"a": "b"}, {"a": "b"}),
}


@pytest.mark.parametrize(("before", "after", "patch"), CASES.values(), ids=CASES.keys())
def test_the_patch_holds_what_differs_and_nothing_else(
    before: dict[str, Any], after: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert merge_patch(before, after) == patch


@given(DOCUMENTS, DOCUMENTS)
def test_applied_to_the_old_document_it_gives_the_new_one(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert rfc7386(before, merge_patch(before, after)) == after


@given(DOCUMENTS)
def test_there_is_nothing_to_write_where_nothing_changed(document: dict[str, Any]) -> None:
    assert merge_patch(document, document) == {}
