"""Public: what a client says of an answer that it got from the gateway."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finetune_operator.core.ratings import GOLD_STAR_MIN_RATING, MAX_RATING, MIN_RATING
from finetune_operator.core.request_ids import version_of
from finetune_operator.store import feedback, mirrored
from finetune_operator.store.feedback import Texts
from finetune_operator.web.acting import OWN, VERSIONS, Acting
from finetune_operator.web.auth import Caller, CallerOf, require_caller, require_everywhere, require_right
from finetune_operator.web.identity import VOTE
from finetune_operator.web.problems import FORBIDDEN, Problem, documented
from finetune_operator.web.required_rights import VOTE_EVERYWHERE
from finetune_operator.web.services import Services, ServicesOf

Text = Annotated[str, Field(min_length=1, max_length=65_536, pattern=r"^[^\x00]+$")]
Label = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]

MAX_VERSIONS = 4096

router = APIRouter(prefix="/v1/fine-tuning", tags=["feedback"], dependencies=[Depends(require_caller)])


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GivenTexts(_Body):
    """Prompt and answer, kept as a rating that trainings learn from: to be sent only with their author's consent."""

    prompt: Text
    response: Text
    reference: Text | None = None
    """What the answer should have been: a gold star of its own."""
    philosopher: Label | None = None
    domain: Label | None = None
    task_type: Label | None = None


class FeedbackRequest(_Body):
    """One judgement of the answer with this `x-request-id`: thumbs, or a rating from 1 to 5."""

    request_id: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
    thumbs: Literal["up", "down"] | None = None
    rating: Annotated[int, Field(ge=MIN_RATING, le=MAX_RATING)] | None = None
    texts: GivenTexts | None = None

    @model_validator(mode="after")
    def _one_judgement(self) -> Self:
        if (self.thumbs is None) == (self.rating is None):
            raise ValueError("send either thumbs or rating")
        return self

    @property
    def stars(self) -> int:
        """The judgement as a rating."""
        if self.rating is not None:
            return self.rating
        return MAX_RATING if self.thumbs == "up" else MIN_RATING


class FeedbackResult(_Body):
    """What is kept; `is_gold_star` only of what trainings may learn from.

    `reference_score` is how much of the reference the answer has, from 0 to 1 (TokenF1).
    """

    request_id: str
    rating: int
    is_trainable: bool
    is_gold_star: bool
    reference_score: float | None = None


@router.post("/feedback", responses=documented(401, 403, 409, 422, 503), openapi_extra=VOTE_EVERYWHERE)
async def give_feedback(services: ServicesOf, caller: CallerOf, request: FeedbackRequest) -> FeedbackResult:
    """One feedback for each request; sending it again changes nothing, another one is a conflict."""
    version_uid = version_of(request.request_id, services.settings.internal_token.get_secret_value())
    texts = Texts(**request.texts.model_dump()) if request.texts else None
    await _require_vote(services, caller, version_uid if texts is None else None)
    known = await feedback.give(services.engine, request.request_id, request.stars, texts, services.now(), version_uid)
    has_reference = texts is not None and texts.reference is not None
    if (known.rating, known.has_texts, known.has_reference) != (request.stars, texts is not None, has_reference):
        detail = f"other feedback on request {request.request_id} was given before; it can't be changed"
        raise Problem(409, "already-given", detail)
    return FeedbackResult(
        request_id=request.request_id,
        rating=known.rating,
        is_trainable=known.has_texts,
        is_gold_star=known.has_texts and known.rating >= GOLD_STAR_MIN_RATING,
        reference_score=known.reference_score,
    )


async def _require_vote(services: Services, caller: Caller, version_uid: str | None) -> None:
    """In all namespaces, or in that of the version that was judged; the version is looked for only where it decides."""
    try:
        await require_everywhere(services, caller, VOTE)
    except Problem as refusal:
        if refusal.status != FORBIDDEN or version_uid is None:
            raise
        namespace = await _namespace_of(services, version_uid)
        if namespace is None:
            raise
        await require_right(services, caller, VOTE, namespace)


async def _namespace_of(services: Services, version_uid: str) -> str | None:
    """By the api's own right to read versions; a uid stays where it is."""
    known = services.version_namespaces
    if version_uid not in known and services.mirroring is not None and services.mirroring.is_current(VERSIONS.plural):
        served = services.settings.namespaces
        return await mirrored.namespace_of(services.engine, VERSIONS.plural, version_uid, served)
    if version_uid not in known:
        for body in await Acting(services, OWN).every(VERSIONS):
            if body["metadata"]["uid"] == version_uid:
                known[version_uid] = body["metadata"]["namespace"]
        while len(known) > MAX_VERSIONS:
            known.pop(next(iter(known)))
    return known.get(version_uid)
