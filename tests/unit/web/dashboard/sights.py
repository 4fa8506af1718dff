"""A cluster with something of everything to look at, and a hostile text in every place that people or models fill."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.store import progress
from tests.builders import merged
from tests.unit.web.rest.played_api_server import PlayedApiServer

NAMESPACE = "finetune"
HOSTILE = "\"><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DIGEST = f"sha256:{'0' * 64}"
BASE = {"name": "smollm2-135m-instruct", "source": {"hub": {"id": "HuggingFaceTB/SmolLM2-135M-Instruct"}}}
RATED = {"count": 40, "average": "4.10", "standardDeviation": "0.80", "goldStarRate": "0.75"}
Object = dict[str, Any]


def at(minutes: int) -> str:
    """A time of the day, as the API server writes it."""
    return f"{NOON + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


def uid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def job(number: int, name: str, status: Object, **spec: Any) -> Object:
    return {
        "kind": "FineTuneJob",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": uid_of(number),
            "creationTimestamp": at(-60 * number),
        },
        "spec": {
            "model": "plato",
            "baseModel": BASE,
            "dataset": {"ratings": {"philosopher": "plato", "domain": "ethics"}},
        }
        | spec,
        "status": status,
    }


def progressing(percent: int, **more: Any) -> Object:
    return {
        "summary": f"{percent}%",
        "percent": percent,
        "step": 12 * percent,
        "totalSteps": 1200,
        "epoch": f"{percent * 3 / 100:.2f}",
        "totalEpochs": "3.0",
        "loss": "1.2345",
        "bestLoss": "1.1987",
        "etaSeconds": 60 * (100 - percent),
        "eta": "12m",
        "lastUpdateTime": at(0),
    } | more


def condition(kind: str, status: str = "True", reason: str = "Done", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(-5)}


JOBS = (
    job(
        1,
        "plato-train",
        {
            "phase": "Training",
            "message": "training on 1 GPU",
            "progress": progressing(42),
            "cost": {"currency": "USD", "spent": "1.8400", "estimated": "4.20"},
            "dataset": {"rows": 5120, "testRows": 256, "digest": DIGEST},
            "startTime": at(-40),
            "attempts": 1,
            "conditions": [condition("DatasetReady", message="5120 rows"), condition("Reconciling")],
        },
    ),
    job(2, "plato-wait", {"phase": "Queued", "message": "waits for a GPU"}),
    job(
        3,
        "plato-rest",
        {"phase": "Suspended", "message": "suspended by spec.suspend", "progress": progressing(17)},
        suspend=True,
    ),
    job(
        4,
        "plato-done",
        {
            "phase": "Succeeded",
            "progress": progressing(100),
            "result": {"finalLoss": "0.9876", "testLoss": "1.0123", "baseTestLoss": "1.9876", "trainSeconds": 5400},
            "cost": {"currency": "USD", "spent": "4.31"},
            "modelVersion": "plato-v2",
            "startTime": at(-200),
            "completionTime": at(-100),
            "evaluation": {"metrics": [{"name": "Rouge1", "base": "0.31", "fineTuned": "0.47"}]},
            "artifacts": [{"name": "adapter", "type": "Adapter", "sizeBytes": 36_700_160, "path": "adapter"}],
            "conditions": [condition("Succeeded"), condition("Published")],
        },
    ),
    job(
        5,
        "plato-bad",
        {
            "phase": "Failed",
            "message": f"the base model answered {HOSTILE}: correct it",
            "completionTime": at(-90),
            "conditions": [condition("Stalled", reason="OutOfMemory", message=HOSTILE)],
        },
        dataset={"ratings": {"philosopher": HOSTILE, "domain": HOSTILE}},
    ),
    job(6, "plato-ended", {"phase": "Cancelled", "completionTime": at(-80)}, cancel=True),
)


def version(number: int, state: str, **status: Any) -> Object:
    return {
        "kind": "ModelVersion",
        "metadata": {
            "namespace": NAMESPACE,
            "name": f"plato-v{number}",
            "uid": uid_of(100 + number),
            "creationTimestamp": at(-100 + number),
        },
        "spec": {
            "model": "plato",
            "version": number,
            "baseModel": merged(BASE, {"source": {"hub": {"revision": "c" * 40}}}),
            "artifact": {"uri": f"volume://artifacts/finetune/plato/{number}/adapter", "digest": DIGEST},
            "lineage": {"fineTuneJob": "plato-done", "jobUid": uid_of(4)},
            "serving": {},
            "notes": HOSTILE,
        },
        "status": {
            "state": state,
            "replicas": "1/1",
            "engine": "vllm-a",
            "servedName": f"plato-v{number}",
            "metrics": {"winRate": "0.675", "elo": 1532, "ratings": RATED},
            "history": [{"time": at(-90), "state": state, "who": "kubectl-patch", "why": HOSTILE}],
        }
        | status,
    }


VERSIONS = (
    version(1, "Ready", promotedAt=at(-95), conditions=[condition("Loaded")]),
    version(2, "Deployed", promotedAt=at(-90), conditions=[condition("Loaded"), condition("Ready")]),
    version(3, "Failed", message=HOSTILE, metrics=None),
)
LOG = f"step 502: loss 1.2345\nthe model says {HOSTILE}\n"


def fill(cluster: PlayedApiServer) -> None:
    """Instead of what there was."""
    cluster.objects.clear()
    for body in JOBS:
        cluster.put("finetunejobs", body)
    for body in VERSIONS:
        cluster.put("modelversions", body)
    cluster.put_pod(NAMESPACE, "plato-train-0-abcde", uid_of(1), LOG)
    cluster.put_pod(NAMESPACE, "plato-wait-0-abcde", uid_of(2), None)


async def measure(engine: AsyncEngine, first: int = 1, last: int = 252) -> None:
    """A loss curve of the training that goes on, and of the one that is done."""
    for number, name in ((1, "plato-train"), (4, "plato-done")):
        identity = JobIdentity(uid=uid_of(number), namespace=NAMESPACE, name=name)
        await progress.record(engine, [_point(identity, step) for step in range(first, last, 2)])


def _point(identity: JobIdentity, step: int) -> Progress:
    wobble = 0.12 * math.sin(step * 1.7) + 0.07 * math.cos(step * 0.9)
    loss = 0.9 + 1.6 * math.exp(-step / 90) + wobble
    return Progress(
        job=identity,
        attempt="plato-0-abcde",
        step=step,
        total_steps=600,
        epoch=step / 200,
        total_epochs=3.0,
        loss=loss,
        eval_loss=0.98 + 1.5 * math.exp(-step / 100) if step % 50 == 1 else None,
        learning_rate=2e-4,
        time=NOON + timedelta(seconds=step),
    )
