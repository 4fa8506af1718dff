"""Progress, samples and tallies, as trainers, gateway and operator use them."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.base import Message
from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.contract.experiments import AbTestTally, ArmTallies, ArmTally, VoteCounts
from finetune_operator.contract.job_logs import LOG_MAX_BYTES
from finetune_operator.contract.places import (
    PROGRESS_BATCH_PATH,
    PROGRESS_LOG_PATH,
    PROGRESS_PATH,
    SAMPLES_PATH,
    TALLY_PATH,
)
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
from finetune_operator.contract.training import JobIdentity, LatestProgress, Progress, TrainingConfig
from finetune_operator.store import job_logs, progress
from tests.unit.web.conftest import INTERNAL, NOON, Api, sample

JOB = "00000000-0000-4000-8000-000000000001"
SERIES = f"/v1/fine-tuning/jobs/{JOB}/progress"


def point(
    step: int,
    loss: float | None,
    job: str = JOB,
    attempt: str = "pod-1",
    **changes: Any,
) -> dict[str, Any]:
    return (
        Progress(
            job=JobIdentity(namespace="finetune", name="plato", uid=job),
            attempt=attempt,
            step=step,
            total_steps=100,
            epoch=step / 50,
            total_epochs=2.0,
            loss=loss,
            best_loss=loss,
            time=NOON + timedelta(seconds=step),
        ).model_dump(mode="json", by_alias=True)
        | changes
    )


async def post_points(api: Api, *points: dict[str, Any]) -> None:
    for body in points:
        response = await api.post(PROGRESS_PATH, body, INTERNAL)
        assert response.status_code == 204, response.text


async def latest(api: Api, *jobs: str) -> dict[str, Progress]:
    response = await api.get(PROGRESS_PATH, INTERNAL, params=[("job", job) for job in jobs])
    return LatestProgress.model_validate_json(response.content).root


async def test_the_latest_progress_has_the_best_loss_of_the_series(api: Api) -> None:
    await post_points(api, point(10, 2.0), point(30, 1.5), point(20, 1.0), point(5, 9.0, job="job-2"))
    found = await latest(api, JOB, "job-2", "job-3")
    assert found.keys() == {JOB, "job-2"}
    assert (
        found[JOB].step,
        found[JOB].loss,
        found[JOB].best_loss,
    ) == (30, 1.5, 1.0)
    assert found[JOB].time == NOON + timedelta(seconds=30)
    assert found["job-2"].job == JobIdentity(namespace="finetune", name="plato", uid="job-2")


async def test_progress_sent_again_counts_once(api: Api) -> None:
    await post_points(api, point(10, 2.0), point(10, 2.0), point(10, 7.0))
    series = (await api.get(SERIES)).json()
    assert [entry["loss"] for entry in series["points"]] == [2.0]


async def test_a_batch_counts_each_point_once(api: Api) -> None:
    await post_points(api, point(2, 2.0))
    for _ in range(2):
        batch = {"points": [point(step, float(step)) for step in (1, 2, 3)]}
        response = await api.post(PROGRESS_BATCH_PATH, batch, INTERNAL)
        assert response.status_code == 204, response.text
    series = (await api.get(SERIES)).json()
    assert [(entry["step"], entry["loss"]) for entry in series["points"]] == [(1, 1.0), (2, 2.0), (3, 3.0)]


async def test_an_empty_batch_of_progress_is_fine(api: Api) -> None:
    assert (await api.post(PROGRESS_BATCH_PATH, {"points": []}, INTERNAL)).status_code == 204


MEASURED = {
    "eval_loss": 1.25,
    "grad_norm": 0.5,
    "tokens": 40_000_000_000,
    "tokens_per_second": 812.5,
    "gpu_memory_bytes": 17_179_869_184,
    "checkpoint_step": 50,
    "failed_rows": 3,
}


async def test_what_was_measured_comes_back_in_the_series_and_in_the_latest_progress(api: Api) -> None:
    saved_at = NOON + timedelta(seconds=3)
    body = Progress.model_validate(point(60, 1.0)).model_copy(update=MEASURED | {"checkpoint_time": saved_at})
    await post_points(api, point(50, 1.1), body.model_dump(mode="json", by_alias=True))
    before, after = (await api.get(SERIES)).json()["points"]
    assert {name: before[name] for name in MEASURED} == dict.fromkeys(MEASURED)
    assert {name: after[name] for name in MEASURED} == MEASURED
    found = (await latest(api, JOB))[JOB]
    assert found.model_dump(include=set(MEASURED)) == MEASURED
    assert found.checkpoint_time == saved_at


async def test_a_restarted_trainer_continues_from_its_checkpoint(api: Api) -> None:
    resumed = point(15, 1.8, attempt="pod-2", time=(NOON + timedelta(minutes=5)).isoformat())
    await post_points(api, point(10, 2.0), point(20, 1.9), resumed)
    assert (await latest(api, JOB))[JOB].step == 15
    series = (await api.get(SERIES)).json()
    assert [(entry["attempt"], entry["step"]) for entry in series["points"]] == [
        ("pod-1", 10),
        ("pod-1", 20),
        ("pod-2", 15),
    ]
    assert series["best_loss"] == 1.8


async def test_a_loss_that_is_no_number_is_absent(api: Api) -> None:
    for step, loss in ((1, "NaN"), (2, "Infinity")):
        body = Progress.model_validate(point(step, None)).model_dump_json(by_alias=True, exclude={"loss"})
        content = body[:-1] + f', "loss": {loss}}}'
        headers = INTERNAL | {"Content-Type": "application/json"}
        response = await api.client.post(PROGRESS_PATH, content=content.encode(), headers=headers)
        assert response.status_code == 204, response.text
    found = (await latest(api, JOB))[JOB]
    assert (found.loss, found.best_loss) == (None, None)


@pytest.mark.parametrize(("max_points", "steps"), [(1000, 10), (5, 5), (3, 3), (1, 1)])
async def test_a_long_series_is_thinned_and_keeps_its_end(api: Api, max_points: int, steps: int) -> None:
    await post_points(api, *(point(step, 1.0) for step in range(1, 11)))
    response = await api.get(f"{SERIES}?max_points={max_points}")
    found = [entry["step"] for entry in response.json()["points"]]
    assert found[0] == 1
    assert found[-1] == 10
    assert steps <= len(found) <= steps + 1


async def test_a_series_is_worked_out_again_when_it_has_grown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out: list[int] = []
    series = progress.series

    async def noted(engine: AsyncEngine, job_uid: str, max_points: int) -> tuple[list[Progress], float | None]:
        worked_out.append(max_points)
        return await series(engine, job_uid, max_points)

    monkeypatch.setattr(progress, "series", noted)
    for steps in (1, 2):
        await post_points(api, point(steps, 1.0))
        for _ in range(2):
            assert len((await api.get(SERIES)).json()["points"]) == steps
        assert len(worked_out) == steps


async def test_a_job_without_progress_has_an_empty_series(api: Api) -> None:
    response = await api.get("/v1/fine-tuning/jobs/00000000-0000-4000-8000-000000000009/progress")
    assert response.json() == {"job_uid": "00000000-0000-4000-8000-000000000009", "best_loss": None, "points": []}


async def tally(api: Api) -> AbTestTally:
    response = await api.get(TALLY_PATH.format(uid="test-uid"), INTERNAL)
    return AbTestTally.model_validate_json(response.content)


async def test_samples_count_once_and_by_arm(api: Api) -> None:
    batch = [
        sample(1, "baseline", latency_ms=100),
        sample(2, "baseline", latency_ms=301),
        sample(3, "candidate", status=503, latency_ms=9000),
        sample(4, "candidate", status=404, latency_ms=50),
        sample(5, "candidate", test="another"),
        sample(1, "baseline", latency_ms=100),
    ]
    for _ in range(2):
        response = await api.post(SAMPLES_PATH, {"samples": batch}, INTERNAL)
        assert response.status_code == 204, response.text
    arms = (await tally(api)).arms
    assert arms.baseline.model_dump(exclude_none=True) == {
        "samples": 2,
        "errors": 0,
        "mean_latency_ms": 200,
        "latency_subjects": 2,
        "standard_error_latency_ms": pytest.approx(100.5 / 2**0.5),
        "samples_with_tokens": 0,
        "token_subjects": 0,
        "shadow_samples": 0,
        "shadow_errors": 0,
        "accuracy_subjects": 0,
    }
    assert arms.candidate.model_dump(exclude_none=True) == {
        "samples": 2,
        "errors": 1,
        "mean_latency_ms": 50,
        "latency_subjects": 1,
        "standard_error_latency_ms": 0,
        "samples_with_tokens": 0,
        "token_subjects": 0,
        "shadow_samples": 0,
        "shadow_errors": 0,
        "accuracy_subjects": 0,
    }


async def test_copies_count_once_and_apart_from_requests(api: Api) -> None:
    requests = [sample(1, "baseline"), sample(2, "candidate", latency_ms=70)]
    copies = [
        sample(3, "candidate", latency_ms=100) | {"completionTokens": 9},
        sample(4, "candidate", latency_ms=301),
        sample(5, "candidate", status=500, latency_ms=9000),
    ]
    for _ in range(2):
        batch = {"samples": requests, "shadows": copies}
        assert (await api.post(SAMPLES_PATH, batch, INTERNAL)).status_code == 204
    arms = (await tally(api)).arms
    assert (arms.candidate.samples, arms.candidate.errors, arms.candidate.mean_latency_ms) == (1, 0, 70)
    assert arms.candidate.samples_with_tokens == 0
    assert (arms.candidate.shadow_samples, arms.candidate.shadow_errors) == (3, 1)
    assert arms.candidate.shadow_mean_latency_ms == 200
    assert (arms.baseline.samples, arms.baseline.shadow_samples) == (1, 0)


async def test_copies_alone_are_counted(api: Api) -> None:
    batch = {"samples": [], "shadows": [sample(1, "candidate")]}
    assert (await api.post(SAMPLES_PATH, batch, INTERNAL)).status_code == 204
    candidate = (await tally(api)).arms.candidate
    assert (candidate.samples, candidate.mean_latency_ms, candidate.shadow_samples) == (0, None, 1)


async def test_tokens_are_averaged_over_the_answers_that_told_them(api: Api) -> None:
    batch = [
        sample(1, "baseline") | {"promptTokens": 10, "completionTokens": 20},
        sample(2, "baseline") | {"promptTokens": 11, "completionTokens": 23},
        sample(3, "baseline"),
        sample(4, "baseline", status=502) | {"promptTokens": 500, "completionTokens": 900},
    ]
    assert (await api.post(SAMPLES_PATH, {"samples": batch}, INTERNAL)).status_code == 204
    arm = (await tally(api)).arms.baseline
    assert (arm.samples, arm.samples_with_tokens) == (4, 2)
    assert (arm.mean_prompt_tokens, arm.mean_completion_tokens) == (10.5, 21.5)


async def test_the_tally_of_an_unknown_test_is_empty(api: Api) -> None:
    assert await tally(api) == AbTestTally()


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (SAMPLES_PATH, {"samples": [sample(1, "third")]}, "arm"),
        (SAMPLES_PATH, {"samples": [sample(1, "baseline", status=7)]}, "status"),
        (SAMPLES_PATH, {"samples": [sample(1, "baseline") | {"completionTokens": -1}]}, "completionTokens"),
        (SAMPLES_PATH, {"samples": [sample(1, "baseline") | {"time": "2026-01-01T00:00:00"}]}, "time"),
        (SAMPLES_PATH, {"samples": [sample(number, "baseline") for number in range(1001)]}, "samples"),
        (PROGRESS_BATCH_PATH, {"points": [point(step, 1.0) for step in range(501)]}, "points"),
        (PROGRESS_PATH, {}, "job"),
    ],
)
async def test_what_is_not_in_the_contract_is_refused(api: Api, path: str, body: Any, field: str) -> None:
    response = await api.post(path, body, INTERNAL)
    assert response.status_code == 422
    assert field in response.json()["detail"]


async def test_what_a_newer_release_tells_as_well_is_not_read_and_loses_nothing(api: Api) -> None:
    """Gateways, trainers and operator may be of a later release than the api, for the time of an upgrade or longer."""
    later = {"timeToFirstTokenMs": 12}
    batch = {"samples": [sample(1, "baseline") | later, sample(2, "candidate", status=500) | later]} | later
    assert (await api.post(SAMPLES_PATH, batch, INTERNAL)).status_code == 204
    counted = await tally(api)
    assert (counted.arms.baseline.samples, counted.arms.candidate.errors) == (1, 1)
    assert (await api.post(PROGRESS_PATH, point(1, 1.0, **later), INTERNAL)).status_code == 204
    points = {"points": [point(2, 1.0, **later)]} | later
    assert (await api.post(PROGRESS_BATCH_PATH, points, INTERNAL)).status_code == 204
    assert (await latest(api, JOB))[JOB].step == 2


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (AbTestTally, AbTestTally(votes=VoteCounts(fine_tuned=2), arms=ArmTallies(baseline=ArmTally(samples=3)))),
        (
            LatestProgress,
            LatestProgress({JOB: Progress.model_validate(point(1, 1.0))}),
        ),
    ],
)
def test_what_a_newer_api_answers_is_read_by_an_older_operator(
    kind: type[AbTestTally] | type[LatestProgress], told: AbTestTally | LatestProgress
) -> None:
    body = told.model_dump(mode="json", by_alias=True)
    assert kind.model_validate(_with_more(body)) == told


def _with_more(body: Any) -> Any:
    """A field more in each report of the answer; the identity of a job is no report."""
    if not isinstance(body, dict):
        return body
    more = {key: value if key == "job" else _with_more(value) for key, value in body.items()}
    return more if JOB in body else more | {"later": 1}


@pytest.mark.parametrize("kind", [TrainingConfig, DatasetConfig, ServedEvaluationConfig])
def test_what_is_asked_for_has_to_be_understood_as_a_whole(kind: type[Message]) -> None:
    assert kind.model_config["extra"] == "forbid"


async def test_an_empty_batch_is_fine(api: Api) -> None:
    assert (await api.post(SAMPLES_PATH, {"samples": []}, INTERNAL)).status_code == 204


def log_tail(text: str, seconds: int = 0) -> dict[str, Any]:
    job = {"namespace": "finetune", "name": "plato", "uid": JOB}
    time = NOON + timedelta(seconds=seconds)
    return {"job": job, "container": "trainer", "text": text, "time": time.isoformat()}


LOG_TEXTS: list[tuple[str, str, str | None]] = [
    ("as many bytes as there may be", "\u20ac" * (LOG_MAX_BYTES // 3), "\u20ac" * (LOG_MAX_BYTES // 3)),
    ("more bytes, and fewer characters", "\u20ac" * (LOG_MAX_BYTES // 3 + 1), None),
    ("what PostgreSQL can't keep", "a\0b", "a\ufffdb"),
    ("what is too long once it can be kept", "\0" * (LOG_MAX_BYTES // 2), None),
]


@pytest.mark.parametrize(("text", "kept"), [row[1:] for row in LOG_TEXTS], ids=[row[0] for row in LOG_TEXTS])
async def test_the_text_of_a_log_is_bounded_and_can_be_kept(api: Api, text: str, kept: str | None) -> None:
    response = await api.post(PROGRESS_LOG_PATH, log_tail(text), INTERNAL)
    assert response.status_code == (422 if kept is None else 204), response.text
    assert [tail.text for tail in await job_logs.of_job(api.services.engine, JOB)] == ([] if kept is None else [kept])
    assert kept is not None or str(LOG_MAX_BYTES) in response.text


async def test_a_clock_that_is_ahead_keeps_no_later_log_out(api: Api) -> None:
    for each in (log_tail("ahead", 3600), log_tail("set right", 1000)):
        assert (await api.post(PROGRESS_LOG_PATH, each, INTERNAL)).status_code == 204
    assert [tail.text for tail in await job_logs.of_job(api.services.engine, JOB)] == ["set right"]


async def test_the_time_of_a_log_has_a_zone(api: Api) -> None:
    response = await api.post(PROGRESS_LOG_PATH, log_tail("x") | {"time": "2026-11-22T12:00:00"}, INTERNAL)
    assert response.status_code == 422
