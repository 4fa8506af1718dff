"""Answers to users that an ABTest has sampled, one by one: what each took, and what feedback says of it."""

import hashlib
import re
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from finetune_operator.core.inference_cost import TokenPrice, token_price
from finetune_operator.resources.abtest import ABTest, Arm
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.store import samples
from finetune_operator.store.samples import SamplePlace, ToldSample
from finetune_operator.web.acting import TESTS, VERSIONS, Acting
from finetune_operator.web.auth import may_train
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.pages import WRONG_CURSOR, cursor_of, text_of
from finetune_operator.web.problems import Problem

UNSHOWN = (403, 404)
VERSION_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
"""A base model may be served by any other name."""
ID_DIGITS = 32
SAMPLES_OF_A_MOMENT_MAX = 1_000_000


class SampleEntry(BaseModel):
    """One answer to a user, or a copy's that nobody has seen (`is_shadow`).

    The gateway keeps no texts: `prompt`, `prediction` (the answer) and `reference` (what it should have been) are those
    that feedback gave for trainings, cut at 4,000 characters, and only for who may train. `id` is made of the
    request's, which only the client knows that asked: by it one gives feedback. `cost` is of the generated tokens, and
    null where tokens or price are not known; `rating` (1 to 5) and `reference_score` (TokenF1, 0 to 1) are of feedback.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    time: datetime
    arm: Arm
    served_name: str
    is_shadow: bool
    status: int
    latency_ms: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: str | None
    currency: str | None
    rating: int | None
    reference_score: float | None
    prompt: str | None
    prediction: str | None
    reference: str | None


class SampleList(BaseModel):
    """The newest first."""

    model_config = ConfigDict(frozen=True)

    samples: tuple[SampleEntry, ...]
    has_more: bool
    next: str | None


async def samples_of(acting: Acting, test_id: str, arm: Arm | None, limit: int, after: str | None) -> SampleList:
    """One page. Raises problems."""
    test = parsed(ABTest, await acting.find(TESTS, test_id))
    begin = _place(after)
    found = await samples.newest(
        acting.services.engine,
        test.metadata.uid,
        arm,
        limit + 1,
        begin,
        with_texts=await may_train(acting.services, acting.caller, test.metadata.namespace),
    )
    names = {each.sample.served_name for each in found}
    prices = {name: await _price(acting, test.metadata.namespace, name) for name in sorted(names)}
    has_more = len(found) > limit
    return SampleList(
        samples=tuple(_entry(each, prices[each.sample.served_name]) for each in found[:limit]),
        has_more=has_more,
        next=_cursor([each.sample.time for each in found[:limit]], begin) if has_more else None,
    )


async def _price(acting: Acting, namespace: str, served_name: str) -> TokenPrice | None:
    """Of the version's tokens; None of a base model, and for who may not read it."""
    if not VERSION_NAME.fullmatch(served_name):
        return None
    try:
        version = parsed(ModelVersion, await acting.get(VERSIONS, ObjectId(namespace, served_name)))
    except Problem as problem:
        if problem.status not in UNSHOWN:
            raise
        return None
    price = token_price(version, acting.services.settings.prices)
    return price if isinstance(price, TokenPrice) else None


def _entry(told: ToldSample, price: TokenPrice | None) -> SampleEntry:
    sample, tokens = told.sample, told.sample.completion_tokens
    cost = price.of(tokens) if price is not None and tokens is not None else None
    return SampleEntry(
        id=hashlib.sha256(sample.request_id.encode()).hexdigest()[:ID_DIGITS],
        time=sample.time,
        arm=Arm(sample.arm),
        served_name=sample.served_name,
        is_shadow=sample.shadow,
        status=sample.status,
        latency_ms=sample.latency_ms,
        prompt_tokens=sample.prompt_tokens,
        completion_tokens=tokens,
        cost=None if cost is None else _exact(cost),
        currency=price.currency if price is not None and cost is not None else None,
        rating=told.rating,
        reference_score=told.reference_score,
        prompt=told.prompt,
        prediction=told.prediction,
        reference=told.reference,
    )


def _exact(cost: Decimal) -> str:
    """An answer may cost less than any cent."""
    return f"{cost.normalize():f}"


def _cursor(shown: list[datetime], begin: SamplePlace | None) -> str:
    """The last moment, and how many of it were shown: the ids of requests are nobody else's."""
    last = shown[-1]
    count = shown.count(last) + (begin.shown if begin is not None and begin.time == last else 0)
    return cursor_of(f"{last.isoformat()} {count}")


def _place(after: str | None) -> SamplePlace | None:
    if after is None:
        return None
    try:
        time, _, shown = text_of(after).partition(" ")
        place = SamplePlace(datetime.fromisoformat(time).astimezone(UTC), int(shown))
    except (ValueError, OverflowError):
        place = None
    if place is None or not 0 <= place.shown <= SAMPLES_OF_A_MOMENT_MAX:
        raise Problem(422, "wrong-cursor", WRONG_CURSOR)
    return place
