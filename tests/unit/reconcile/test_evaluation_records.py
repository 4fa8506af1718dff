"""Which evaluations of a version are told to the database, and until when."""

from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_operator.reconcile import modelversion
from finetune_operator.reconcile.served_evaluation import record_id
from tests.builders import CONFIG, EVALUATED, NOON, after, make_version, merged
from tests.unit.reconcile.served_evaluations import (
    COMPLETE,
    ROUGE,
    TRAINED,
    WANTED,
    decide,
    identity,
    job_of,
    measured,
    records_of,
    said,
    status_of,
    unrecorded,
    version,
)

TRAINING_ROW = record_id(version(), "training")
"""The row of what the training of the version of all these tests measured."""


class TestDatabase:
    def test_it_is_told_of_both_evaluations_with_all_values(self) -> None:
        of = version(ROUGE, TRAINED)
        told = records_of(decide(of, job_of(of, COMPLETE), pods=(said(EVALUATED),)))
        assert told == {
            TRAINING_ROW: {"RougeL": (0.1, 0.9), "F1": (0.2, 0.8), "evalLoss": (2.5, 0.3)},
            record_id(of, identity(of)): {
                "RougeL": (0.12, 0.41),
                "RougeL/ethics": (0.1, 0.5),
                "meanLatencySeconds": (1.0, 1.1),
                "p95LatencySeconds": (2.0, 2.1),
                "meanSecondsToFirstToken": (0.1, 0.2),
                "tokensPerSecond": (80.0, 70.0),
            },
        }

    def test_it_is_told_until_it_has_acknowledged_and_that_is_remembered(self) -> None:
        of = version(TRAINED)
        first = decide(of)
        assert records_of(first).keys() == {TRAINING_ROW}
        assert status_of(first).recorded_evaluations is None
        assert first.requeue_after_seconds is not None
        second = decide(of, recorded=(*unrecorded(first), *unrecorded(decide(make_version(1, TRAINED)))))
        assert records_of(second) == {}
        assert status_of(second).recorded_evaluations == (TRAINING_ROW,)
        assert records_of(decide(after(of, second))) == {}

    def test_what_is_measured_again_is_told_again(self) -> None:
        done = measured(WANTED)
        known = unrecorded(decide(done))
        unwanted = version(status=decide(done, recorded=known).status)
        wanted_again = version(ROUGE, status=decide(unwanted, recorded=known).status)

        later = NOON + timedelta(hours=1, microseconds=7)
        again = decide(wanted_again, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),), recorded=known, now=later)

        assert [action.id for action in unrecorded(again)] == [action.id for action in known]
        assert [action.evaluation.measured_at for action in unrecorded(again)] == [NOON + timedelta(hours=1)]
        assert status_of(again).recorded_evaluations is None

    def test_what_is_told_in_the_moment_of_its_measuring_is_told_once(self) -> None:
        plan = decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),), now=NOON + timedelta(microseconds=7))
        assert unrecorded(plan)
        assert unrecorded(decide(after(WANTED, plan), recorded=unrecorded(plan))) == []

    def test_after_a_restart_nothing_is_told_that_the_status_remembers(self) -> None:
        of = after(WANTED, decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),)))
        remembered = after(of, decide(of, recorded=unrecorded(decide(of))))
        assert unrecorded(decide(remembered)) == []

    def test_a_registered_version_is_told_as_well(self) -> None:
        of = make_version(2, TRAINED | {"serving": None})
        plan = modelversion.reconcile(of, modelversion.Observed(versions=(of,)), NOON, CONFIG)
        assert records_of(plan).keys() == {record_id(of, "training")}
        assert plan.requeue_after_seconds == modelversion.RECORD_AGAIN_SECONDS

    @pytest.mark.parametrize("job_uid", ["train#7", "x?y", "run_7", "j" * 64])
    def test_its_ids_are_the_versions_whatever_its_lineage_says(self, job_uid: str) -> None:
        of = version(TRAINED, {"lineage": {"jobUid": job_uid}})
        assert records_of(decide(of)).keys() == {TRAINING_ROW}

    @pytest.mark.parametrize("text", ["0,31", "n/a", "nan", "inf", ""])
    def test_what_is_no_finite_number_has_no_row(self, text: str) -> None:
        of = version(merged(TRAINED, {"lineage": {"evaluation": {"testLoss": text}}}))
        assert records_of(decide(of)) == {TRAINING_ROW: {"RougeL": (0.1, 0.9), "F1": (0.2, 0.8)}}

    def test_one_training_in_two_versions_is_two_rows(self) -> None:
        one, other = (make_version(number, merged(TRAINED, {"lineage": {"jobUid": "job-1"}})) for number in (1, 2))
        assert records_of(decide(one)).keys().isdisjoint(records_of(decide(other)))

    def test_a_training_outside_the_cluster_has_a_row_as_well(self) -> None:
        of = version(TRAINED)
        lineage = of.spec.lineage.model_copy(update={"job_uid": None})
        of = of.model_copy(update={"spec": of.spec.model_copy(update={"lineage": lineage})})
        assert records_of(decide(of)).keys() == {TRAINING_ROW}

    def test_without_an_api_nobody_is_told(self) -> None:
        assert records_of(decide(version(TRAINED), config=replace(CONFIG, api_url=None))) == {}

    def test_a_version_that_was_never_measured_has_no_row(self) -> None:
        assert records_of(decide(version())) == {}

    def test_an_id_that_nobody_asks_for_any_more_is_forgotten(self) -> None:
        of = version(status={"recordedEvaluations": ["old"]})
        assert status_of(decide(of)).recorded_evaluations is None
