"""Resources as the API server would return them: a valid default, and what a test wants to be different."""

from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


def at(minute: int) -> str:
    """A time of the test's day, as the API server writes it."""
    return (NOON + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def base_model(name: str = "tiny", path: str = "tiny") -> dict[str, Any]:
    return {"name": name, "source": {"volume": {"claimName": "models", "path": path}}}


def version_object(
    name: str,
    *,
    namespace: str = "finetune",
    loaded: bool = True,
    engine: str | None = "vllm-a",
    base: dict[str, Any] | None = None,
    state: str | None = None,
    observed_state: str | None = None,
    promoted: int | None = None,
    deleting: bool = False,
    serving: bool = True,
    message: str | None = None,
) -> dict[str, Any]:
    """A ModelVersion `<model>-v<N>`; `promoted` is a minute of the day."""
    model, number = name.rsplit("-v", 1)
    status = {
        "engine": engine,
        "servedName": name,
        "promotedAt": at(promoted) if promoted is not None else None,
        "observedState": observed_state,
        "message": message,
        "conditions": [condition("Loaded", loaded)],
    }
    spec = {
        "model": model,
        "version": int(number),
        "baseModel": base or base_model(),
        "artifact": {"uri": f"volume://artifacts/{namespace}/{model}/uid/adapter", "digest": DIGEST},
        "serving": {} if serving else None,
        "state": state,
    }
    return _object("ModelVersion", namespace, name, spec, status, deleting=deleting)


def abtest_object(
    *,
    name: str = "duel",
    namespace: str = "finetune",
    model: str = "plato",
    baseline: str | None = "plato-v1",
    candidate: str = "plato-v2",
    percent: int = 20,
    shadow: int = 0,
    pairs: int = 0,
    phase: str = "Running",
    verdict: str | None = None,
    started: int = 0,
    deleting: bool = False,
    cancel: bool = False,
) -> dict[str, Any]:
    """An ABTest; a baseline of None is the base model."""
    spec = {
        "model": model,
        "baseline": {"modelVersion": baseline} if baseline else {"base": True},
        "candidate": {"modelVersion": candidate},
        "traffic": {"candidatePercent": percent, "shadowPercent": shadow, "pairPercent": pairs},
        "cancel": cancel,
    }
    status = {"phase": phase, "verdict": verdict, "startTime": at(started)}
    return _object("ABTest", namespace, name, spec, status, deleting=deleting)


def condition(type_: str, status: bool) -> dict[str, Any]:
    return {"type": type_, "status": str(status), "reason": "Test", "lastTransitionTime": at(0)}


def _object(
    kind: str, namespace: str, name: str, spec: dict[str, Any], status: dict[str, Any], *, deleting: bool
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-of-{namespace}-{name}", "resourceVersion": "1"}
    if deleting:
        metadata["deletionTimestamp"] = at(0)
    return {
        "kind": kind,
        "metadata": metadata,
        "spec": {key: value for key, value in spec.items() if value is not None},
        "status": {key: value for key, value in status.items() if value is not None},
    }
