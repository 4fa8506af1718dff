"""What was measured of a version: the operator tells, people read."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict

from finetune_operator.contract.places import EVALUATION_PATH
from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation
from finetune_operator.store import evaluations
from finetune_operator.store.keyset import Mark
from finetune_operator.web.abtests import Name, Namespace
from finetune_operator.web.acting import Acting
from finetune_operator.web.auth import CallerOf, require_caller, require_internal, require_right
from finetune_operator.web.identity import READ_VERSIONS
from finetune_operator.web.marks import MarkAfter, mark_of, marked
from finetune_operator.web.problems import documented
from finetune_operator.web.required_rights import READ_VERSION
from finetune_operator.web.services import ServicesOf

EvaluationId = Annotated[str, Path(pattern=r"^[-A-Za-z0-9]{1,64}$")]

internal_router = APIRouter(dependencies=[Depends(require_internal)], include_in_schema=False)
router = APIRouter(
    prefix="/v1/fine-tuning/model-versions", tags=["model-versions"], dependencies=[Depends(require_caller)]
)


class EvaluationValue(BaseModel):
    """One quantity of base model and version: a metric's score from 0 to 1, or what its name says with its unit."""

    model_config = ConfigDict(frozen=True)

    name: str
    base: float
    fine_tuned: float


class EvaluationEntry(BaseModel):
    """One evaluation: of the training (`Training`), or of the version as it was served (`Served`)."""

    model_config = ConfigDict(frozen=True)

    id: str
    source: EvaluationSource
    model: str
    base_model: str
    adapter_digest: str | None
    dataset_digest: str | None
    examples: int | None
    message: str | None
    currency: str | None
    measured_at: datetime
    values: tuple[EvaluationValue, ...]


class EvaluationList(BaseModel):
    """The newest first."""

    model_config = ConfigDict(frozen=True)

    evaluations: tuple[EvaluationEntry, ...]
    has_more: bool
    next: str | None
    """`after` of the next page."""


@internal_router.put(EVALUATION_PATH, status_code=204)
async def put_evaluation(id: EvaluationId, evaluation: RecordedEvaluation, services: ServicesOf) -> Response:  # noqa: A002
    await evaluations.record(services.engine, id, evaluation)
    return Response(status_code=204)


@router.get(
    "/{namespace}/{name}/evaluations", responses=documented(401, 403, 404, 422, 503), openapi_extra=READ_VERSION
)
async def get_evaluations(
    services: ServicesOf,
    caller: CallerOf,
    namespace: Namespace,
    name: Name,
    source: EvaluationSource | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: MarkAfter = None,
) -> EvaluationList:
    """All evaluations that a ModelVersion of this name ever had, the newest first; they outlive it."""
    Acting(services, caller).require_served(namespace)
    await require_right(services, caller, READ_VERSIONS, namespace)
    mark = mark_of(after)
    found = await evaluations.of_version(services.engine, namespace, name, limit + 1, after=mark, source=source)
    page = marked(found, limit, lambda row: Mark(row[1].measured_at, row[0]))
    return EvaluationList(
        evaluations=tuple(
            EvaluationEntry.model_validate({"id": identity} | evaluation.model_dump())
            for identity, evaluation in page.rows
        ),
        has_more=page.has_more,
        next=page.next,
    )
