"""Trainings that take a GPU with a price, in a queue or not, as reconciles see them."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.reconcile.finetunejob import Observed, reconcile
from finetune_operator.reconcile.plan import Delete, Plan
from finetune_operator.resources.finetunejob import FineTuneJob
from tests.builders import CONFIG, NOON, Object, after, job_body, make_job, running, training_pod
from tests.unit.reconcile.trainings import PREPARED, status_of

QUEUE = "kueue.x-k8s.io/queue-name"
PRICED = replace(CONFIG, prices=PriceBook(per_hour={"nvidia.com/gpu": Decimal("3.60"), "cpu": Decimal("0.036")}))
ON_GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
JOB = make_job(ON_GPU)
UID = JOB.metadata.uid
KUBERNETES_JOB = "plato-ethics-1"
DELETE_JOB = Delete("jobs", KUBERNETES_JOB, f"uid-of-{KUBERNETES_JOB}")
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T11:50:00Z"}
QUEUED = make_job(ON_GPU, labels={QUEUE: "gpus"})


def trainer_pod(name: str = "pod-1", *extra: Object, trainer: Object | None = None, **options: Any) -> Object:
    """On its node since ten minutes."""
    state = running() if trainer is None else trainer
    return training_pod(name, prepare=PREPARED, trainer=state, conditions=(SCHEDULED, *extra), **options)


def world(*pods: Object, progress: Progress | None = None, gone: bool = False, **job: Any) -> Observed:
    found = None if gone else job_facts(job_body(UID, **job))
    return Observed(found, tuple(pod_facts(pod) for pod in pods), progress=progress)


def decide(job: FineTuneJob, seen: Observed, seconds: int = 0) -> Plan:
    return reconcile(job, seen, NOON + timedelta(seconds=seconds), PRICED)


def trained(job: FineTuneJob = JOB) -> FineTuneJob:
    """As it is while its trainer runs."""
    return after(job, decide(job, world(trainer_pod())))


def changed(job: FineTuneJob, labels: dict[str, str] | None = None, **spec: object) -> FineTuneJob:
    metadata = job.metadata.model_copy(update={"labels": labels}) if labels is not None else job.metadata
    return job.model_copy(update={"spec": job.spec.model_copy(update=spec), "metadata": metadata})


def measured(step: int = 402, **changes: Any) -> Progress:
    identity = JobIdentity(namespace="finetune", name=JOB.metadata.name, uid=UID)
    values: dict[str, Any] = {"step": step, "total_steps": 600, "epoch": 2.0, "total_epochs": 3.0, "eta_seconds": 1200}
    return Progress(job=identity, attempt="pod-1", time=NOON, **(values | changes))


def cost(plan: Plan) -> tuple[str | None, str | None]:
    status = status_of(plan)
    assert status.cost is not None
    return status.cost.spent, status.cost.estimated
