"""Sampled answers one by one: the newest first, page by page, with what each cost and what feedback says of it."""

import base64
import hashlib
from typing import Any

import pytest

from tests.unit.web.conftest import INTERNAL, NOON, sample
from tests.unit.web.rest.conftest import API_TOKEN, EDITOR, READER, Rest
from tests.unit.web.rest.played_api_server import User
from tests.unit.web.rest.test_costs import EVALUATION
from tests.unit.web.test_access import is_problem

TESTS = "/v1/fine-tuning/ab-test"
SAMPLES = f"{TESTS}/finetune.v1-v2/samples"


def at(number: int, arm: str, minute: int, **told: Any) -> dict[str, Any]:
    time = NOON.replace(minute=minute).isoformat()
    return sample(number, arm) | {"time": time, "servedName": "tiny" if arm == "baseline" else "plato-v2"} | told


async def record(rest: Rest, *found: dict[str, Any], shadows: tuple[dict[str, Any], ...] = ()) -> None:
    sent = {"samples": list(found), "shadows": list(shadows)}
    assert (await rest.post("/internal/v1/samples", sent, INTERNAL)).status_code == 204


async def ids(rest: Rest, **query: Any) -> list[str]:
    return [each["id"] for each in (await rest.get(SAMPLES, READER, **query)).json()["samples"]]


def told(*numbers: int) -> list[str]:
    """The ids of these requests; with a request's own id, anybody could give feedback on it."""
    return [hashlib.sha256(f"request-{number}".encode()).hexdigest()[:32] for number in numbers]


async def test_each_is_told_with_what_it_took(rest: Rest) -> None:
    version = rest.cluster.objects["modelversions", "finetune", "plato-v2"]
    price = {"base": "0.8", "fineTuned": "0.9", "currency": "EUR"}
    evaluation = EVALUATION | {"costPerMillionTokens": price}
    rest.cluster.put("modelversions", version | {"status": {"evaluation": evaluation}})
    await record(
        rest,
        at(1, "baseline", 1, completionTokens=7),
        at(2, "candidate", 2, promptTokens=5, completionTokens=20),
        shadows=(at(3, "candidate", 3, status=502),),
    )
    await rest.post("/v1/fine-tuning/feedback", {"request_id": "request-2", "rating": 4})
    listed = (await rest.get(SAMPLES, READER)).json()
    assert (listed["has_more"], listed["next"]) == (False, None)
    copied, answered, by_base = listed["samples"]
    assert answered == {
        "id": told(2)[0],
        "time": "2026-11-21T12:02:00Z",
        "arm": "candidate",
        "served_name": "plato-v2",
        "is_shadow": False,
        "status": 200,
        "latency_ms": 100,
        "prompt_tokens": 5,
        "completion_tokens": 20,
        "cost": "0.000018",
        "currency": "EUR",
        "rating": 4,
        "reference_score": None,
        "prompt": None,
        "prediction": None,
        "reference": None,
    }
    assert (copied["is_shadow"], copied["status"], copied["cost"], copied["currency"]) == (True, 502, None, None)
    assert (by_base["served_name"], by_base["completion_tokens"], by_base["cost"]) == ("tiny", 7, None)


@pytest.mark.parametrize(("who", "sees"), [(EDITOR, True), (API_TOKEN, True), (READER, False)])
async def test_who_may_train_reads_the_texts_that_feedback_gave(rest: Rest, who: Any, sees: bool) -> None:
    await record(rest, at(1, "baseline", 1), at(2, "candidate", 2), at(3, "candidate", 3))
    texts = {"prompt": "What is courage?", "response": "Endurance." * 1000, "reference": "Wise endurance."}
    await rest.post("/v1/fine-tuning/feedback", {"request_id": "request-1", "rating": 4})
    await rest.post("/v1/fine-tuning/feedback", {"request_id": "request-2", "thumbs": "down", "texts": texts})
    del texts["reference"]
    await rest.post("/v1/fine-tuning/feedback", {"request_id": "request-3", "thumbs": "up", "texts": texts})
    found = (await rest.get(SAMPLES, who)).json()["samples"]
    prompt, answer = ("What is courage?", ("Endurance." * 1000)[:4000]) if sees else (None, None)
    assert [(each["prompt"], each["prediction"], each["reference"]) for each in found] == [
        (prompt, answer, None),
        (prompt, answer, "Wise endurance." if sees else None),
        (None, None, None),
    ]


async def test_the_newest_come_first_page_by_page(rest: Rest) -> None:
    # Two of one moment among them.
    await record(rest, *(at(number, ("baseline", "candidate")[number % 2], number // 2) for number in range(7)))
    expected = told(6, 5, 4, 3, 2, 1, 0)
    assert await ids(rest) == expected
    assert await ids(rest, arm="candidate") == told(5, 3, 1)
    seen, after = [], None
    for _ in range(3):
        page = (await rest.get(SAMPLES, READER, limit=3, **({"after": after} if after else {}))).json()
        seen += [each["id"] for each in page["samples"]]
        after = page["next"]
        # What comes meanwhile moves nothing.
        await record(rest, at(50, "baseline", 59))
    assert (seen, after) == (expected, None)


async def test_what_is_no_place_is_refused(rest: Rest) -> None:
    moments = ("0001-01-01T00:00:00+23:59 1", "9999-12-31T23:59:59-23:59 1", "2026-01-01T00:00:00Z -1", "2026-01-01 x")
    for after in (
        "_bm9ib2R5",
        "_",
        *(f"_{base64.urlsafe_b64encode(each.encode()).decode().rstrip('=')}" for each in moments),
    ):
        response = await rest.get(SAMPLES, READER, after=after)
        assert response.status_code == 422, after
    assert is_problem(await rest.get(SAMPLES, READER, after="_bm9ib2R5"), 422, "wrong-cursor")


async def test_who_may_not_read_versions_is_told_no_cost(rest: Rest) -> None:
    rest.cluster.users["judge"] = User("judge", {("get", "abtests")})
    await record(rest, at(2, "candidate", 2, completionTokens=20))
    (entry,) = (await rest.get(SAMPLES, {"Authorization": "Bearer judge"})).json()["samples"]
    assert (entry["completion_tokens"], entry["cost"]) == (20, None)
