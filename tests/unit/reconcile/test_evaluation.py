"""The gate: what an evaluation holds back, who overrides it, and how job and version tell of it."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.contract.evaluation import EvaluationReport, Metric, Score, Speed
from finetune_operator.contract.experiments import RatingTally
from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.core.conditions import find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.reconcile import finetunejob, modelversion
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.reconcile.plan import Create, Plan
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionStatus, State
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    after,
    job_body,
    job_condition,
    make_job,
    make_result,
    make_test,
    make_version,
    merged,
    pod_body,
    running,
    terminated,
    training_pod,
    wire,
)

REPORT = EvaluationReport(
    examples=12,
    scores=(Score(metric=Metric.ROUGE_L, base=0.12, fine_tuned=0.21),),
    base_speed=Speed(mean_latency_seconds=1.5, seconds_per_answer=0.25, tokens_per_second=100.0),
    fine_tuned_speed=Speed(mean_latency_seconds=1.6, seconds_per_answer=0.25, tokens_per_second=90.0),
)
MEASURED: Object = {
    "lineage": {
        "evaluation": {
            "examples": 12,
            "metrics": [{"name": "RougeL", "base": "0.12", "fineTuned": "0.21"}],
            "testLoss": "0.3",
            "baseTestLoss": "2.5",
        }
    }
}
MISSED: Object = {"evaluation": {"require": ["RougeL >= 0.3"]}}
MET: Object = {"evaluation": {"require": ["RougeL >= 0.2", "evalLoss < base"]}}
ALWAYS: Object = {"promotion": "Always"}
DEPLOYED: Object = {"state": "Deployed"}
WON = make_test(
    status={
        "phase": "Concluded",
        "verdict": "Won",
        "concludedAt": "2026-01-01T11:30:00Z",
        "votes": {"fineTuned": 12, "base": 5, "tie": 3, "total": 20, "winRate": "0.675"},
    }
)


def measured(*changes: Mapping[str, Any], **options: Any) -> ModelVersion:
    """plato-v2 with what was measured of it."""
    spec = MEASURED
    for change in changes:
        spec = merged(spec, change)
    return make_version(2, spec, **options)


def answering(version: ModelVersion, *tests: ABTest, others: tuple[ModelVersion, ...] = ()) -> Plan:
    """The decision on a version that its engine has loaded."""
    pod = pod_facts(pod_body(main={"vllm": running()}, conditions=({"type": "Ready", "status": "True"},)))
    name, number = version.metadata.name, version.spec.version
    listed = {name: f"/artifacts/finetune/plato/job-{number}/adapter"}
    seen = modelversion.Observed(
        versions=(version, *others), pods=(EnginePod(pod, listed, frozenset({name})),), tests=tests
    )
    return modelversion.reconcile(version, seen, NOON, CONFIG)


def status_of(plan: Plan) -> ModelVersionStatus:
    return ModelVersionStatus.model_validate(plan.status)


GATE: dict[str, tuple[ModelVersion, tuple[ABTest, ...], State]] = {
    "Always, met": (measured(ALWAYS, MET), (), State.DEPLOYED),
    "Always, missed": (measured(ALWAYS, MISSED), (), State.READY),
    "Always, nothing required": (measured(ALWAYS), (), State.DEPLOYED),
    "won, met": (measured(MET), (WON,), State.DEPLOYED),
    "won, missed": (measured(MISSED), (WON,), State.READY),
    "pinned, missed": (measured(DEPLOYED, MISSED), (), State.DEPLOYED),
    "pinned and won, missed": (measured(DEPLOYED, MISSED), (WON,), State.DEPLOYED),
    "Always, required but never measured": (make_version(2, merged(ALWAYS, MISSED)), (), State.READY),
    "missed, but promoted before it was required": (
        measured(MISSED, status={"promotedAt": "2026-01-01T11:45:00.000000Z"}),
        (),
        State.DEPLOYED,
    ),
}


@pytest.mark.parametrize(("version", "tests", "state"), GATE.values(), ids=GATE.keys())
def test_a_version_that_misses_a_requirement_answers_but_is_promoted_by_nobody_but_the_user(
    version: ModelVersion, tests: tuple[ABTest, ...], state: State
) -> None:
    status = status_of(answering(version, *tests))

    assert status.state is state
    assert ("held back from promotion: RougeL" in (status.message or "")) is (state is State.READY)
    assert find(status.conditions, "Loaded") is not None
    assert status.engine is not None


LIVE_LOSER = make_version(
    3,
    status={
        "promotedAt": "2026-01-01T11:00:00Z",
        "engine": "vllm-x",
        "conditions": [
            {"type": "Loaded", "status": "True", "reason": "Loaded", "lastTransitionTime": "2026-01-01T11:00:00Z"}
        ],
    },
)
ROLLBACK = make_test(
    {"baseline": {"modelVersion": "plato-v2"}, "candidate": {"modelVersion": "plato-v3"}, "onLoss": "Rollback"},
    status={"phase": "Concluded", "verdict": "Lost", "concludedAt": "2026-01-01T11:30:00Z"},
)


@pytest.mark.parametrize(
    ("promoted_at", "is_restored"),
    [("2026-01-01T10:00:00.000000Z", True), (None, False)],
    ids=["was live before: going back is no promotion", "never was live"],
)
def test_a_lost_test_goes_back_to_a_version_that_misses_a_requirement(
    promoted_at: str | None, *, is_restored: bool
) -> None:
    baseline = measured(MISSED, status={"promotedAt": promoted_at} if promoted_at else {})

    plan = answering(baseline, ROLLBACK, others=(LIVE_LOSER,))

    assert (status_of(plan).state is State.DEPLOYED) is is_restored


def test_lowering_the_requirement_lets_the_promotion_through() -> None:
    held_back = measured(ALWAYS, MISSED)
    held_back = after(held_back, answering(held_back))
    edited = measured(ALWAYS, MET, status=held_back.status.to_dict(), generation=2)

    plan = answering(edited)

    assert status_of(plan).state is State.DEPLOYED
    condition = find(status_of(plan).conditions, "EvaluationPassed")
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "RequirementsMet")


def test_the_condition_and_one_event_have_the_numbers() -> None:
    version = measured(ALWAYS, MISSED)

    plan = answering(version)
    again = answering(after(version, plan))

    condition = find(status_of(plan).conditions, "EvaluationPassed")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "RequirementMissed")
    assert condition.message.startswith("RougeL 0.21 < 0.3: ")
    told = [event for event in plan.events if event.reason == "RequirementMissed"]
    assert [event.type for event in told] == ["Warning"]
    assert "plato-v2 is held back from promotion: RougeL 0.21 < 0.3" in told[0].message
    assert again.events == ()
    assert again.status == plan.status


def test_a_version_that_is_only_registered_is_judged_too() -> None:
    version = make_version(2, MEASURED | MISSED | {"serving": None})
    assert version.spec.serving is None

    plan = modelversion.reconcile(version, modelversion.Observed(versions=(version,)), NOON, CONFIG)

    assert find(status_of(plan).conditions, "EvaluationPassed") is not None


def test_without_requirements_there_is_no_condition() -> None:
    assert find(status_of(answering(measured())).conditions, "EvaluationPassed") is None


class TestMetrics:
    def test_a_version_shows_what_was_measured_and_voted(self) -> None:
        status = status_of(answering(measured(), WON))
        assert status.metrics is not None
        assert status.metrics.to_dict() == {
            "testLoss": "0.3",
            "baseTestLoss": "2.5",
            "scores": [{"name": "RougeL", "base": "0.12", "fineTuned": "0.21"}],
            "winRate": "0.675",
            "elo": 1557,
        }

    def test_the_last_concluded_test_counts_and_outlives_its_deletion(self) -> None:
        def a_test(name: str, hour: int, rate: str, candidate: str = "plato-v2") -> ABTest:
            concluded = {"concludedAt": f"2026-01-01T{hour:02}:00:00Z", "votes": {"winRate": rate}}
            return make_test({"candidate": {"modelVersion": candidate}}, name=name, status=concluded)

        tests = (a_test("late", 9, "0.7"), a_test("early", 8, "0.2"), a_test("other", 10, "0.9", "plato-v3"))
        plan = answering(measured(), *tests, make_test(name="running", status={"votes": {"winRate": "0.1"}}))
        later = answering(after(measured(), plan))
        for each in (plan, later):
            metrics = status_of(each).metrics
            assert metrics is not None
            assert metrics.win_rate == "0.7"

    def test_all_ended_tests_of_the_model_make_its_elo_which_outlives_them(self) -> None:
        def a_test(name: str, votes: tuple[int, int], candidate: str, baseline: str, **status: Any) -> ABTest:
            counted = {"fineTuned": votes[0], "base": votes[1], "tie": 0, "total": sum(votes)}
            arms = {"candidate": {"modelVersion": candidate}, "baseline": {"modelVersion": baseline}}
            return make_test(arms, name=name, status={"votes": counted} | status)

        ended = {"concludedAt": "2026-01-01T09:00:00Z"}
        tests = (
            a_test("own", (99, 9), "plato-v2", "plato-v1", **ended),
            a_test("of-others", (99, 9), "plato-v3", "plato-v1", **ended),
            a_test("running", (999, 9), "plato-v3", "plato-v2"),
        )
        # 100:10 with the prior's wins: v2 and v3 are 400 points above v1, and the mean of the three is 1500.
        plan = answering(measured(), *tests)
        later = answering(after(measured(), plan))
        for each in (plan, later):
            metrics = status_of(each).metrics
            assert metrics is not None
            assert metrics.elo == 1633

    def test_the_ratings_of_its_answers_are_the_last_ones_known_while_the_api_is_away(self) -> None:
        version = make_version(2)
        rated = modelversion.Observed(versions=(version,), ratings=RatingTally(answers={3: 1, 5: 1}))
        first = modelversion.reconcile(version, rated, NOON, CONFIG)
        known = {"count": 2, "average": "4", "standardDeviation": "1", "goldStarRate": "0.5"}
        assert first.status is not None
        assert first.status["metrics"] == {"scores": [], "ratings": known}
        rated_before = after(version, first)
        away = modelversion.reconcile(rated_before, modelversion.Observed(versions=(rated_before,)), NOON, CONFIG)
        assert away.status == first.status
        forgotten = modelversion.Observed(versions=(rated_before,), ratings=RatingTally())
        assert "metrics" not in (modelversion.reconcile(rated_before, forgotten, NOON, CONFIG).status or {})

    @pytest.mark.parametrize(
        ("change", "wanted"), [({}, True), ({"serving": None}, False), ({"state": "Archived"}, False)]
    )
    def test_ratings_are_asked_for_while_it_may_answer(self, change: Object, wanted: bool) -> None:
        assert modelversion.wants_ratings(make_version(2, change)) is wanted

    def test_a_version_of_unknown_quality_shows_none(self) -> None:
        assert status_of(answering(make_version(2))).metrics is None


EVALUATION: Object = {"metrics": ["RougeL"], "require": ["RougeL >= 0.3"]}


def concluded(
    evaluation: Object | None,
    report: EvaluationReport | None,
    *versions: ModelVersion,
    config: OperatorConfig = CONFIG,
    **spec: Any,
) -> Plan:
    """The decision on a job whose trainer has said this."""
    job = make_job(({"evaluation": evaluation} if evaluation else {}) | spec)
    pod = training_pod(
        phase="Succeeded", prepare=terminated(0), trainer=terminated(0, wire(make_result(evaluation=report)))
    )
    seen = finetunejob.Observed(
        job=job_facts(job_body(job.metadata.uid, conditions=(job_condition("Complete"),))),
        pods=(pod_facts(pod),),
        versions=versions,
    )
    return finetunejob.reconcile(job, seen, NOON, config)


def training(
    evaluation: Object | None, step: int | None, *, outputs: tuple[str, ...] = (), total: int = 600, **status: Any
) -> Plan:
    """The decision on a job whose trainer runs and last told of this step."""
    known = {"phase": "Training", "message": "the trainer is running"} | status
    job = make_job(({"evaluation": evaluation} if evaluation else {}) | {"outputs": list(outputs)}, status=known)
    told = None
    if step is not None:
        identity = JobIdentity(namespace="finetune", name=job.metadata.name, uid=job.metadata.uid)
        fields = {"step": step, "total_steps": total, "epoch": 3.0, "total_epochs": 3.0}
        told = Progress(job=identity, attempt="pod-1", time=NOON, **fields)
    pods = (pod_facts(training_pod(prepare=terminated(0), trainer=running())),)
    seen = finetunejob.Observed(job=job_facts(job_body(job.metadata.uid)), pods=pods, progress=told)
    return finetunejob.reconcile(job, seen, NOON, CONFIG)


JUST_NOW = "2026-01-01T11:59:55Z"
DONE: Object = {"progress": {"percent": 100, "step": 600, "totalSteps": 600, "lastUpdateTime": JUST_NOW}}
NEARLY: Object = {"progress": {"percent": 99, "step": 599, "totalSteps": 600, "lastUpdateTime": JUST_NOW}}
LOSS_ONLY: Object = {"require": ["evalLoss < base"]}
ANSWERING = "trained; answering the held-out prompts that spec.evaluation asks for"
STAGES: dict[str, tuple[Plan, str]] = {
    "before the last step": (training(EVALUATION, 599), "the trainer is running"),
    "after the last step": (training(EVALUATION, 600), ANSWERING),
    "after a last step that came early": (training(EVALUATION, 24, total=24), ANSWERING),
    "after the last step, a step before it being told": (training(EVALUATION, 600, **NEARLY), ANSWERING),
    "after the last step, the api being away": (training(EVALUATION, None, **DONE), ANSWERING),
    "after the last step, with outputs": (
        training(None, 600, outputs=("MergedWeights", "OllamaModelfile"), **NEARLY),
        "trained; making MergedWeights, OllamaModelfile",
    ),
    "after the last step, with both": (
        training(EVALUATION, 600, outputs=("MergedWeights",)),
        f"{ANSWERING}, then making MergedWeights",
    ),
    "nothing told yet": (training(EVALUATION, None), "the trainer is running"),
    "after the last step, with nothing else to do": (training(None, 600), "trained; publishing the adapter"),
    "after the last step, only the loss being asked for": (training(LOSS_ONLY, 600), "trained; publishing the adapter"),
    "with nothing else to do, a step before it being told": (training(None, 600, **NEARLY), "the trainer is running"),
    "with nothing else to do, and the last step told": (
        training(None, None, **DONE),
        "trained; publishing the adapter",
    ),
}


class TestJob:
    @pytest.mark.parametrize(("plan", "message"), STAGES.values(), ids=STAGES.keys())
    def test_it_says_what_it_does_after_the_last_step(self, plan: Plan, message: str) -> None:
        status = plan.status or {}
        assert (status["phase"], status["message"]) == ("Training", message)

    @pytest.mark.parametrize(("plan", "message"), STAGES.values(), ids=STAGES.keys())
    def test_it_is_one_write_with_the_progress_of_the_last_step(self, plan: Plan, message: str) -> None:
        percent = (plan.status or {}).get("progress", {}).get("percent")
        assert (percent == 100) == message.startswith("trained; ")

    def test_it_freezes_the_evaluation_on_the_version_with_what_is_required(self) -> None:
        plan = concluded(EVALUATION, REPORT)
        (create,) = plan.actions
        assert isinstance(create, Create)
        assert create.body["spec"]["evaluation"] == {"require": ["RougeL >= 0.3"]}
        assert create.body["spec"]["lineage"]["evaluation"] == {
            "examples": 12,
            "metrics": [{"name": "RougeL", "base": "0.12", "fineTuned": "0.21"}],
            "meanLatencySeconds": {"base": "1.5", "fineTuned": "1.6"},
            "tokensPerSecond": {"base": "100", "fineTuned": "90"},
            "testLoss": "0.3",
            "baseTestLoss": "2.5",
        }

    def test_its_status_and_message_tell_of_it(self) -> None:
        status = concluded(EVALUATION, REPORT).status or {}
        assert status["phase"] == "Succeeded"
        assert status["evaluation"]["metrics"] == [{"name": "RougeL", "base": "0.12", "fineTuned": "0.21"}]
        assert status["message"].startswith(
            "published ModelVersion plato-v1, held back from promotion: RougeL 0.21 < 0.3: "
        )

    def test_an_answer_costs_its_share_of_the_trainers_time(self) -> None:
        priced = replace(CONFIG, prices=PriceBook(currency="EUR", per_hour={"nvidia.com/gpu": Decimal("3.60")}))
        on_two_gpus = {"limits": {"nvidia.com/gpu": 2}}
        status = concluded(EVALUATION, REPORT, config=priced, resources=on_two_gpus).status or {}
        # 0.25 s an answer, 2 GPUs at 0.001 EUR a second
        assert status["evaluation"]["costPerAnswer"] == {"currency": "EUR", "base": "0.0005", "fineTuned": "0.0005"}
        unpriced = concluded(EVALUATION, REPORT, resources=on_two_gpus).status or {}
        assert "costPerAnswer" not in unpriced["evaluation"]

    def test_a_version_that_was_published_already_is_told_the_same(self) -> None:
        first = concluded(EVALUATION, REPORT)
        (create,) = first.actions
        assert isinstance(create, Create)
        published = make_version(1, merged(create.body["spec"], {"serving": None}))
        again = concluded(EVALUATION, REPORT, published)
        assert again.actions == ()
        assert (again.status or {})["message"] == (first.status or {})["message"]

    def test_a_requirement_that_is_met_needs_no_words(self) -> None:
        status = concluded(EVALUATION | {"require": ["RougeL > base"]}, REPORT).status or {}
        assert status["message"] == "published ModelVersion plato-v1"

    def test_a_failed_evaluation_publishes_and_holds_back(self) -> None:
        plan = concluded(EVALUATION, EvaluationReport(error="the evaluation failed: boom: see the log"))
        assert (plan.status or {})["phase"] == "Succeeded"
        assert "(the evaluation failed: boom: see the log)" in (plan.status or {})["message"]

    def test_without_an_evaluation_there_is_none(self) -> None:
        plan = concluded(None, None)
        assert "evaluation" not in (plan.status or {})
        (create,) = plan.actions
        assert isinstance(create, Create)
        assert "evaluation" not in create.body["spec"]
