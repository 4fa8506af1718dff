"""ModelVersion: an immutable adapter with its lineage, and how it is served."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_operator.resources.common import (
    HUB_COMMIT_PATTERN,
    ApiModel,
    BaseModelRef,
    Conditions,
    DnsSubdomain,
    LongText,
    ModelName,
    PreciseTimestamp,
    Resource,
    ServedName,
    Sha256,
    ShortText,
    Timestamp,
    immutable,
    rule,
    rules,
)
from finetune_operator.resources.evaluation import (
    EvaluationId,
    EvaluationRecord,
    ServedEvaluationStatus,
    VersionEvaluation,
    VersionMetrics,
)
from finetune_operator.resources.finetunejob import Promotion
from finetune_operator.resources.provider import ARTIFACT_RULE, MERGED_RULE, VERSION_RULES, BaseUrl
from finetune_operator.resources.serving import ServingSpec
from finetune_operator.resources.starting_point import StartingPoint

KIND = "ModelVersion"
ARTIFACT_URI_PATTERN = (
    r"^(volume://[a-z0-9]([-.a-z0-9]*[a-z0-9])?(/[A-Za-z0-9_][-A-Za-z0-9_.]*)+|openai://[A-Za-z0-9][-._:/A-Za-z0-9]*)$"
)


class RequestedState(StrEnum):
    """What the user asks for; absent, the operator decides by promotion and verdicts."""

    READY = "Ready"
    DEPLOYED = "Deployed"
    ARCHIVED = "Archived"


class State(StrEnum):
    """What a version is."""

    PENDING = "Pending"
    READY = "Ready"
    DEPLOYED = "Deployed"
    ARCHIVED = "Archived"
    FAILED = "Failed"


class Artifact(ApiModel):
    """The adapter's files, or the model's name at its provider."""

    model_config = rules(ARTIFACT_RULE, MERGED_RULE)

    uri: Annotated[str, Field(max_length=1024, pattern=ARTIFACT_URI_PATTERN)]
    """`volume://<claim>/<path>`: a directory with adapter_config.json, safetensors and manifest.json.

    `openai://<model>`: a model at a provider, which is registered here and answers there."""
    digest: Sha256 | None = None
    """Of the files; checked before each load."""
    merged_digest: Sha256 | None = None
    """Of the merged weights in the directory `merged` beside the adapter's, which its FineTuneJob made where its
    outputs have MergedWeights; checked before a server starts with them (serving.mergedWeights). Absent, it can be set
    later, as in manifest.json there."""
    size_bytes: Annotated[int, Field(ge=0, le=10**15)] | None = None
    """Of the files, where known."""
    merged_size_bytes: Annotated[int, Field(ge=0, le=10**15)] | None = None
    """Of the files of the merged weights, where known. Absent, it can be set later."""
    base_url: BaseUrl | None = None
    """The provider's API."""


class Lineage(ApiModel):
    """Where the adapter comes from, frozen."""

    fine_tune_job: DnsSubdomain | None = None
    """The FineTuneJob that made it."""
    job_uid: Annotated[str, Field(max_length=64)] | None = None
    """Its uid, which tells a re-created job of the same name apart."""
    dataset_digest: Sha256 | None = None
    """Digest of the training data."""
    hyperparameters: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=64)] = {}
    """How it was trained."""
    trainer_image: Annotated[str, Field(max_length=512)] | None = None
    """Image that trained it."""
    init_from: StartingPoint | None = None
    """The version whose adapter was trained on."""
    evaluation: EvaluationRecord | None = None
    """What was measured on held-out rows."""


def _keeps(field: str) -> str:
    """In CEL: whether a field that may be absent is as it was."""
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


class ModelVersionSpec(ApiModel):
    """An artifact, its lineage and its wishes."""

    model_config = rules(
        *(immutable(name) for name in ("model", "version", "baseModel", "lineage")),
        # A CRD of an earlier release drops the digest of merged weights; whoever starts with them verifies it.
        rule(
            " && ".join(_keeps(f"artifact.{name}") for name in ("uri", "digest", "sizeBytes", "baseUrl"))
            + "".join(
                f" && (!has(oldSelf.artifact.{name}) || ({_keeps(f'artifact.{name}')}))"
                for name in ("mergedDigest", "mergedSizeBytes")
            ),
            "artifact is immutable, but for a mergedDigest or mergedSizeBytes that it lacks: create a new resource "
            "instead",
            field_path=".artifact",
        ),
        rule(
            f"!has(self.baseModel.source.hub) || self.baseModel.source.hub.revision.matches('{HUB_COMMIT_PATTERN}')",
            "baseModel.source.hub.revision must be the commit, 40 hexadecimal digits: a branch or tag may move on",
            field_path=".baseModel.source.hub.revision",
        ),
        rule(
            "!has(self.evaluation) || !has(self.evaluation.metrics) || size(self.evaluation.metrics) == 0 "
            "|| has(self.serving)",
            "evaluation.metrics are measured on the served version: set serving, or remove them",
            field_path=".evaluation",
        ),
        rule(
            "!has(self.serving) || !self.serving.mergedWeights || has(self.artifact.mergedDigest)",
            "serving.mergedWeights needs artifact.mergedDigest, which is set where the FineTuneJob's outputs have "
            "MergedWeights: ask a new FineTuneJob for that output, or remove serving.mergedWeights",
            field_path=".serving.mergedWeights",
        ),
        *VERSION_RULES,
    )

    model: ModelName
    """Family, and the public name of its active version at the gateway."""
    version: Annotated[int, Field(ge=1, le=999_999)]
    """Number within the family."""
    base_model: BaseModelRef
    """The model that the adapter belongs to."""
    artifact: Artifact
    """The adapter's files, or the model's name at its provider."""
    lineage: Lineage = Lineage()
    """Where it comes from."""
    serving: ServingSpec | None = None
    """How it is served; absent, it is only registered."""
    promotion: Promotion = Promotion.MANUAL
    """Always makes this version active as soon as it answers."""
    evaluation: VersionEvaluation | None = None
    """What is measured on the served version, and what a promotion asks of the measured values."""
    state: RequestedState | None = None
    """Deployed pins it as the active version, Ready keeps it loaded but inactive, Archived unloads and retires it."""
    notes: LongText | None = None
    """For people."""


class HistoryEntry(ApiModel):
    """One change of what is active, or one that failed."""

    time: Timestamp
    """When."""
    state: State
    """What this version became, or stayed when it could not change."""
    who: ShortText | None = None
    """Whose doing it was: a field manager as in metadata.managedFields (`kubectl-patch`, `argocd-controller`,
    `ada (finetune-api)` for ada on a page or by REST, `ada (finetune-gateway)` at the gateway, `ada (ftctl)` by the
    command line), the FineTuneJob or ABTest that asked for it, or finetune-operator."""
    why: ShortText
    """The cause: promotion, an ABTest's verdict, a user's spec.state, or an engine that fails."""
    previous: DnsSubdomain | None = None
    """The version that was active before."""


HISTORY_MAX_ENTRIES = 20
RecordedEvaluations = Annotated[
    tuple[EvaluationId, ...], Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"})
]


class ModelVersionStatus(ApiModel):
    """What the operator knows."""

    observed_generation: int | None = None
    """The generation that this speaks of."""
    state: State | None = None
    """Pending, Ready, Deployed, Archived or Failed."""
    message: LongText | None = None
    """The fact behind the state."""
    replicas: ShortText | None = None
    """Engine pods that have this version loaded, of those wanted."""
    ready_replicas: int | None = None
    """Engine pods that have this version loaded."""
    selector: ShortText | None = None
    """Label selector of the engine pods."""
    engine: DnsSubdomain | None = None
    """The vLLM Deployment and Service that serve it; `vllm-merged-...` has its merged weights and nothing else."""
    next_engine: DnsSubdomain | None = None
    """The one that it is to be served by since spec.serving was changed; until that one answers, `engine` does."""
    served_name: ServedName | None = None
    """Name by which the engine knows it."""
    metrics: VersionMetrics | None = None
    """What is known of its quality."""
    evaluation: ServedEvaluationStatus | None = None
    """What was measured last on the served version, by spec.evaluation.metrics."""
    recorded_evaluations: RecordedEvaluations | None = None
    """Evaluations that the database has: of lineage.evaluation, and of status.evaluation."""
    promoted_at: PreciseTimestamp | None = None
    """The most recently promoted version that is Ready is the active one."""
    failed_over_at: Timestamp | None = None
    """When it last failed while it was active and another version took over; absent again once it has answered for a
    while without a break, until when the other one keeps the alias."""
    observed_state: RequestedState | None = None
    """The spec.state that was last acted upon."""
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=HISTORY_MAX_ENTRIES)] = ()
    """The latest changes of what is active, and the latest that failed."""
    conditions: Conditions = ()
    """Loaded, Ready; CostKnown where it answers; Evaluated where metrics are to be measured on the served version;
    EvaluationPassed where something is required; Reconciling and Stalled only while true."""


class ModelVersion(Resource):
    """A versioned LoRA adapter, served by vLLM."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.metadata.name.startsWith(self.spec.model + '-v') && "
                    "self.metadata.name.matches('-v[1-9][0-9]{0,5}$') && "
                    "int(self.metadata.name.substring(size(self.spec.model) + 2)) == self.spec.version",
                    "metadata.name must be <spec.model>-v<spec.version>",
                )
            ]
        }
    )

    spec: ModelVersionSpec
    status: ModelVersionStatus = ModelVersionStatus()
