"""A person who votes by REST, as any page or script could."""

from typing import Any

import httpx2

Object = dict[str, Any]


def address(test: Object) -> str:
    """Of an ABTest."""
    metadata = test["metadata"]
    return f"/v1/fine-tuning/ab-test/{metadata['namespace']}.{metadata['name']}"


def comparison(api: httpx2.Client, test: Object) -> Object | None:
    """Two answers to judge; None as long as no pair has reached the api."""
    response = api.post(f"{address(test)}/comparisons", json={})
    if response.status_code == httpx2.codes.CONFLICT:
        return None
    found: Object = response.raise_for_status().json()
    return found


def vote(api: httpx2.Client, test: Object, judged: Object, choice: str) -> Object:
    """Who was behind the letters, which only the vote tells."""
    ballot = {"comparison_id": judged["comparison_id"], "vote": choice}
    sides: Object = api.post(f"{address(test)}/vote", json=ballot).raise_for_status().json()["sides"]
    return sides
