"""What trainings and answers cost, gathered in the caller's name from the cluster and the database."""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from decimal import Decimal
from typing import NamedTuple

from finetune_operator.core.cost import PriceBook
from finetune_operator.core.roi_inputs import Evidence, currencies, measured_inputs, with_given
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.store import deleted_rows, deleted_trainings, deleted_versions, usage
from finetune_operator.store.deleted_rows import Deleted, UnknownPlace
from finetune_operator.store.mirrored import Wanted
from finetune_operator.store.mirrored_sums import AnswerSums, TrainingSums
from finetune_operator.store.tables import DeletedRow, DeletedTraining, DeletedVersion
from finetune_operator.web.acting import JOBS, TESTS, VERSIONS, Acting
from finetune_operator.web.cost_views import (
    CostSummary,
    RoiReport,
    TrainingCostList,
    VersionCostList,
    calls_of,
    cost_summary,
    roi_report,
    training_cost,
    version_cost,
)
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.mirroring import facts_of
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.pages import Page, id_of
from finetune_operator.web.problems import FORBIDDEN, NOT_FOUND, Problem
from finetune_operator.web.services import Object


class Overview(NamedTuple):
    """The totals, and the newest of what they are made of."""

    summary: CostSummary
    jobs: TrainingCostList
    models: VersionCostList


async def summary(acting: Acting, namespace: str | None) -> CostSummary:
    """Of all that the caller may read; who may read no FineTuneJob is refused. Raises problems."""
    return cost_summary(await _training_sums(acting, namespace), await _answer_sums(acting, namespace))


async def overview(acting: Acting, namespace: str | None, limit: int) -> Overview:
    """Raises problems."""
    return Overview(
        await summary(acting, namespace),
        await trainings(acting, namespace, None, limit, None),
        await versions(acting, namespace, None, limit, None),
    )


async def trainings(
    acting: Acting, namespace: str | None, model: str | None, limit: int, after: str | None
) -> TrainingCostList:
    """A page. Raises problems."""
    page = await acting.page(JOBS, namespace, limit, after, Wanted(JOBS.plural, model=model))
    return _trainings(page, acting)


async def gone_trainings(
    acting: Acting, namespace: str | None, model: str | None, limit: int, after: str | None
) -> TrainingCostList:
    """A page of those whose FineTuneJob was deleted, as far as the api was told of them. Raises problems."""
    found = await _gone(acting, DeletedTraining, await acting.listable(JOBS, namespace), model, limit, after)
    now = acting.services.now()
    times = {_uid(each.body): each.deleted_at for each in found.shown}
    jobs = each_shown(lambda body: training_cost(body, now, times[_uid(body)]), (each.body for each in found.shown))
    return TrainingCostList(jobs=jobs, total=found.total, has_more=found.next is not None, next=found.next)


async def versions(
    acting: Acting, namespace: str | None, model: str | None, limit: int, after: str | None
) -> VersionCostList:
    """A page. Raises problems."""
    page = await acting.page(VERSIONS, namespace, limit, after, Wanted(VERSIONS.plural, model=model))
    used = await usage.of_versions(acting.services.engine, _uids(page.items))
    return _versions(page, used, acting.services.settings.prices)


async def gone_versions(
    acting: Acting, namespace: str | None, model: str | None, limit: int, after: str | None
) -> VersionCostList:
    """A page of those whose ModelVersion was deleted, as far as the api was told of them. Raises problems."""
    found = await _gone(acting, DeletedVersion, await acting.listable(VERSIONS, namespace), model, limit, after)
    times = {_uid(each.body): each.deleted_at for each in found.shown}
    used = await usage.of_versions(acting.services.engine, times)
    prices = acting.services.settings.prices
    models = each_shown(
        lambda body: version_cost(body, used.get(_uid(body)), prices, times[_uid(body)]),
        (each.body for each in found.shown),
    )
    return VersionCostList(models=models, total=found.total, has_more=found.next is not None, next=found.next)


class _GonePage(NamedTuple):
    """`next` is None on the last one."""

    shown: tuple[Deleted, ...]
    total: int
    next: str | None


async def _gone(
    acting: Acting,
    table: type[DeletedRow],
    namespaces: tuple[str, ...] | None,
    model: str | None,
    limit: int,
    after: str | None,
) -> _GonePage:
    """Raises 422 for a place that is none."""
    try:
        found = await deleted_rows.page(acting.services.engine, table, namespaces, model, after or None, limit + 1)
    except UnknownPlace:
        detail = "after: this is no `next` of a page of deleted ones; begin with the first page"
        raise Problem(422, "wrong-cursor", detail) from None
    shown = found.resources[:limit]
    return _GonePage(shown, found.total, _uid(shown[-1].body) if len(found.resources) > limit else None)


async def _training_sums(acting: Acting, namespace: str | None) -> TrainingSums:
    """With those whose FineTuneJob is gone, which only the tables know."""
    engine = acting.services.engine
    if acting.is_mirrored(JOBS):
        return await deleted_trainings.all_sums(engine, JOBS.plural, await acting.listable(JOBS, namespace))
    sums = TrainingSums()
    async with aclosing(acting.chunks(JOBS, namespace)) as chunks:
        async for chunk in chunks:
            for body in chunk:
                sums.add(facts_of(JOBS.plural, body))
    await deleted_trainings.add_to(sums, engine, await acting.listable(JOBS, namespace))
    return sums


async def _answer_sums(acting: Acting, namespace: str | None) -> AnswerSums:
    """With those whose ModelVersion is gone."""
    engine = acting.services.engine
    if acting.is_mirrored(VERSIONS):
        return await deleted_versions.all_sums(engine, VERSIONS.plural, await acting.listable(VERSIONS, namespace))
    sums = AnswerSums()
    async with aclosing(acting.chunks(VERSIONS, namespace)) as chunks:
        async for chunk in chunks:
            used = await usage.of_versions(engine, _uids(chunk))
            for body in chunk:
                sums.add(facts_of(VERSIONS.plural, body), used.get(body["metadata"]["uid"]))
    await deleted_versions.add_to(sums, engine, await acting.listable(VERSIONS, namespace))
    return sums


def _trainings(page: Page[Object], acting: Acting) -> TrainingCostList:
    now = acting.services.now()
    found = each_shown(lambda body: training_cost(body, now), page.items)
    return TrainingCostList(jobs=found, total=page.total, has_more=page.has_more, next=page.next)


def _versions(page: Page[Object], used: Mapping[str, usage.Used], prices: PriceBook) -> VersionCostList:
    found = each_shown(lambda body: version_cost(body, used.get(body["metadata"]["uid"]), prices), page.items)
    return VersionCostList(models=found, total=page.total, has_more=page.has_more, next=page.next)


async def roi(acting: Acting, version_id: str, test_id: str | None, given: Mapping[str, Decimal | None]) -> RoiReport:
    """Of one version; what is given goes before what was measured. Raises problems."""
    body = await acting.find(VERSIONS, version_id)
    version = parsed(ModelVersion, body)
    used = await usage.of_versions(acting.services.engine, _uids([body]))
    known = Evidence(
        version=version,
        job=await _job(acting, version),
        test=await _test(acting, version, test_id) if test_id else None,
        calls=calls_of(used.get(version.metadata.uid)),
    )
    found = currencies(known)
    if len(found) > 1 and given.get("training_cost") is None:
        detail = f"the training was paid in {found[0]} and answers in {found[1]}: say training_cost in {found[1]}"
        raise Problem(422, "two-currencies", detail)
    currency = found[0] if len(found) == 1 else _currency_of_answers(version)
    return roi_report(id_of(body), currency, with_given(measured_inputs(known), given))


def _currency_of_answers(version: ModelVersion) -> str | None:
    evaluation = version.status.evaluation
    return evaluation.cost_per_answer.currency if evaluation and evaluation.cost_per_answer else None


async def _job(acting: Acting, version: ModelVersion) -> FineTuneJob | None:
    """What made it, deleted or not, unless nobody told the api of it, or it is not for the caller."""
    lineage, namespace = version.spec.lineage, version.metadata.namespace
    if lineage.fine_tune_job is None or lineage.job_uid is None:
        return None
    try:
        body = await acting.get(JOBS, ObjectId(namespace, lineage.fine_tune_job))
        if body["metadata"]["uid"] == lineage.job_uid:
            return parsed(FineTuneJob, body)
    except Problem as problem:
        if problem.status == FORBIDDEN:
            return None
        if problem.status != NOT_FOUND:
            raise
    gone = await deleted_trainings.body_of(acting.services.engine, namespace, lineage.job_uid)
    return parsed(FineTuneJob, gone) if gone else None


async def _test(acting: Acting, version: ModelVersion, test_id: str) -> ABTest:
    body = await acting.find(TESTS, test_id)
    test, own = parsed(ABTest, body), version.metadata
    candidate = test.spec.candidate.model_version
    if test.metadata.namespace != own.namespace or candidate != own.name:
        detail = f"test: the candidate of ABTest {test.metadata.name} is {candidate}, not {own.name}"
        raise Problem(422, "other-candidate", detail)
    return test


def _uids(bodies: Iterable[Object]) -> list[str]:
    return [_uid(body) for body in bodies]


def _uid(body: Object) -> str:
    uid: str = body["metadata"]["uid"]
    return uid
