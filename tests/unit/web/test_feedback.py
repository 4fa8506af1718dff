"""Feedback on answers: kept once, and made a rating for trainings only where the client gives the texts."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.contract.experiments import AbTestTally, RatingTally
from finetune_operator.contract.places import SAMPLES_PATH, TALLY_PATH, VERSION_RATINGS_PATH
from finetune_operator.core.request_ids import signed_request_id
from finetune_operator.store.ratings import RatingsDatabase
from finetune_operator.store.tables import Rating
from tests.unit.web.conftest import ENVIRONMENT, INTERNAL, Api, sample
from tests.unit.web.test_access import TEST, is_problem

FEEDBACK = "/v1/fine-tuning/feedback"
TEXTS = {
    "prompt": "What is justice?",
    "response": "Each does his own work.",
    "philosopher": "plato",
    "domain": "ethics",
}


async def give(api: Api, request_id: str = "request-1", **body: Any) -> httpx2.Response:
    return await api.post(FEEDBACK, {"request_id": request_id} | body)


async def ratings(api: Api) -> list[Rating]:
    async with AsyncSession(api.services.engine) as session:
        return list(await session.scalars(select(Rating).order_by(Rating.id)))


async def tally(api: Api, version_uid: str = "version-uid") -> dict[int, int]:
    response = await api.get(VERSION_RATINGS_PATH.format(uid=version_uid), INTERNAL)
    return RatingTally.model_validate_json(response.content).answers


JUDGEMENTS: dict[str, tuple[dict[str, Any], int, bool]] = {
    "thumbs up": ({"thumbs": "up"}, 5, True),
    "thumbs down": ({"thumbs": "down"}, 1, False),
    "good": ({"rating": 4}, 4, True),
    "mediocre": ({"rating": 3}, 3, False),
}


@pytest.mark.parametrize(("judgement", "rating", "is_good"), JUDGEMENTS.values(), ids=JUDGEMENTS.keys())
async def test_given_texts_become_a_rating(api: Api, judgement: dict[str, Any], rating: int, is_good: bool) -> None:
    result = (await give(api, **judgement, texts=TEXTS)).json()
    kept = {"rating": rating, "is_trainable": True, "is_gold_star": is_good, "reference_score": None}
    assert result == {"request_id": "request-1"} | kept
    (row,) = await ratings(api)
    assert (row.prompt, row.response, row.rating) == (TEXTS["prompt"], TEXTS["response"], rating)
    assert (row.is_gold_star, row.use_as_sample_response) == (is_good, is_good)
    assert (row.philosopher, row.domain, row.task_type, row.confidence) == ("plato", "ethics", None, None)


async def test_without_texts_nothing_is_kept_but_the_judgement(api: Api) -> None:
    result = (await give(api, thumbs="up")).json()
    kept = {"rating": 5, "is_trainable": False, "is_gold_star": False, "reference_score": None}
    assert result == {"request_id": "request-1"} | kept
    assert await ratings(api) == []


async def test_a_reference_is_a_gold_star_beside_the_answer_that_it_corrects(api: Api) -> None:
    """Both have one prompt, so that a DPO training prefers the one to the other."""
    for _ in range(2):
        given = await give(api, thumbs="down", texts=TEXTS | {"reference": "Each does his own."})
        assert given.json() == {
            "request_id": "request-1",
            "rating": 1,
            "is_trainable": True,
            "is_gold_star": False,
            "reference_score": pytest.approx(8 / 9),
        }
    answer, reference = await ratings(api)
    assert (answer.response, answer.rating, answer.is_gold_star) == (TEXTS["response"], 1, False)
    assert (reference.response, reference.rating, reference.is_gold_star) == ("Each does his own.", 5, True)
    assert (reference.prompt, reference.philosopher) == (answer.prompt, answer.philosopher)


async def test_the_loop_closes(api: Api, tmp_path: Path) -> None:
    """Where the ratings database is the api's own, a training's filters find what people said."""
    for number, rating in enumerate((5, 4, 2)):
        assert (await give(api, f"request-{number}", rating=rating, texts=TEXTS)).status_code == 200
    database = RatingsDatabase.open(f"sqlite:///{tmp_path}/api.db", timeout_seconds=1)
    source = RatingsSource(philosopher="plato", domain="ethics")
    database.check(source, all_ratings=False)
    assert database.statistics(source, all_ratings=False).rows == 2
    assert database.statistics(source, all_ratings=True).rows == 3


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"rating": 5, "texts": TEXTS}, 200),
        ({"thumbs": "up", "texts": TEXTS}, 200),
        ({"rating": 4, "texts": TEXTS}, 409),
        ({"rating": 5}, 409),
        ({"rating": 5, "texts": TEXTS | {"reference": "Harmony."}}, 409),
    ],
    ids=["the same", "the same in other words", "another rating", "without texts", "with a reference"],
)
async def test_feedback_counts_once(api: Api, other: dict[str, Any], status: int) -> None:
    first = await give(api, rating=5, texts=TEXTS)
    again = await give(api, **other)
    if status == 200:
        assert (again.status_code, again.json()) == (200, first.json())
    else:
        assert is_problem(again, status, "already-given")
    assert len(await ratings(api)) == 1


async def test_feedback_sent_five_times_at_once_is_one(api: Api) -> None:
    answers = await asyncio.gather(*(give(api, thumbs="up", texts=TEXTS) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await ratings(api)) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"thumbs": "up", "rating": 5},
        {"thumbs": "sideways"},
        {"rating": 0},
        {"rating": 6},
        {"rating": 5, "request_id": ""},
        {"rating": 5, "request_id": "two words"},
        {"rating": 5, "texts": {"prompt": "What?"}},
        {"rating": 5, "texts": TEXTS | {"prompt": ""}},
        {"rating": 5, "texts": TEXTS | {"response": "a\x00b"}},
        {"rating": 5, "texts": TEXTS | {"reference": ""}},
        {"rating": 5, "texts": TEXTS | {"is_gold_star": True}},
    ],
)
async def test_what_is_no_feedback_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert is_problem(await give(api, **body), 422, "invalid-request")
    assert await ratings(api) == []


async def test_an_abtest_knows_how_its_arms_were_rated(api: Api) -> None:
    """Whichever comes first, the sample or the feedback on it."""
    arms = ("baseline", "candidate", "candidate", "candidate")
    samples = [sample(number, arm) for number, arm in enumerate(arms)]
    await give(api, "request-1", rating=4)
    assert (await api.get(TEST)).json()["feedback"] == {}
    assert (await api.post(SAMPLES_PATH, {"samples": samples}, INTERNAL)).status_code == 204
    await give(api, "request-0", thumbs="down")
    await give(api, "request-2", rating=5, texts=TEXTS | {"reference": "Each does his own."})
    await give(api, "request-3", rating=3, texts=TEXTS | {"reference": "Nobody knows."})
    await give(api, "request-of-no-test", rating=1)
    assert (await api.get(TEST)).json()["feedback"] == {
        "baseline": {"count": 1, "mean_rating": 1.0, "references": 0, "mean_reference_score": None},
        "candidate": {
            "count": 3,
            "mean_rating": 4.0,
            "references": 2,
            "mean_reference_score": pytest.approx((8 / 9 + 0) / 2),
        },
    }


async def test_the_operator_hears_of_accuracy_where_it_asks(api: Api) -> None:
    async def told(**query: str) -> dict[str, Any]:
        response = await api.get(TALLY_PATH.format(uid="test-uid"), INTERNAL, params=query)
        arms = AbTestTally.model_validate_json(response.content).arms
        return {arm: (each.accuracy_subjects, each.mean_accuracy) for arm, each in arms}

    await api.post(
        SAMPLES_PATH, {"samples": [sample(1, "baseline"), sample(2, "candidate") | {"subject": "ada"}]}, INTERNAL
    )
    assert await told(accuracy_from="Ratings") == {"baseline": (0, None), "candidate": (0, None)}
    await give(api, "request-2", rating=4, texts=TEXTS | {"reference": TEXTS["response"]})
    assert await told(accuracy_from="Ratings") == {"baseline": (0, None), "candidate": (1, 0.75)}
    assert await told(accuracy_from="References") == {"baseline": (0, None), "candidate": (1, 1.0)}
    assert await told() == {"baseline": (0, None), "candidate": (0, None)}


async def test_feedback_counts_for_the_version_that_the_gateway_has_asked(api: Api) -> None:
    key = ENVIRONMENT["FINETUNE_INTERNAL_TOKEN"]
    ids = [signed_request_id(f"request-{number}", "version-uid", key) for number in range(3)]
    judgements: list[dict[str, Any]] = [{"rating": 4}, {"thumbs": "up"}, {"rating": 5, "texts": TEXTS}]
    for request_id, judgement in zip(ids, judgements, strict=True):
        for _ in range(2):
            assert (await give(api, request_id, **judgement)).status_code == 200
    await give(api, signed_request_id("request-3", "another-uid", key), rating=1)
    assert await tally(api) == {4: 1, 5: 2}
    assert await tally(api, "another-uid") == {1: 1}
    of_arm = sample(0, "candidate") | {"requestId": ids[0]}
    assert (await api.post(SAMPLES_PATH, {"samples": [of_arm]}, INTERNAL)).status_code == 204
    assert (await api.get(TEST)).json()["feedback"]["candidate"]["count"] == 1


@pytest.mark.parametrize(
    "request_id",
    [
        "request-1",
        "request-1.version-uid",
        "request-1.version-uid.code",
        signed_request_id("r", "version-uid", "guess"),
    ],
)
async def test_feedback_on_an_answer_that_the_gateway_never_gave_counts_for_no_version(
    api: Api, request_id: str
) -> None:
    assert (await give(api, request_id, rating=5)).status_code == 200
    assert await tally(api) == {}
