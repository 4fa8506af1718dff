"""Page: two models side by side, and all tests that people vote on."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, NamedTuple

from fastapi import Form, Query
from starlette.responses import HTMLResponse, Response

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.core.routing import active_version
from finetune_operator.resources.abtest import ABTest, TestPhase
from finetune_operator.resources.modelversion import ModelVersion, State
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web import versions
from finetune_operator.web.abtest_requests import BASE
from finetune_operator.web.acting import TESTS, VERSIONS, Acting
from finetune_operator.web.dashboard.policy import safe_path
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.version_choices import find_version, id_of, newest_tests, newest_versions
from finetune_operator.web.dashboard.version_comparison import Duel, comparison, summary
from finetune_operator.web.dashboard.version_figures import Figures, figures_of, figures_of_base
from finetune_operator.web.dashboard.visits import NavEntry, VisitOf
from finetune_operator.web.dashboard.vote_progress import ShownCurve, certainty, duel_of, mirrored
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_routes import After
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Object
from finetune_operator.web.version_views import DeployRequest, RollbackRequest

PATH = "/model-comparison"
LISTED_TESTS = 50

Side = Annotated[str | None, Query(max_length=317, pattern=r"^[-.a-z0-9]*$")]
FormId = Annotated[str, Form(max_length=317, pattern=r"^[-.a-z0-9]+$")]
NextPath = Annotated[str | None, Form(alias="next", max_length=1024)]

router = page_router(PATH)


class TestRow(NamedTuple):
    """An ABTest in a list."""

    id: str
    baseline: str
    candidate: str
    phase: TestPhase | None
    verdict: str | None
    votes: int
    win_rate: float | None


class Pair(NamedTuple):
    """Whom to compare; `left` is None for the base model."""

    left: ModelVersion | None
    right: ModelVersion


@router.get("")
async def comparison_page(visit: VisitOf, left: Side = None, right: Side = None, after: After = None) -> HTMLResponse:
    """Two models side by side: those that were asked for, else the newest version and what it is to replace."""
    known = await newest_versions(visit.acting)
    tests = await visit.acting.page(TESTS, None, LISTED_TESTS, after, Wanted(TESTS.plural))
    pair = await _chosen(visit.acting, known, left, right)
    shown = {id_of(version): version for version in (*known, *((pair.left, pair.right) if pair else ())) if version}
    context: Object = {
        "version_options": [(str(found), _named(version, found)) for found, version in shown.items()],
        "tests": each_shown(lambda body: _row(parsed(ABTest, body)), tests.items),
        "tests_total": tests.total,
        "older_tests": tests.next,
        "after": after,
        "pair": pair,
    }
    if pair is not None:
        test = await _test_between(visit.acting, pair)
        groups = comparison(_left(pair), figures_of(pair.right), _duel(test, pair) if test else None)
        context |= {
            "left": BASE if pair.left is None else str(id_of(pair.left)),
            "right": str(id_of(pair.right)),
            "left_title": _left(pair).title,
            "right_title": pair.right.metadata.name,
            "curve": _curve(test) if test else None,
            "groups": groups,
            "summary": summary(groups),
            "testable": pair.left is None
            or (pair.left.metadata.namespace, pair.left.spec.model)
            == (pair.right.metadata.namespace, pair.right.spec.model),
        }
    return visit.render("model_comparison.html", **context)


@router.post("/deploy")
async def deploy(visit: VisitOf, version: FormId, next_path: NextPath = None) -> Response:
    """Have the model's name stand for this version."""
    await versions.post_deploy(visit.services, visit.caller, version, DeployRequest())
    return visit.go(safe_path(next_path))


@router.post("/rollback")
async def roll_back(visit: VisitOf, version: FormId, next_path: NextPath = None) -> Response:
    """Have the version answer again that did before this one."""
    await versions.post_rollback(visit.services, visit.caller, version, RollbackRequest())
    return visit.go(safe_path(next_path))


def _named(version: ModelVersion, found: ObjectId) -> str:
    state = f", {version.status.state.value.lower()}" if version.status.state else ""
    return f"{found.name} ({found.namespace}{state})"


def _left(pair: Pair) -> Figures:
    return figures_of_base(pair.right) if pair.left is None else figures_of(pair.left)


async def _chosen(acting: Acting, known: Sequence[ModelVersion], left: str | None, right: str | None) -> Pair | None:
    """Raises 404 for a version that is not there."""
    if right == BASE:
        left, right = BASE, left
    asked_left, version = [await _asked(acting, text) for text in (left, right)]
    if version is not None:
        return Pair(asked_left if left else await _predecessor(acting, version), version)
    running = await acting.page(TESTS, None, 1, None, Wanted(TESTS.plural, states=(TestPhase.RUNNING.value,)))
    for body in running.items:
        if pair := await _arms(acting, parsed(ABTest, body)):
            return pair
    working = (version for version in known if version.status.state is not State.FAILED)
    newest = next(working, next(iter(known), None))
    return Pair(await _predecessor(acting, newest), newest) if newest else None


async def _asked(acting: Acting, text: str | None) -> ModelVersion | None:
    """None of the base model, and where none is asked for."""
    if not text or text == BASE:
        return None
    found = acting.identified(text)
    version = await find_version(acting, *found)
    if version is None:
        raise Problem(404, "unknown-model-version", f"there is no ModelVersion {found}; choose another one")
    return version


async def _predecessor(acting: Acting, version: ModelVersion) -> ModelVersion | None:
    """What this version is to replace: the active one, else the one before, else the base model."""
    found, model = id_of(version), version.spec.model
    read = partial(parsed, ModelVersion)
    answering = each_shown(read, await versions.answering(acting, found.namespace, model))
    active = active_version(each for each in answering if id_of(each) != found)
    if active is not None:
        return active
    before = await acting.page(VERSIONS, found.namespace, 1, str(found), Wanted(VERSIONS.plural, model=model))
    return next(iter(each_shown(read, before.items)), None)


async def _arms(acting: Acting, test: ABTest) -> Pair | None:
    """None where one of them is gone, or not for this caller."""
    named = (test.spec.candidate.model_version, test.spec.baseline.model_version)
    right, left = [await find_version(acting, test.metadata.namespace, name) if name else None for name in named]
    return Pair(left, right) if right and (left or named[1] is None) else None


async def _test_between(acting: Acting, pair: Pair) -> ABTest | None:
    """The newest on exactly these two, whichever of them was the candidate, with votes if one of them has some."""
    right = pair.right.metadata
    left_name = pair.left.metadata.name if pair.left else None
    if pair.left and pair.left.metadata.namespace != right.namespace:
        return None
    between = [
        test
        for test in await newest_tests(acting, right.namespace, pair.right.spec.model)
        if {test.spec.baseline.model_version, test.spec.candidate.model_version} == {left_name, right.name}
    ]
    return next((test for test in between if _counts(test).total), next(iter(between), None))


def _duel(test: ABTest, pair: Pair) -> Duel | None:
    """None before the first vote."""
    found = duel_of(_counts(test), float(test.spec.decision.alpha))
    return found if found is None or test.spec.candidate.model_version == pair.right.metadata.name else mirrored(found)


def _curve(test: ABTest) -> ShownCurve:
    found = ObjectId(test.metadata.namespace, test.metadata.name)
    alpha = float(test.spec.decision.alpha)
    candidate = test.spec.candidate.model_version
    return ShownCurve(f"{PATH}/tests/{found}", str(found), candidate, certainty(alpha), linked=True)


def _counts(test: ABTest) -> VoteCounts:
    told = test.status.votes
    return VoteCounts(fine_tuned=told.fine_tuned, base=told.base, tie=told.tie) if told else VoteCounts()


def _row(test: ABTest) -> TestRow:
    counts = _counts(test)
    return TestRow(
        id=str(ObjectId(test.metadata.namespace, test.metadata.name)),
        baseline=test.spec.baseline.model_version or BASE,
        candidate=test.spec.candidate.model_version,
        phase=test.status.phase,
        verdict=test.status.verdict,
        votes=counts.total,
        win_rate=counts.win_rate,
    )


PAGE = Page(router, NavEntry("Comparison", PATH, 20))
