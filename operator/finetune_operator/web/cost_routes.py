"""Public: what trainings and answers cost, and whether a version pays."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from finetune_operator.core.decimals import BoundedDecimal
from finetune_operator.web import costs
from finetune_operator.web.acting import Acting
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.cost_views import CostSummary, RoiReport, TrainingCostList, VersionCostList
from finetune_operator.web.ids import ID_PATTERN, NamespaceQuery
from finetune_operator.web.job_routes import READING, After
from finetune_operator.web.required_rights import LIST_COSTS, LIST_JOBS, LIST_VERSIONS, READ_ROI
from finetune_operator.web.services import ServicesOf

COSTS_PATH = "/v1/fine-tuning/costs"
VersionQuery = Annotated[
    str, Query(max_length=317, pattern=ID_PATTERN, description="`<namespace>.<name>` of a version")
]
TestQuery = Annotated[
    str | None,
    Query(max_length=317, pattern=ID_PATTERN, description="ABTest whose arms' failed requests are the error rates"),
]
Amount = Annotated[BoundedDecimal, Query(ge=0)]
Rate = Annotated[BoundedDecimal, Query(ge=0, le=1)]
Limit = Annotated[int, Query(ge=1, le=500)]
Deleted = Annotated[bool, Query(description="Those whose FineTuneJob is gone, and no others")]
Model = Annotated[str | None, Query(max_length=63, description="Only of this model")]

router = APIRouter(prefix=COSTS_PATH, tags=["costs"], dependencies=[Depends(require_caller)])


@router.get("", responses=READING, openapi_extra=LIST_COSTS)
async def get_costs(services: ServicesOf, caller: CallerOf, namespace: NamespaceQuery = None) -> CostSummary:
    """Totals of each currency: trainings with all their attempts, and answers."""
    return await costs.summary(Acting(services, caller), namespace)


@router.get("/jobs", responses=READING, openapi_extra=LIST_JOBS)
async def get_training_costs(
    services: ServicesOf,
    caller: CallerOf,
    namespace: NamespaceQuery = None,
    model: Model = None,
    deleted: Deleted = False,
    limit: Limit = 100,
    after: After = None,
) -> TrainingCostList:
    """What each training costs, the newest first; of deleted ones the last deleted."""
    listed = costs.gone_trainings if deleted else costs.trainings
    return await listed(Acting(services, caller), namespace, model, limit, after)


@router.get("/models", responses=READING, openapi_extra=LIST_VERSIONS)
async def get_version_costs(
    services: ServicesOf,
    caller: CallerOf,
    namespace: NamespaceQuery = None,
    model: Model = None,
    deleted: Annotated[bool, Query(description="Those whose ModelVersion is gone, and no others")] = False,
    limit: Limit = 100,
    after: After = None,
) -> VersionCostList:
    """What the answers of each version have cost, the newest version first; of deleted ones the last deleted."""
    listed = costs.gone_versions if deleted else costs.versions
    return await listed(Acting(services, caller), namespace, model, limit, after)


@router.get("/roi", responses=READING, openapi_extra=READ_ROI)
async def get_roi(
    services: ServicesOf,
    caller: CallerOf,
    version: VersionQuery,
    test: TestQuery = None,
    training_cost: Amount | None = None,
    base_cost_per_call: Amount | None = None,
    cost_per_call: Amount | None = None,
    base_error_rate: Rate | None = None,
    error_rate: Rate | None = None,
    calls_per_day: Amount | None = None,
    value_per_error_saved: Amount | None = None,
    days: Amount | None = None,
) -> RoiReport:
    """Whether a version pays: the value of the errors that it saves against training and answers.

    Inputs are what was measured; what is given goes first. A value per error saved is 10 where none is given, and the
    volume is that of a year. An unknown input leaves unknown what depends on it.
    """
    given: dict[str, Decimal | None] = {
        "training_cost": training_cost,
        "base_cost_per_call": base_cost_per_call,
        "cost_per_call": cost_per_call,
        "base_error_rate": base_error_rate,
        "error_rate": error_rate,
        "calls_per_day": calls_per_day,
        "value_per_error_saved": value_per_error_saved,
        "days": days,
    }
    return await costs.roi(Acting(services, caller), version, test, given)
