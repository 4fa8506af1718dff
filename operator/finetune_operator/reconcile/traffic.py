"""Whose requests an ABTest divides, and what is to be known of them: the condition `TrafficConfigured`."""

from collections.abc import Iterable

from finetune_operator.core.conditions import Finding
from finetune_operator.core.routing import active_version, base_engines, is_baseline, is_pinned_since, takes_traffic
from finetune_operator.manifests.serving import asked_engine
from finetune_operator.reconcile.engine_sharing import Versions
from finetune_operator.reconcile.served_version import NotServed, base_engine, version_named
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion

CONDITION = "TrafficConfigured"


def base_lacking(test: ABTest, versions: Versions) -> NotServed | None:
    """Why nobody answers as the baseline, where that is the base model."""
    candidate = version_named(test.spec.candidate.model_version, versions)
    if candidate is None or not test.spec.baseline.base:
        return None
    base_at = base_engine(candidate, asked_engine(candidate), versions)
    return base_at if isinstance(base_at, NotServed) else None


def traffic_finding(test: ABTest, versions: Versions, *, running: bool) -> Finding:
    """What becomes of the requests to the test's model."""
    if not running or not test.spec.traffic.any:
        return Finding(CONDITION, False, "NoSplit")
    active = active_version(version for version in versions if version.spec.model == test.spec.model)
    if active and test.spec.traffic.candidate_percent > 0 and is_pinned_since(test, active):
        name = active.metadata.name
        message = f"{name}, which was pinned after the test began, answers everybody: unset its spec.state to go on"
        return Finding(CONDITION, False, "VersionPinned", message)
    if lacking := base_lacking(test, versions):
        return Finding(CONDITION, False, lacking.reason, f"the baseline's subjects get errors: {lacking.message}")
    remark = _apart(test, versions)
    if test.spec.traffic.candidate_percent > 0:
        return Finding(CONDITION, True, "Split", remark)
    if is_baseline(test, active):
        return Finding(CONDITION, True, "Shadow", remark)
    answering = active.metadata.name if active else "no version"
    message = f"nothing is copied: {answering} answers to {test.spec.model}, not {test.spec.baseline.model_version}"
    return Finding(CONDITION, False, "BaselineNotActive", message)


def _apart(test: ABTest, versions: Versions) -> str:
    """A remark where the arms are not in one engine, whose load and pods both would share."""
    candidate = version_named(test.spec.candidate.model_version, versions)
    if candidate is None or not (engine := asked_engine(candidate)):
        return ""
    if test.spec.baseline.base:
        base_at = base_engine(candidate, engine, versions)
        other = base_at if isinstance(base_at, str) else None
    else:
        baseline = version_named(test.spec.baseline.model_version or "", versions)
        other = asked_engine(baseline) if baseline else None
    if other is None or other == engine:
        return ""
    return f"the candidate is in engine {engine}, the baseline in {other}: latency compares these engines, too"


def base_needed_by(
    version: ModelVersion, former: str, wanted: str, versions: Versions, tests: Iterable[ABTest]
) -> str | None:
    """Why it may not leave its former engine yet: what this serves beside it is an arm, and nobody else serves that."""
    base_model, name = version.spec.base_model, version.metadata.name
    if not isinstance(base_engine(version, wanted, versions), NotServed) or former not in base_engines(
        base_model, [version]
    ):
        return None
    for test in tests:
        candidate = version_named(test.spec.candidate.model_version, versions)
        if candidate and candidate.spec.base_model == base_model and test.spec.baseline.base and takes_traffic(test):
            needs = f"ABTest {test.metadata.name} needs its base model, which no other engine serves"
            remedy = f"another version of {base_model.name} is served as an adapter"
            return f"{needs}: {name} moves once that has its verdict, or {remedy}"
    return None
