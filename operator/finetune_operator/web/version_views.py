"""What REST says of a ModelVersion. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from finetune_operator.core.conditions import find
from finetune_operator.core.routing import active_version
from finetune_operator.core.version_changes import TEXT_METRICS
from finetune_operator.resources.common import LongText
from finetune_operator.resources.evaluation import EVALUATED, MAX_METRICS, Metric
from finetune_operator.resources.modelversion import KIND, ModelVersion, RequestedState, State
from finetune_operator.web.ids import NAME_PATTERN, ObjectId
from finetune_operator.web.job_requests import Share
from finetune_operator.web.job_views import number
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.shown import shown_manifest

Object = dict[str, Any]
QUESTIONS_MAX = 10_000
Origins = Mapping[str, tuple[str | None, str | None]]
"""Philosopher and domain by the uid of a FineTuneJob."""


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class VersionMetrics(_View):
    """What is known of a version's quality; null is unknown."""

    win_rate: float | None
    elo: int | None
    test_loss: float | None
    base_test_loss: float | None
    ratings: int
    average_rating: float | None
    gold_star_rate: float | None


class VersionEntry(_View):
    """A ModelVersion."""

    id: str
    """`<namespace>.<name>`."""
    uid: str
    namespace: str
    name: str
    """As clients ask the gateway for exactly this version."""
    model: str
    """As clients ask the gateway for whichever version is active."""
    version: int
    base_model: str
    state: State | None
    """None before the operator has seen it."""
    requested_state: RequestedState | None
    """What a person has asked for."""
    active: bool
    """Whether the model's name stands for it now."""
    message: str | None
    replicas: str | None
    """Engine pods that have it loaded, of those wanted."""
    notes: str | None
    fine_tune_job: str | None
    """The id of what made it."""
    philosopher: str | None
    domain: str | None
    """Whose judgements it was trained on, as long as the FineTuneJob is there."""
    metrics: VersionMetrics
    created_at: datetime | None
    promoted_at: datetime | None


class VersionChange(_View):
    """One change of what is active."""

    time: datetime
    state: State
    who: str | None
    why: str
    previous: str | None


class EvaluationState(_View):
    """How far the evaluation is that was asked for last; what came out is below `/evaluations` of the version."""

    done: bool
    reason: str
    message: str


class VersionDetail(VersionEntry):
    """A ModelVersion, and how it would be written as YAML."""

    served: bool
    """Whether an engine is to have it loaded; else it is only registered."""
    evaluation: EvaluationState | None
    """None where nothing is to be measured of the served version."""
    history: tuple[VersionChange, ...]
    manifest: dict[str, JsonValue]


class VersionList(_View):
    """The newest first; `after` of the next page is `next`."""

    models: tuple[VersionEntry, ...]
    total: int
    has_more: bool
    next: str | None
    """`after` of the next page."""


class DeployRequest(BaseModel):
    """How to serve it; what is left out stays as it is, or gets the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    gpu_memory_utilization: Share | None = None
    """Share of GPU memory that vLLM takes."""
    max_model_len: int | None = None
    """Longest prompt plus answer, in tokens."""
    tensor_parallel_size: int | None = None
    """GPUs that share one engine."""
    notes: LongText | None = None
    """For people."""


class EvaluateRequest(BaseModel):
    """What to measure of the served version and of its base model; what is left out stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=MAX_METRICS)] = TEXT_METRICS
    """How answers are scored; latency, speed and cost are always measured with them."""
    max_examples: Annotated[int, Field(strict=True, ge=1, le=QUESTIONS_MAX)] | None = None
    """Ask at most this many questions; 100 where it was never said."""
    saturation: Annotated[bool, Field(strict=True)] | None = None
    """Also find out how many requests a second the engine answers, which slows down all that it serves meanwhile."""


class RollbackRequest(BaseModel):
    """Where to go back to."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    to: Annotated[str, Field(max_length=63, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Name of a version of the same model; the one that was active before where absent."""


def origins_of(jobs: Iterable[Object]) -> Origins:
    """From the FineTuneJobs' raw objects."""
    ratings = {job["metadata"]["uid"]: job["spec"].get("dataset", {}).get("ratings") or {} for job in jobs}
    return {uid: (chosen.get("philosopher"), chosen.get("domain")) for uid, chosen in ratings.items()}


def origin_of(body: Object, origins: Origins) -> tuple[str | None, str | None]:
    """Philosopher and domain of a raw ModelVersion."""
    return origins.get(body["spec"].get("lineage", {}).get("jobUid", ""), (None, None))


def active_ids(bodies: Iterable[Object]) -> frozenset[ObjectId]:
    """Which of all versions of their namespaces are active."""
    families: dict[tuple[str, str], list[ModelVersion]] = {}
    for version in each_shown(partial(parsed, ModelVersion), bodies):
        families.setdefault((version.metadata.namespace, version.spec.model), []).append(version)
    active = (active_version(family) for family in families.values())
    return frozenset(ObjectId(found.metadata.namespace, found.metadata.name) for found in active if found)


def version_entry(body: Object, active: frozenset[ObjectId], origins: Origins) -> VersionEntry:
    return VersionEntry(**_members(body, active, origins))


def version_detail(body: Object, active: frozenset[ObjectId], origins: Origins) -> VersionDetail:
    version = parsed(ModelVersion, body)
    return VersionDetail(
        **_members(body, active, origins),
        served=version.spec.serving is not None,
        evaluation=_evaluation(version),
        history=tuple(VersionChange(**entry.model_dump()) for entry in version.status.history),
        manifest=shown_manifest(KIND, body),
    )


def _evaluation(version: ModelVersion) -> EvaluationState | None:
    asked = version.spec.evaluation
    if asked is None or not asked.metrics:
        return None
    found = find(version.status.conditions, EVALUATED)
    if found is None or (found.observed_generation or 0) < version.metadata.generation:
        return EvaluationState(done=False, reason="Pending", message="the operator has not begun")
    return EvaluationState(done=found.status == "True", reason=found.reason, message=found.message)


def _members(body: Object, active: frozenset[ObjectId], origins: Origins) -> dict[str, Any]:
    version = parsed(ModelVersion, body)
    metadata, spec, status = version.metadata, version.spec, version.status
    identity = ObjectId(metadata.namespace, metadata.name)
    job = spec.lineage.fine_tune_job
    philosopher, domain = origin_of(body, origins)
    return {
        "id": str(identity),
        "uid": metadata.uid,
        "namespace": metadata.namespace,
        "name": metadata.name,
        "model": spec.model,
        "version": spec.version,
        "base_model": spec.base_model.name,
        "state": status.state,
        "requested_state": spec.state,
        "active": identity in active,
        "message": status.message,
        "replicas": status.replicas,
        "notes": spec.notes,
        "fine_tune_job": str(ObjectId(metadata.namespace, job)) if job else None,
        "philosopher": philosopher,
        "domain": domain,
        "metrics": _metrics(version),
        "created_at": metadata.creation_timestamp,
        "promoted_at": status.promoted_at,
    }


def _metrics(version: ModelVersion) -> VersionMetrics:
    known = version.status.metrics
    ratings = known.ratings if known else None
    return VersionMetrics(
        win_rate=number(known.win_rate) if known else None,
        elo=known.elo if known else None,
        test_loss=number(known.test_loss) if known else None,
        base_test_loss=number(known.base_test_loss) if known else None,
        ratings=ratings.count if ratings else 0,
        average_rating=number(ratings.average) if ratings else None,
        gold_star_rate=number(ratings.gold_star_rate) if ratings else None,
    )
