"""Resources as a user writes them: a valid default, and what a test wants to be different."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.training import TrainingResult
from finetune_operator.resources.common import API_VERSION

Manifest = dict[str, Any]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
REPORT = DatasetReport(rows=120, test_rows=12, digest=OTHER_DIGEST)
RESULT = TrainingResult(
    adapter_digest=DIGEST,
    final_loss=0.21,
    best_loss=0.19,
    test_loss=0.4,
    base_test_loss=1.2,
    steps=600,
    epochs=3.0,
    train_seconds=42.0,
    dataset=REPORT,
)


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> Manifest:
    """The document after a JSON merge patch; None removes a field."""
    result = dict(document)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = dict(value) if isinstance(value, Mapping) else value
    return result


def base_model(name: str = "tiny") -> Manifest:
    return {"name": name, "source": {"volume": {"claimName": "models", "path": name}}}


def fine_tune_job(name: str = "plato-1", **spec: Any) -> Manifest:
    """A job on ratings, for a model that is only registered; `spec` is merged in."""
    defaults = {
        "model": "plato",
        "baseModel": base_model(),
        "dataset": {"ratings": {"secretRef": {"name": "ratings", "key": "url"}}},
        "training": {"quantization": "none"},
    }
    return _resource("FineTuneJob", name, merged(defaults, spec))


def model_version(name: str = "plato-v1", **spec: Any) -> Manifest:
    """A version `<model>-v<N>` that wants to be served; `spec` is merged in."""
    model, _, number = name.rpartition("-v")
    defaults = {
        "model": model,
        "version": int(number),
        "baseModel": base_model(),
        "artifact": {"uri": f"volume://artifacts/default/{model}/{number}/adapter", "digest": DIGEST},
        "serving": {},
    }
    return _resource("ModelVersion", name, merged(defaults, spec))


def ab_test(name: str = "duel", **spec: Any) -> Manifest:
    """plato-v1 against plato-v2; `spec` is merged in."""
    defaults = {
        "model": "plato",
        "baseline": {"modelVersion": "plato-v1"},
        "candidate": {"modelVersion": "plato-v2"},
    }
    return _resource("ABTest", name, merged(defaults, spec))


def batch_inference(name: str = "answers", **spec: Any) -> Manifest:
    """Prompts of a file to plato-v1; `spec` is merged in."""
    defaults = {
        "modelVersion": "plato-v1",
        "dataset": {"volume": {"claimName": "questions", "path": "q.jsonl"}},
    }
    return _resource("BatchInference", name, merged(defaults, spec))


def _resource(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
