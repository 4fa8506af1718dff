"""Public: blind comparisons, votes, and where an ABTest stands."""

import uuid
from dataclasses import asdict
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Path, Query

from finetune_operator.core.group_sequential import most_votes
from finetune_operator.core.sequential import p_value
from finetune_operator.resources.abtest import ABTest, Arm, Voters
from finetune_operator.store import feedback, vote_statistics, votes
from finetune_operator.store.experiment_tables import Comparison
from finetune_operator.store.keyset import Mark, beyond
from finetune_operator.store.vote_statistics import VoterMark
from finetune_operator.store.votes import Choice
from finetune_operator.web.acting import OWN, TESTS, Acting
from finetune_operator.web.auth import Caller, CallerOf, decide, require_caller, require_right
from finetune_operator.web.comparison_material import baseline_name, material_of
from finetune_operator.web.evaluators import evaluator_of
from finetune_operator.web.identity import READ_TESTS, VOTE
from finetune_operator.web.ids import NamespaceQuery, ObjectId
from finetune_operator.web.marks import MarkAfter, mark_of, marked, voter_mark_of
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.pages import Time
from finetune_operator.web.problems import Problem, documented
from finetune_operator.web.required_rights import READ_TEST, VOTE_THERE
from finetune_operator.web.schemas import (
    Answers,
    BlindComparison,
    ComparisonEntry,
    ComparisonList,
    ComparisonRequest,
    RatedAnswers,
    Side,
    Sides,
    Tally,
    TestState,
    VoterEntry,
    VoteRequest,
    VoteResult,
    VoterList,
    VoteWord,
    WinRatePoint,
    WinRateSeries,
)
from finetune_operator.web.services import Object, Services, ServicesOf
from finetune_operator.web.shown import shown_manifest

Namespace = Annotated[str, Path(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Name = Annotated[str, Path(pattern=r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$")]

PROBLEMS = documented(401, 403, 404, 422, 503)

router = APIRouter(prefix="/v1/fine-tuning", tags=["ab-test"], dependencies=[Depends(require_caller)])


@router.post(
    "/ab-test/{namespace}/{name}/comparisons",
    responses=documented(401, 403, 404, 409, 422, 502, 503),
    openapi_extra=VOTE_THERE,
)
async def create_comparison(
    services: ServicesOf, caller: CallerOf, namespace: Namespace, name: Name, request: ComparisonRequest
) -> BlindComparison:
    """Two answers to judge, without names. The evaluator's open comparison is returned until there is a vote on it."""
    test = await votable_test(services, caller, namespace, name)
    evaluator = evaluator_of(caller, request.evaluator)
    last = await votes.last_comparison(services.engine, test.metadata.uid, evaluator)
    if last is not None and last[1] is None:
        return _blind(last[0])
    number = last[0].number + 1 if last else 0
    material = await material_of(Acting(services, OWN), test, evaluator, number)
    stored = await votes.add_comparison(
        services.engine,
        Comparison(
            id=str(uuid.uuid4()),
            abtest_uid=test.metadata.uid,
            namespace=namespace,
            name=name,
            evaluator=evaluator,
            number=number,
            prompt=material.prompt,
            baseline_served_name=material.baseline_served_name,
            candidate_served_name=material.candidate_served_name,
            baseline_answer=material.baseline_answer,
            candidate_answer=material.candidate_answer,
            candidate_side="a" if services.coin() else "b",
            created_at=services.now(),
            pair_id=material.pair_id,
        ),
    )
    return _blind(stored)


@router.post(
    "/ab-test/{namespace}/{name}/vote", responses=documented(401, 403, 404, 409, 422, 503), openapi_extra=VOTE_THERE
)
async def vote(
    services: ServicesOf, caller: CallerOf, namespace: Namespace, name: Name, request: VoteRequest
) -> VoteResult:
    """One vote per comparison and evaluator; sending it again changes nothing, another one is a conflict.

    Of the votes on the same two answers the first one counts; the others are second opinions.
    """
    test = await votable_test(services, caller, namespace, name)
    evaluator = evaluator_of(caller, request.evaluator)
    comparison = await votes.find_comparison(services.engine, request.comparison_id)
    if comparison is None or comparison.abtest_uid != test.metadata.uid:
        raise Problem(404, "unknown-comparison", f"ABTest {name} has no comparison {request.comparison_id}")
    if comparison.evaluator != evaluator:
        detail = "this comparison was made for another evaluator; POST to .../comparisons to get your own"
        raise Problem(403, "foreign-comparison", detail)
    choice = _choice(request.vote, comparison)
    late = test.status.verdict is not None
    stored = await votes.cast_vote(services.engine, comparison, choice, late=late, now=services.now())
    if stored.choice != choice:
        detail = f"{evaluator} has already voted otherwise on this comparison; a vote can't be changed"
        raise Problem(409, "already-voted", detail)
    return VoteResult(
        comparison_id=comparison.id,
        vote=choice,
        late=stored.late,
        second_opinion=stored.second_opinion,
        sides=_sides(comparison),
        tally=Tally.of(await votes.tally(services.engine, test.metadata.uid, most_votes(test.spec.decision))),
    )


@router.get("/ab-test/{namespace}/{name}", responses=PROBLEMS, openapi_extra=READ_TEST)
async def get_test(services: ServicesOf, caller: CallerOf, namespace: Namespace, name: Name) -> TestState:
    """Where a test stands."""
    acting = Acting(services, caller)
    body = await _read_body(acting, namespace, name)
    test = parsed(ABTest, body)
    uid, status = test.metadata.uid, test.status
    rated = await feedback.by_arm(services.engine, uid)
    standing = await votes.standing(services.engine, uid, most_votes(test.spec.decision))
    return TestState(
        id=str(ObjectId(namespace, name)),
        namespace=namespace,
        name=name,
        uid=uid,
        phase=status.phase,
        message=status.message,
        baseline=await _readable_baseline_name(acting, test),
        candidate=test.spec.candidate.model_version,
        verdict=status.verdict,
        method=test.spec.decision.method,
        p_value=status.p_value,
        chi_squared_p_value=status.chi_squared_p_value,
        candidate_score=status.arms.candidate.score if status.arms else None,
        baseline_score=status.arms.baseline.score if status.arms else None,
        leader=status.leader,
        votes_still_needed=status.votes_still_needed,
        preference_lower=status.votes.preference_lower if status.votes else None,
        preference_upper=status.votes.preference_upper if status.votes else None,
        error_rates_p_value=status.arms.error_rates_p_value if status.arms else None,
        sample_ratio_p_value=status.arms.sample_ratio_p_value if status.arms else None,
        tally=Tally.of(standing.votes),
        late_votes=standing.late_votes,
        second_opinions=standing.second_opinions,
        comparisons=standing.comparisons,
        feedback={Arm(arm): RatedAnswers(**asdict(ratings)) for arm, ratings in rated.items()},
        manifest=shown_manifest(TESTS.kind, body),
    )


@router.get("/ab-test/{namespace}/{name}/voters", responses=PROBLEMS, openapi_extra=READ_TEST)
async def get_voters(
    services: ServicesOf,
    caller: CallerOf,
    namespace: Namespace,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: MarkAfter = None,
) -> VoterList:
    """Whose votes they are, and how well people agree: of many votes unknown until that has been worked out."""
    mark = voter_mark_of(after)
    test = await _read_test(Acting(services, caller), namespace, name)
    told = test.status.voters or Voters()
    uid, max_votes = test.metadata.uid, most_votes(test.spec.decision)
    given = (await votes.standing(services.engine, uid, max_votes)).opinions
    found = await services.remembered.answer(
        ("voters", uid, max_votes, limit, mark),
        given,
        lambda: vote_statistics.voters(services.engine, uid, max_votes, limit + 1, mark),
        meanwhile=lambda: vote_statistics.heaviest_voters(services.engine, uid, limit + 1, mark),
    )
    page = marked(found.heaviest, limit, lambda voter: VoterMark(voter.votes.total, voter.evaluator))
    return VoterList(
        evaluators=found.evaluators,
        agreement=found.agreement,
        leader_without_heaviest=told.leader_without_heaviest,
        p_value_without_heaviest=told.p_value_without_heaviest,
        voters=tuple(
            VoterEntry(evaluator=voter.evaluator, tally=Tally.of(voter.votes), agreement=voter.agreement)
            for voter in page.rows
        ),
        has_more=page.has_more,
        next=page.next,
    )


@router.get("/ab-test/{namespace}/{name}/win-rates", responses=PROBLEMS, openapi_extra=READ_TEST)
async def get_win_rates(
    services: ServicesOf,
    caller: CallerOf,
    namespace: Namespace,
    name: Name,
    max_points: Annotated[int, Query(ge=2, le=10_000)] = 1000,
) -> WinRateSeries:
    """The win rate after each vote; of more votes than `max_points` evenly thinned."""
    test = await _read_test(Acting(services, caller), namespace, name)
    uid, max_votes = test.metadata.uid, most_votes(test.spec.decision)
    counted = (await votes.tally(services.engine, uid, max_votes)).total
    points = await services.remembered.answer(
        ("win rates", uid, max_votes, max_points),
        counted,
        lambda: vote_statistics.win_rates(services.engine, uid, max_votes, max_points),
    )
    return WinRateSeries(
        points=tuple(
            WinRatePoint(time=point.time, tally=Tally.of(point.votes), p_value=p_value(point.votes)) for point in points
        )
    )


@router.get("/comparisons", responses=PROBLEMS, openapi_extra=READ_TEST)
async def get_comparisons(
    services: ServicesOf,
    caller: CallerOf,
    namespace: NamespaceQuery = None,
    name: str | None = None,
    before: Time | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: MarkAfter = None,
) -> ComparisonList:
    """Comparisons, the newest first; those without a vote stay blind. `after` is the `next` of the page before."""
    conditions = [] if name is None else [Comparison.name == name]
    if before is not None:
        conditions.append(Comparison.created_at < before)
    if (mark := mark_of(after)) is not None:
        conditions.append(beyond(Comparison.created_at, Comparison.id, mark))
    readable = await _readable_namespaces(services, caller, namespace)
    if namespace is not None:
        readable = (namespace,) if readable is None or namespace in readable else ()
    found = await votes.list_comparisons(services.engine, conditions, limit + 1, readable)
    page = marked(found, limit, lambda row: Mark(row[0].created_at, row[0].id))
    return ComparisonList(
        comparisons=tuple(
            ComparisonEntry(
                comparison_id=comparison.id,
                namespace=comparison.namespace,
                name=comparison.name,
                evaluator=comparison.evaluator,
                prompt=comparison.prompt,
                answers=_answers(comparison),
                created_at=comparison.created_at,
                vote=Choice(cast.choice) if cast else None,
                late=cast.late if cast else None,
                second_opinion=cast.second_opinion if cast else None,
                sides=_sides(comparison) if cast else None,
            )
            for comparison, cast in page.rows
        ),
        has_more=page.has_more,
        next=page.next,
    )


class Judged(NamedTuple):
    """A comparison on which its evaluator has voted, so that it is blind no more."""

    comparison: BlindComparison
    vote: Choice
    late: bool
    second_opinion: bool
    sides: Sides


async def judged(
    services: Services, caller: Caller, identity: ObjectId, comparison_id: str, said: str | None
) -> Judged | None:
    """The evaluator's own comparison; None where it is another's or open. Raises problems."""
    test = await votable_test(services, caller, *identity)
    own = (
        Comparison.id == comparison_id,
        Comparison.abtest_uid == test.metadata.uid,
        Comparison.evaluator == evaluator_of(caller, said),
    )
    for comparison, cast in await votes.list_comparisons(services.engine, own, 1):
        if cast is not None:
            return Judged(_blind(comparison), Choice(cast.choice), cast.late, cast.second_opinion, _sides(comparison))
    return None


async def _read_test(acting: Acting, namespace: str, name: str) -> ABTest:
    """To be shown."""
    return parsed(ABTest, await _read_body(acting, namespace, name))


async def _read_body(acting: Acting, namespace: str, name: str) -> Object:
    acting.require_served(namespace)
    return await acting.get(TESTS, ObjectId(namespace, name))


async def votable_test(services: Services, caller: Caller, namespace: str, name: str) -> ABTest:
    """One whose answers the caller may judge, which also costs what the engines take.

    Who may only vote needs no right to read.
    """
    acting = Acting(services, OWN)
    acting.require_served(namespace)
    await require_right(services, caller, VOTE, namespace)
    return ABTest.parse(await _read_body(acting, namespace, name))


async def _readable_namespaces(services: Services, caller: Caller, namespace: str | None) -> tuple[str, ...] | None:
    """Whose comparisons the caller may read, None for all; 403 where that is nothing."""
    served = services.settings.namespaces
    if caller.token is None:
        return served or None
    if namespace is not None:
        Acting(services, caller).require_served(namespace)
        await require_right(services, caller, READ_TESTS, namespace)
        return (namespace,)
    if not served:
        await require_right(services, caller, READ_TESTS, None)
        return None
    readable = tuple([each for each in served if (await decide(services, caller, READ_TESTS, each)).allowed])
    if not readable:
        await require_right(services, caller, READ_TESTS, served[0])
    return readable


async def _readable_baseline_name(acting: Acting, test: ABTest) -> str | None:
    """None, too, for who may read ABTests and not ModelVersions."""
    try:
        return await baseline_name(acting, test)
    except Problem as problem:
        if problem.status != 403:
            raise
        return None


def _choice(word: VoteWord, comparison: Comparison) -> Choice:
    if word in (VoteWord.A, VoteWord.B):
        return Choice.FINE_TUNED if word == comparison.candidate_side else Choice.BASE
    return Choice(word)


def _answers(comparison: Comparison) -> Answers:
    if comparison.candidate_side == "a":
        return Answers(a=comparison.candidate_answer, b=comparison.baseline_answer)
    return Answers(a=comparison.baseline_answer, b=comparison.candidate_answer)


def _blind(comparison: Comparison) -> BlindComparison:
    return BlindComparison(comparison_id=comparison.id, prompt=comparison.prompt, answers=_answers(comparison))


def _sides(comparison: Comparison) -> Sides:
    candidate = Side(arm=Choice.FINE_TUNED, served_name=comparison.candidate_served_name)
    baseline = Side(arm=Choice.BASE, served_name=comparison.baseline_served_name)
    return Sides(a=candidate, b=baseline) if comparison.candidate_side == "a" else Sides(a=baseline, b=candidate)
