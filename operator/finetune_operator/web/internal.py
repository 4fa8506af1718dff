"""What the product's own processes say and ask: progress, samples, tallies."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import FileResponse

from finetune_operator.contract.batch_answers import BatchAnswers
from finetune_operator.contract.experiments import (
    AbTestTally,
    AnswerPairs,
    ArmTallies,
    ArmTally,
    RatingTally,
    SampleBatch,
)
from finetune_operator.contract.job_logs import LogTail
from finetune_operator.contract.places import (
    BATCH_ANSWERS_PATH,
    PAIRS_PATH,
    PROGRESS_BATCH_PATH,
    PROGRESS_LOG_PATH,
    PROGRESS_PATH,
    SAMPLES_PATH,
    STORED_FILE_PATH,
    TALLY_PATH,
    USAGE_PATH,
    VERSION_RATINGS_PATH,
)
from finetune_operator.contract.training import LatestProgress, Progress, ProgressBatch
from finetune_operator.contract.usage import UsageReport
from finetune_operator.resources.abtest import WIN_RATES_MAX_POINTS, Arm
from finetune_operator.resources.abtest_decision import AccuracyFrom
from finetune_operator.store import batch_answers, feedback, job_logs, pairs, progress, samples, usage, vote_statistics
from finetune_operator.store.exported_datasets import DATASET_ID
from finetune_operator.web.auth import open_api, require_internal
from finetune_operator.web.held_files import HeldFileResponse
from finetune_operator.web.ids import NAMESPACE_PATTERN
from finetune_operator.web.services import Services, ServicesOf
from finetune_operator.web.stored_files import stored_file

Uid = Annotated[str, Path(pattern=r"^[-A-Za-z0-9]{1,64}$")]

router = APIRouter(dependencies=[Depends(require_internal)], include_in_schema=False)


@router.post(PROGRESS_PATH, status_code=204)
async def post_progress(point: Progress, services: ServicesOf) -> Response:
    await progress.record(services.engine, [point])
    return Response(status_code=204)


@router.post(PROGRESS_BATCH_PATH, status_code=204)
async def post_progress_batch(batch: ProgressBatch, services: ServicesOf) -> Response:
    await progress.record(services.engine, batch.points)
    return Response(status_code=204)


@router.post(PROGRESS_LOG_PATH, status_code=204)
async def post_log(tail: LogTail, services: ServicesOf) -> Response:
    # A sender's clock that is ahead would keep out what is told after it has been set right.
    told = tail.model_copy(update={"time": min(tail.time, services.now())})
    await job_logs.record(services.engine, told)
    return Response(status_code=204)


@router.get(PROGRESS_PATH)
async def get_progress(
    services: ServicesOf, job: Annotated[list[str], Query(min_length=1, max_length=200)]
) -> LatestProgress:
    return await progress.latest(services.engine, job)


@router.post(SAMPLES_PATH, status_code=204)
async def post_samples(batch: SampleBatch, services: ServicesOf) -> Response:
    await samples.record(services.engine, batch)
    return Response(status_code=204)


@router.post(USAGE_PATH, status_code=204)
async def post_usage(report: UsageReport, services: ServicesOf) -> Response:
    await usage.record(services.engine, report)
    return Response(status_code=204)


@router.get(TALLY_PATH)
async def get_tally(
    services: ServicesOf,
    uid: Uid,
    max_votes: Annotated[int | None, Query(ge=1)] = None,
    accuracy_from: AccuracyFrom | None = None,
) -> AbTestTally:
    cast = await vote_statistics.cast(services.engine, uid, max_votes)
    # Of these votes and no later ones, so that all of it is of one moment; but how well people agree changes slowly.
    total = cast.votes.total
    agreeing = await services.remembered.answer(
        ("voters", uid, max_votes, 1),
        total + cast.second_opinions,
        lambda: vote_statistics.voters(services.engine, uid, total, limit=1),
    )
    return AbTestTally(
        votes=cast.votes,
        voters=cast.voters(agreeing.agreement),
        win_rates=await vote_statistics.win_rates(services.engine, uid, total, WIN_RATES_MAX_POINTS),
        arms=await _arms(services, uid, accuracy_from),
        splits=await samples.splits(services.engine, uid),
    )


async def _arms(services: Services, uid: str, accuracy_from: AccuracyFrom | None) -> ArmTallies:
    """Traffic, with what feedback says of its answers where that is asked for."""
    engine = services.engine
    arms = await samples.tally(engine, uid)
    if accuracy_from is None:
        return arms
    rows = await feedback.count_all(engine) + arms.baseline.samples + arms.candidate.samples
    told = await services.remembered.answer(
        ("accuracy", uid, accuracy_from), rows, lambda: feedback.accuracy_by_arm(engine, uid, accuracy_from)
    )

    def with_accuracy(tally: ArmTally, found: feedback.Accuracy | None) -> ArmTally:
        if found is None:
            return tally
        known = {
            "accuracy_subjects": found.subjects,
            "mean_accuracy": found.mean,
            "deviation_accuracy": found.deviation,
        }
        return tally.model_copy(update=known)

    return ArmTallies(
        baseline=with_accuracy(arms.baseline, told.get(Arm.BASELINE)),
        candidate=with_accuracy(arms.candidate, told.get(Arm.CANDIDATE)),
    )


@router.get(VERSION_RATINGS_PATH)
async def get_version_ratings(services: ServicesOf, uid: Uid) -> RatingTally:
    return await feedback.of_version(services.engine, uid)


@router.get(STORED_FILE_PATH, response_class=FileResponse)
def get_stored_file(
    services: ServicesOf,
    namespace: Annotated[str, Path(pattern=f"^{NAMESPACE_PATTERN}$")],
    identity: Annotated[str, Path(alias="id", pattern=DATASET_ID)],
    file: Annotated[str, Path(pattern=r"^[a-z]+\.jsonl$")],
) -> FileResponse:
    """For whoever prepares a training there; the ETag is the SHA-256. Ids are digests, so that none can be guessed."""
    content, sha256 = stored_file(services, namespace, identity, file)
    return HeldFileResponse(content, media_type="application/jsonl", headers={"ETag": f'"{sha256}"'})


@router.put(BATCH_ANSWERS_PATH, status_code=204)
async def put_batch_answers(uid: Uid, sent: BatchAnswers, services: ServicesOf) -> Response:
    """Who may read the BatchInference may read them, and nobody else, also where the api is open."""
    batch = sent.batch.model_copy(update={"uid": uid})
    await batch_answers.record(services.engine, sent.model_copy(update={"batch": batch}), services.now())
    return Response(status_code=204)


@router.put(PAIRS_PATH, status_code=204)
async def put_pairs(uid: Uid, sent: AnswerPairs, services: ServicesOf) -> Response:
    """A gateway's pairs are what users wrote, a batch's are of a dataset that somebody has chosen to show."""
    if sent.keep_max is not None and services.settings.api_token is None:
        raise open_api("users' requests")
    await pairs.record(services.engine, uid, sent)
    return Response(status_code=204)
