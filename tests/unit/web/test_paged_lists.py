"""Lists that the database keeps, page by page: each row once, in one order, also of one moment."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from tests.unit.web import test_evaluations as evaluations
from tests.unit.web.conftest import NOON, Api
from tests.unit.web.test_access import TEST, is_problem

PEOPLE = ("ada", "bob", "cleo", "dio", "eve")


class Listed(NamedTuple):
    """A list of five things; `fill` makes them."""

    path: str
    member: str
    identity: str
    fill: Callable[[Api], Awaitable[None]]


async def compared(api: Api) -> None:
    for evaluator in PEOPLE:
        await api.compare(evaluator)


async def voted(api: Api) -> None:
    for evaluator, count in zip(PEOPLE, (1, 2, 2, 1, 3), strict=True):
        for _ in range(count):
            comparison = await api.compare(evaluator)
            await api.vote(comparison["comparison_id"], "both_bad", evaluator)


async def evaluated(api: Api) -> None:
    for identity in PEOPLE:
        await evaluations.put(api, identity, evaluations.row(minute=len(identity)))


LISTS = {
    "comparisons": Listed("/v1/fine-tuning/comparisons", "comparisons", "comparison_id", compared),
    "comparisons of a test": Listed(
        "/v1/fine-tuning/ab-test/finetune.v1-v2/comparisons", "comparisons", "comparison_id", compared
    ),
    "voters": Listed(f"{TEST}/voters", "voters", "evaluator", voted),
    "voters by id": Listed("/v1/fine-tuning/ab-test/finetune.v1-v2/voters", "voters", "evaluator", voted),
    "evaluations": Listed(evaluations.PATH, "evaluations", "id", evaluated),
}
each_list = pytest.mark.parametrize("listed", LISTS.values(), ids=LISTS.keys())


async def page(api: Api, listed: Listed, **query: Any) -> tuple[list[str], dict[str, Any]]:
    response = await api.get(listed.path, params=query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return [row[listed.identity] for row in body[listed.member]], body


@each_list
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_each_row_is_on_one_page(api: Api, listed: Listed, limit: int) -> None:
    object.__setattr__(api.services, "now", lambda: NOON)
    await listed.fill(api)
    expected, whole = await page(api, listed)
    assert (len(expected), whole["has_more"], whole["next"]) == (5, False, None)
    found: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        rows, body = await page(api, listed, **query)
        assert rows, "no page is empty"
        assert {name: body[name] for name in body.keys() - {listed.member, "has_more", "next"}} == {
            name: whole[name] for name in whole.keys() - {listed.member, "has_more", "next"}
        }
        found += rows
        assert body["has_more"] == (len(found) < 5)
        if not body["has_more"]:
            break
        query["after"] = body["next"]
    assert found == expected


@each_list
async def test_what_comes_meanwhile_moves_no_page(api: Api, listed: Listed) -> None:
    await listed.fill(api)
    _, first = await page(api, listed, limit=2)
    before, _ = await page(api, listed, after=first["next"])
    if listed.member == "voters":
        for _ in range(9):
            comparison = await api.compare("zoe")
            await api.vote(comparison["comparison_id"], "base", "zoe")
    elif listed.member == "comparisons":
        await api.compare("zoe")
    else:
        await evaluations.put(api, "zoe", evaluations.row(minute=30))
    assert (await page(api, listed, after=first["next"]))[0] == before


def written(text: str) -> str:
    return "_" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


WRONG = {
    "not ours": "_abc",
    "no text": "_" + "-" * 4,
    "nothing in it": written(" "),
    "no id": written("2026-11-22T12:00:00+00:00 "),
    "no moment": written("yesterday ada"),
    "no zone": written("2026-11-22T12:00:00 ada"),
    "before all time": written("0001-01-01T00:00:00+23:00 ada"),
    "a null": written("2026-11-22T12:00:00+00:00 a\0a"),
    "votes below none": written("-1 ada"),
    "more votes than a column has": written(f"{2**31} ada"),
}


@each_list
@pytest.mark.parametrize("after", WRONG.values(), ids=WRONG.keys())
async def test_what_is_no_place_is_refused(api: Api, listed: Listed, after: str) -> None:
    assert is_problem(await api.get(listed.path, params={"after": after}), 422, "wrong-cursor")


@each_list
@pytest.mark.parametrize("after", ["", "ada", "_" * 1025, "_a b"])
async def test_what_is_no_cursor_is_refused(api: Api, listed: Listed, after: str) -> None:
    assert is_problem(await api.get(listed.path, params={"after": after}), 422, "invalid-request")


async def test_voters_past_the_last_one_still_tell_the_sums(api: Api) -> None:
    await voted(api)
    _, whole = await page(api, LISTS["voters"])
    rows, body = await page(api, LISTS["voters"], after=written("0 zoe"))
    assert rows == []
    assert (body["evaluators"], body["agreement"]) == (5, whole["agreement"])


async def test_evaluations_of_one_source(api: Api) -> None:
    await evaluations.put(api, "trained", evaluations.row(source=evaluations.EvaluationSource.TRAINING))
    await evaluations.put(api, "served", evaluations.row(minute=1))
    for source, expected in (("Training", ["trained"]), ("Served", ["served"]), (None, ["served", "trained"])):
        query = {"source": source} if source else {}
        assert (await page(api, LISTS["evaluations"], **query))[0] == expected
    assert is_problem(await api.get(evaluations.PATH, params={"source": "Hearsay"}), 422, "invalid-request")
