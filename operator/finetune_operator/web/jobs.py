"""Public: the loss series of a training, by its uid, which outlives it, or by its id."""

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict

from finetune_operator.store import progress
from finetune_operator.web.acting import JOBS, Acting
from finetune_operator.web.auth import CallerOf, require_caller, require_right
from finetune_operator.web.identity import READ_JOBS, Right
from finetune_operator.web.ids import ID_PATTERN
from finetune_operator.web.problems import documented
from finetune_operator.web.required_rights import READ_SERIES
from finetune_operator.web.services import ServicesOf

UID_PATTERN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
READ_BATCHES = Right("get", "batchinferences")
UidOrId = Annotated[str, Path(max_length=317, pattern=ID_PATTERN, description="A uid, `<namespace>.<name>` or a name")]

router = APIRouter(prefix="/v1/fine-tuning/jobs", tags=["jobs"], dependencies=[Depends(require_caller)])


class SeriesPoint(BaseModel):
    """One measurement."""

    model_config = ConfigDict(frozen=True)

    attempt: str
    step: int
    total_steps: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    eval_loss: float | None
    grad_norm: float | None
    tokens: int | None
    tokens_per_second: float | None
    gpu_memory_bytes: int | None
    checkpoint_step: int | None
    failed_rows: int | None
    time: datetime


class ProgressSeries(BaseModel):
    """A job's measurements in the order of time; empty before its first one."""

    model_config = ConfigDict(frozen=True)

    job_uid: str
    best_loss: float | None
    points: tuple[SeriesPoint, ...]


@router.get("/{uid}/progress", responses=documented(401, 403, 404, 422, 503), openapi_extra=READ_SERIES)
async def get_series(
    services: ServicesOf, caller: CallerOf, uid: UidOrId, max_points: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> ProgressSeries:
    """The series of a FineTuneJob or BatchInference by its uid, evenly thinned to about `max_points`.

    Anything else is an id, `<namespace>.<name>` or a name, of the FineTuneJob that is called so now.
    """
    acting = Acting(services, caller)
    if not re.fullmatch(UID_PATTERN, uid):
        uid = (await acting.find(JOBS, uid))["metadata"]["uid"]
    points, best_loss = await services.remembered.answer(
        ("series", uid, max_points),
        await progress.count(services.engine, uid),
        lambda: progress.series(services.engine, uid, max_points),
    )
    if points:
        namespace = points[0].job.namespace
        acting.require_served(namespace)
        # Trainings know nothing of rows that failed.
        is_batch = any(point.failed_rows is not None for point in points)
        await require_right(services, caller, READ_BATCHES if is_batch else READ_JOBS, namespace)
    return ProgressSeries(
        job_uid=uid,
        best_loss=best_loss,
        points=tuple(
            SeriesPoint(
                attempt=point.attempt,
                step=point.step,
                total_steps=point.total_steps,
                epoch=point.epoch,
                loss=point.loss,
                learning_rate=point.learning_rate,
                eval_loss=point.eval_loss,
                grad_norm=point.grad_norm,
                tokens=point.tokens,
                tokens_per_second=point.tokens_per_second,
                gpu_memory_bytes=point.gpu_memory_bytes,
                checkpoint_step=point.checkpoint_step,
                failed_rows=point.failed_rows,
                time=point.time,
            )
            for point in points
        ),
    )
