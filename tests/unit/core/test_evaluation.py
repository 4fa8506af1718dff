"""What was measured against what is required: the rule that holds back a promotion, and its words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract import evaluation as contract
from finetune_operator.contract.evaluation import EvaluationReport, Score, Speed
from finetune_operator.core.evaluation import judgement, measurements, record_of
from finetune_operator.resources.evaluation import Metric
from finetune_operator.resources.modelversion import ModelVersionSpec
from tests.builders import make_result, make_version

RECORD: dict[str, Any] = {
    "examples": 12,
    "metrics": [
        {"name": "RougeL", "base": "0.12", "fineTuned": "0.21"},
        {"name": "ExactMatch", "base": "0.5", "fineTuned": "0.5"},
    ],
    "testLoss": "1.5",
    "baseTestLoss": "2.25",
}


def version_spec(*require: str, record: dict[str, Any] | None = RECORD) -> ModelVersionSpec:
    return make_version(1, {"evaluation": {"require": list(require)}, "lineage": {"evaluation": record}}).spec


# requirement, whether it is met, and the fact
FACTS: dict[str, tuple[str, bool, str]] = {
    "at least, missed": ("RougeL >= 0.3", False, "RougeL 0.21 < 0.3"),
    "at least, met": ("RougeL >= 0.2", True, "RougeL 0.21 >= 0.2"),
    "at least, just met": ("RougeL >= 0.21", True, "RougeL 0.21 >= 0.21"),
    "more than, just missed": ("RougeL > 0.21", False, "RougeL 0.21 <= 0.21"),
    "less than the base, met": ("evalLoss < base", True, "evalLoss 1.5 < 2.25 (base)"),
    "at most, missed": ("evalLoss <= 1", False, "evalLoss 1.5 > 1"),
    "better than the base, met": ("RougeL > base", True, "RougeL 0.21 > 0.12 (base)"),
    "better than the base, as good": ("ExactMatch > base", False, "ExactMatch 0.5 <= 0.5 (base)"),
    "as good as the base": ("ExactMatch >= base", True, "ExactMatch 0.5 >= 0.5 (base)"),
    "not measured": ("Bleu > 0.1", False, "Bleu was not measured"),
}


@pytest.mark.parametrize(("requirement", "met", "fact"), FACTS.values(), ids=FACTS.keys())
def test_a_requirement(requirement: str, met: bool, fact: str) -> None:
    found = judgement(version_spec(requirement))

    assert found is not None
    assert found.passed is met
    assert found.message.startswith(fact)
    assert ("spec.state: Deployed" in found.message) is not met


def test_all_have_to_be_met_and_only_what_is_missed_is_told() -> None:
    found = judgement(version_spec("RougeL >= 0.3", "evalLoss < base", "ExactMatch > 0.9"))

    assert found is not None
    assert (found.passed, found.reason) == (False, "RequirementMissed")
    assert found.message.startswith("RougeL 0.21 < 0.3, ExactMatch 0.5 <= 0.9: ")


def test_what_is_met_is_told_with_its_numbers() -> None:
    found = judgement(version_spec("RougeL >= 0.2", "evalLoss < base"))

    assert found is not None
    assert (found.passed, found.reason) == (True, "RequirementsMet")
    assert found.message == "RougeL 0.21 >= 0.2, evalLoss 1.5 < 2.25 (base)"


UNMEASURED: dict[str, tuple[dict[str, Any] | None, str]] = {
    "no lineage": (None, "the lineage has no such value"),
    "an evaluation that failed": ({"message": "out of memory: lower maxNewTokens"}, "lower maxNewTokens"),
    "no held-out rows": ({"testLoss": None, "baseTestLoss": None}, "the lineage has no such value"),
}


@pytest.mark.parametrize(("record", "cause"), UNMEASURED.values(), ids=UNMEASURED.keys())
def test_what_was_not_measured_is_not_met_and_says_why(record: dict[str, Any] | None, cause: str) -> None:
    found = judgement(version_spec("evalLoss < base", "RougeL > base", record=record))

    assert found is not None
    assert (found.passed, found.reason) == (False, "NotMeasured")
    assert found.message.startswith("evalLoss was not measured, RougeL was not measured (")
    assert cause in found.message


@pytest.mark.parametrize("base", ["n/a", "NaN", ""])
def test_a_lineage_without_a_number_meets_nothing(base: str) -> None:
    record = {"metrics": [{"name": "F1", "base": base, "fineTuned": "0.5"}]}
    found = judgement(version_spec("F1 > base", record=record))

    assert found is not None
    assert (found.passed, found.reason) == (False, "RequirementMissed")
    assert found.message.startswith(f"F1 0.5 > {base} compares what is no number: ")


@pytest.mark.parametrize("spec", [make_version(1).spec, version_spec()], ids=["nothing said", "an empty list"])
def test_without_requirements_nothing_is_judged(spec: ModelVersionSpec) -> None:
    assert judgement(spec) is None


@given(
    value=st.floats(0, 1),
    base=st.floats(0, 1),
    bound=st.just("base") | st.floats(0, 1).map(lambda number: f"{number:.4f}"),
)
def test_exactly_one_of_a_requirement_and_its_opposite_is_met(value: float, base: float, bound: str) -> None:
    record = {"metrics": [{"name": "F1", "base": f"{base:.4g}", "fineTuned": f"{value:.4g}"}]}

    for one, other in ((">=", "<"), (">", "<=")):
        found = [judgement(version_spec(f"F1 {operator} {bound}", record=record)) for operator in (one, other)]
        assert [judged.passed for judged in found if judged].count(True) == 1


REPORT = EvaluationReport(
    examples=12,
    scores=(Score(metric=contract.Metric.ROUGE_L, base=0.123456, fine_tuned=0.2),),
    base_speed=Speed(mean_latency_seconds=1.23456, seconds_per_answer=0.25, tokens_per_second=100.0),
    fine_tuned_speed=Speed(mean_latency_seconds=0.5, seconds_per_answer=0.25, tokens_per_second=87.654321),
)


def test_a_status_has_the_report_in_decimals() -> None:
    assert measurements(REPORT).to_dict() == {
        "examples": 12,
        "metrics": [{"name": "RougeL", "base": "0.1235", "fineTuned": "0.2"}],
        "meanLatencySeconds": {"base": "1.235", "fineTuned": "0.5"},
        "tokensPerSecond": {"base": "100", "fineTuned": "87.65"},
    }


REMARKS = {
    "nothing to remark": (REPORT, None),
    "an error": (EvaluationReport(error="the fact: the remedy"), "the fact: the remedy"),
    "rows left out": (REPORT.model_copy(update={"left_out": 3}), "3 rows were left out"),
    "what could not be measured beside the rest": (REPORT.model_copy(update={"remark": "no loss"}), "no loss"),
    "several at once": (REPORT.model_copy(update={"remark": "no loss", "left_out": 3}), "no loss; 3 rows"),
}


@pytest.mark.parametrize(("report", "remark"), REMARKS.values(), ids=REMARKS.keys())
def test_what_is_missing_is_remarked(report: EvaluationReport, remark: str | None) -> None:
    message = measurements(report).message

    assert message is None if remark is None else message is not None and remark in message


def test_the_lineage_has_the_losses_too() -> None:
    record = record_of(make_result(evaluation=REPORT))

    assert (record.test_loss, record.base_test_loss) == ("0.3", "2.5")
    assert record.metrics == measurements(REPORT).metrics
    assert record_of(make_result()).to_dict() == {"metrics": [], "testLoss": "0.3", "baseTestLoss": "2.5"}


def test_resources_and_contract_have_the_same_metrics() -> None:
    assert list(map(str, Metric)) == list(map(str, contract.Metric))
