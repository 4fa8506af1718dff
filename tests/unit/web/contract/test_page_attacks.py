"""Hostile texts wherever a page, a form, an address or a cookie of the dashboard takes one, on both databases."""

import pytest

from finetune_operator.web.dashboard.policy import PAGE_HEADERS
from tests.unit.web.contract import corpus
from tests.unit.web.contract.corpus import Place
from tests.unit.web.contract.page_places import (
    BUTTONS,
    FORMS,
    GOOD_FORMS,
    GOOD_QUERIES,
    VOTE,
    page_document,
    page_places,
    page_request,
    page_routes,
)
from tests.unit.web.contract.test_attacks import CI_EXAMPLES, EXAMPLES, SECRET_TOKEN, Attacker, attacker, no_secrets

__all__ = ["attacker"]

PLACES = page_places()
TEXTS_AT = corpus.texts_of(PLACES, len(corpus.TEXTS) if EXAMPLES > CI_EXAMPLES else 2)
"""All of them for each kind of place; for each place alone where there is time."""
KEEPS = {f"{VOTE}/pair": {"abtest_comparisons", "abtest_counts"}, "/api-keys": {"api_keys"}}
"""What a page keeps in the database, however odd the name of who asks is."""

NOT_THERE = {
    "/login/oidc",
    "/login/oidc/callback",
    "/fine-tuning/datasets/{dataset_id}",
    "/fine-tuning/datasets/{dataset_id}/files/{file}",
    "/fine-tuning/datasets/{dataset_id}/delete",
    f"{VOTE}/cast",
    "/api-keys/{key_id}/revoke",
}
"""What has no issuer, dataset, open pair or key to name."""


def test_every_form_is_known() -> None:
    """Those whose fields a signature names, and those that the tables here name."""
    posts = {route.path for route in page_routes() if "POST" in route.methods}
    declared = {place.path for place in corpus.places(page_document()) if place.kind == "form"}
    assert declared | set(FORMS) | BUTTONS == posts
    assert not BUTTONS & (declared | set(FORMS))


def test_the_examples_are_of_places_that_there_are() -> None:
    read = {route.path for route in page_routes() if "GET" in route.methods}
    posts = {route.path for route in page_routes() if "POST" in route.methods}
    assert set(GOOD_FORMS) <= posts
    assert set(GOOD_QUERIES) <= read


@pytest.mark.parametrize("place", PLACES, ids=lambda place: " ".join(place))
def test_texts(attacker: Attacker, place: Place) -> None:
    before = attacker.rows()
    for name, hostile in TEXTS_AT[place].items():
        path, sent = page_request(place, hostile, SECRET_TOKEN)
        # What has become no path of a page is refused by the api itself.
        response = attacker.send(place.method, path, "" if place.kind == "path" else "html", **sent)
        if place.kind == "path" and name != "null word":
            assert 400 <= response.status_code < 500, f"{name}: {response.status_code} {response.text[:200]}"
        if "html" in response.headers.get("content-type", ""):
            assert [response.headers.get(header) for header in PAGE_HEADERS] == list(PAGE_HEADERS.values())
            assert corpus.TEXTS["markup"] not in response.text
        where = response.headers.get("location", "/")
        assert where.startswith("/"), f"{name}: leads to {where}"
        assert not where.startswith(("//", "/\\")), f"{name}: leads to {where}"
    after = attacker.rows()
    changed = {table for table in before if before[table] != after[table]}
    assert after.keys() == before.keys()
    assert changed <= KEEPS.get(place.path, set())
    no_secrets(attacker)


def test_the_same_without_a_hostile_text_is_good(attacker: Attacker) -> None:
    # A stream goes on for as long as a browser listens.
    for place in sorted({place._replace(kind="none", name="") for place in PLACES if place.path != "/live"}):
        path, sent = page_request(place, "", SECRET_TOKEN)
        answer = attacker.send(place.method, path, "html", **sent)
        is_good = answer.status_code == 404 if place.path in NOT_THERE else answer.status_code < 400
        assert is_good, f"{place}: {answer.status_code} {answer.text[:300]}"
