"""What a version's promotion reads of the evaluation where it is served."""

import pytest

from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.core.conditions import find
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import EVALUATED, Object
from tests.unit.reconcile.served_evaluations import (
    COMPLETE,
    FAILED,
    ROUGE,
    TRAINED,
    UNAVAILABLE,
    decide,
    job_of,
    said,
    status_of,
    version,
)

ALWAYS: Object = {"promotion": "Always"}
MET, MISSED, BY_TRAINING = (
    {"evaluation": {"require": [text]}} for text in ("RougeL >= 0.4", "RougeL >= 0.5", "evalLoss < base")
)
GATE: dict[str, tuple[ModelVersion, bool, State, str]] = {
    "not measured yet, though the training was good": (
        version(ROUGE, ALWAYS, TRAINED, MET), False, State.READY, "NotMeasured",
    ),
    "measured and met": (version(ROUGE, ALWAYS, TRAINED, MET), True, State.DEPLOYED, "RequirementsMet"),
    "measured and missed, though the training was good": (
        version(ROUGE, ALWAYS, TRAINED, MISSED), True, State.READY, "RequirementMissed",
    ),
    "what is not asked of the served version is the training's": (
        version(ROUGE, ALWAYS, TRAINED, BY_TRAINING), False, State.DEPLOYED, "RequirementsMet",
    ),
    "asked of the training alone": (version(ALWAYS, TRAINED, MISSED), False, State.DEPLOYED, "RequirementsMet"),
}  # fmt: skip


@pytest.mark.parametrize(("of", "is_reported", "state", "reason"), GATE.values(), ids=GATE.keys())
def test_a_promotion_reads_what_was_measured_where_it_was_asked_for(
    of: ModelVersion, *, is_reported: bool, state: State, reason: str
) -> None:
    plan = decide(of, job_of(of, COMPLETE), pods=(said(EVALUATED),)) if is_reported else decide(of)

    passed = find(status_of(plan).conditions, "EvaluationPassed")
    assert passed is not None
    assert (status_of(plan).state, passed.reason) == (state, reason)


def test_a_failed_evaluation_holds_back() -> None:
    of = version(ROUGE, ALWAYS, TRAINED, MET)
    plan = decide(of, job_of(of, FAILED), pods=(said(UNAVAILABLE, 1),))
    assert status_of(plan).state is State.READY
    assert "RougeL was not measured (see the condition Evaluated)" in (status_of(plan).message or "")


def test_what_the_engine_could_not_tell_is_not_met_and_says_why() -> None:
    accuracy: Object = {"evaluation": {"metrics": ["TokenAccuracy"], "require": ["TokenAccuracy >= 0.1"]}}
    of = version(accuracy, ALWAYS)
    report = EvaluationReport(examples=3, remark="TokenAccuracy was not measured: this engine can't")
    plan = decide(of, job_of(of, COMPLETE), pods=(said(report),))
    passed = find(status_of(plan).conditions, "EvaluationPassed")
    assert passed is not None
    assert passed.reason == "NotMeasured"
    assert "this engine can't" in passed.message
