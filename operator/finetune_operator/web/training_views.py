"""The training interface's own words for a FineTuneJob, which are few: a vertical is a domain. Pure."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from finetune_operator.contract.places import JobPaths
from finetune_operator.resources.common import ShortText
from finetune_operator.resources.finetunejob import KIND, FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.resources.outputs import ArtifactType
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_requests import JobRequest
from finetune_operator.web.job_views import JobEntry, JobStatus, members_of, number, status_of
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.shown import shown_manifest

Object = dict[str, Any]


class TrainingJobRequest(JobRequest):
    """What to train, and whether to begin at once. The adapter is smaller by default than elsewhere."""

    lora_r: int = 8
    """Rank of the adapter: a higher one learns more, and takes more memory."""
    lora_alpha: int = 16
    """Scaling; the adapter's output is multiplied by alpha / r."""
    vertical: ShortText | None = None
    """Another name for `domain`."""
    start: bool = False
    """Begin at once; otherwise it waits for `POST .../start`."""

    @model_validator(mode="after")
    def _one_vertical(self) -> Self:
        if self.vertical is not None and self.domain not in (None, self.vertical):
            raise ValueError("vertical and domain say the same: remove one of them")
        if self.vertical is not None and self.dataset_path is not None:
            raise ValueError("vertical chooses ratings, which dataset_path replaces: remove one of them")
        return self

    def job(self) -> JobRequest:
        """The same in the words of all interfaces, with the defaults of this one."""
        said = self.model_dump(exclude_unset=True, exclude={"start", "vertical"})
        if self.vertical is not None:
            said["domain"] = self.vertical
        if self.spec is None:
            said |= {"lora_r": self.lora_r, "lora_alpha": self.lora_alpha}
        return JobRequest.model_validate(said)


class TrainingJob(JobEntry):
    """A FineTuneJob."""

    vertical: str | None
    """Another name for `domain`."""


class TrainingJobDetail(TrainingJob):
    """A FineTuneJob, and how it would be written as YAML."""

    manifest: dict[str, JsonValue]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class TrainingJobList(_View):
    """The newest first; `after` of the next page is `next`."""

    jobs: tuple[TrainingJob, ...]
    total: int
    has_more: bool
    next: str | None
    """`after` of the next page."""


class MetricScore(_View):
    """One metric of answers, from 0 to 1."""

    name: str
    base: float | None
    fine_tuned: float | None


class TrainingMetrics(_View):
    """What is known of a training's result; null is unknown, and a later request may know more."""

    id: str
    status: JobStatus
    training_examples: int | None
    test_examples: int | None
    final_loss: float | None
    best_loss: float | None
    test_loss: float | None
    base_test_loss: float | None
    scores: tuple[MetricScore, ...]
    """On held-out rows, by the trainer."""
    model_version: str | None
    """The id of what was made."""
    elo: int | None
    win_rate: float | None
    """Of the last ABTest with this version as candidate; a tie counts half."""
    accuracy_by_vertical: dict[str, float]
    """Of the served version: the first metric that was asked for, within each domain of its questions."""


class TrainingFile(_View):
    """A file or a directory; `size_bytes` is of all files in it."""

    name: str
    type: ArtifactType
    size_bytes: int
    path: str
    """On the volume of artifacts."""


class TrainingArtifacts(_View):
    """What a training left on the volume of artifacts, in its own directory. A provider's stays there."""

    id: str
    directory: str
    checkpoint_path: str | None
    data_directory: str | None
    files: tuple[TrainingFile, ...]


def training_job(body: Object) -> TrainingJob:
    members = members_of(body)
    return TrainingJob(**members, vertical=members["domain"])


def training_job_detail(body: Object) -> TrainingJobDetail:
    members = members_of(body)
    return TrainingJobDetail(**members, vertical=members["domain"], manifest=shown_manifest(KIND, body))


def metrics_of(body: Object, version_body: Object | None) -> TrainingMetrics:
    """`version_body` is what the training made, as far as that can be read."""
    job = parsed(FineTuneJob, body)
    status = job.status
    version = parsed(ModelVersion, version_body) if version_body else None
    known = version.status.metrics if version else None
    return TrainingMetrics(
        id=str(_id(job)),
        status=status_of(body),
        training_examples=status.dataset.rows if status.dataset else None,
        test_examples=status.dataset.test_rows if status.dataset else None,
        final_loss=number(status.result.final_loss) if status.result else None,
        best_loss=number(status.progress.best_loss) if status.progress else None,
        test_loss=number(status.result.test_loss) if status.result else None,
        base_test_loss=number(status.result.base_test_loss) if status.result else None,
        scores=tuple(
            MetricScore(name=score.name, base=number(score.base), fine_tuned=number(score.fine_tuned))
            for score in (status.evaluation.metrics if status.evaluation else ())
        ),
        model_version=str(ObjectId(job.metadata.namespace, status.model_version)) if status.model_version else None,
        elo=known.elo if known else None,
        win_rate=number(known.win_rate) if known else None,
        accuracy_by_vertical=dict(_by_vertical(version)),
    )


def artifacts_of(body: Object) -> TrainingArtifacts:
    job = parsed(FineTuneJob, body)
    paths = JobPaths(job.metadata.namespace, job.spec.model, job.metadata.uid, root="")
    files = job.status.artifacts or ()
    types = {file.type for file in files}
    return TrainingArtifacts(
        id=str(_id(job)),
        directory=str(paths.directory),
        checkpoint_path=str(paths.checkpoints) if ArtifactType.CHECKPOINT in types else None,
        data_directory=str(paths.dataset) if ArtifactType.DATASET in types else None,
        files=tuple(
            TrainingFile(**file.model_dump(exclude={"path"}), path=str(paths.directory / file.path)) for file in files
        ),
    )


def _by_vertical(version: ModelVersion | None) -> Mapping[str, float]:
    evaluation = version.status.evaluation if version else None
    scores = ((domain.domain, number(domain.fine_tuned)) for domain in (evaluation.domains if evaluation else ()))
    return {domain: score for domain, score in scores if score is not None}


def _id(job: FineTuneJob) -> ObjectId:
    return ObjectId(job.metadata.namespace, job.metadata.name)
