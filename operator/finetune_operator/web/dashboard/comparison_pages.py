"""Page: two models side by side, and all tests that people vote on."""

from functools import partial
from typing import Annotated, NamedTuple

from fastapi import Form, Query
from starlette.responses import HTMLResponse, Response

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.core.routing import active_version
from finetune_operator.resources.abtest import ABTest, TestPhase
from finetune_operator.resources.modelversion import ModelVersion, State
from finetune_operator.web import versions
from finetune_operator.web.abtest_requests import BASE
from finetune_operator.web.acting import TESTS, VERSIONS
from finetune_operator.web.dashboard.policy import safe_path
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.version_comparison import Duel, comparison, summary
from finetune_operator.web.dashboard.version_figures import Figures, figures_of, figures_of_base
from finetune_operator.web.dashboard.visits import NavEntry, VisitOf
from finetune_operator.web.dashboard.vote_progress import duel_of, mirrored
from finetune_operator.web.ids import ObjectId
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
async def comparison_page(visit: VisitOf, left: Side = None, right: Side = None) -> HTMLResponse:
    """Two models side by side: those that were asked for, else the newest version and what it is to replace."""
    bodies = await visit.acting.every(VERSIONS)
    tests = list(each_shown(partial(parsed, ABTest), await visit.acting.every(TESTS)))
    versions = each_shown(partial(parsed, ModelVersion), bodies)
    known = {id_of(version): version for version in sorted(versions, key=_age, reverse=True)}
    pair = _chosen(known, tests, left, right)
    newest_tests = sorted(tests, key=lambda test: test.metadata.creation_timestamp or visit.services.now())[::-1]
    context: Object = {
        "version_options": [(str(found), _named(version, found)) for found, version in known.items()],
        "tests": tuple(map(_row, newest_tests[:LISTED_TESTS])),
        "more_tests": max(0, len(tests) - LISTED_TESTS),
        "pair": pair,
    }
    if pair is not None:
        groups = comparison(_left(pair), figures_of(pair.right), _duel(pair, newest_tests))
        context |= {
            "left": BASE if pair.left is None else str(id_of(pair.left)),
            "right": str(id_of(pair.right)),
            "left_title": _left(pair).title,
            "right_title": pair.right.metadata.name,
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


def id_of(version: ModelVersion) -> ObjectId:
    return ObjectId(version.metadata.namespace, version.metadata.name)


def _age(version: ModelVersion) -> tuple[str, int]:
    created = version.metadata.creation_timestamp
    return (created.isoformat() if created else "", version.spec.version)


def _named(version: ModelVersion, found: ObjectId) -> str:
    state = f", {version.status.state.value.lower()}" if version.status.state else ""
    return f"{found.name} ({found.namespace}{state})"


def _left(pair: Pair) -> Figures:
    return figures_of_base(pair.right) if pair.left is None else figures_of(pair.left)


def _chosen(
    known: dict[ObjectId, ModelVersion], tests: list[ABTest], left: str | None, right: str | None
) -> Pair | None:
    """Raises 404 for a version that is not there."""
    by_id = {str(found): version for found, version in known.items()}
    for asked in (left, right):
        if asked and asked != BASE and asked not in by_id:
            raise Problem(404, "unknown-model-version", f"there is no ModelVersion {asked}; choose another one")
    if right == BASE:
        left, right = BASE, left
    if right and right != BASE:
        version = by_id[right]
        if left:
            return Pair(None if left == BASE else by_id[left], version)
        return Pair(_predecessor(known, version), version)
    running = next((test for test in tests if test.status.phase is TestPhase.RUNNING), None)
    if running is not None and (pair := _arms(known, running)):
        return pair
    working = (version for version in known.values() if version.status.state is not State.FAILED)
    newest = next(working, next(iter(known.values()), None))
    return Pair(_predecessor(known, newest), newest) if newest else None


def _predecessor(known: dict[ObjectId, ModelVersion], version: ModelVersion) -> ModelVersion | None:
    """What this version is to replace: the active one, else the one before, else the base model."""
    place = (version.metadata.namespace, version.spec.model)
    family = [
        each
        for each in known.values()
        if (each.metadata.namespace, each.spec.model) == place and each.spec.version != version.spec.version
    ]
    older = [each for each in family if each.spec.version < version.spec.version]
    return active_version(family) or max(older, key=lambda each: each.spec.version, default=None)


def _arms(known: dict[ObjectId, ModelVersion], test: ABTest) -> Pair | None:
    """None where one of them is gone, or not for this caller."""
    namespace, baseline = test.metadata.namespace, test.spec.baseline.model_version
    right = known.get(ObjectId(namespace, test.spec.candidate.model_version))
    left = known.get(ObjectId(namespace, baseline)) if baseline else None
    return Pair(left, right) if right and (left or baseline is None) else None


def _duel(pair: Pair, tests: list[ABTest]) -> Duel | None:
    """Of the newest test on exactly these two, whichever of them was the candidate."""
    right = pair.right.metadata
    left_name = pair.left.metadata.name if pair.left else None
    if pair.left and pair.left.metadata.namespace != right.namespace:
        return None
    for test in tests:
        if test.metadata.namespace != right.namespace or test.status.votes is None:
            continue
        arms = (test.spec.baseline.model_version, test.spec.candidate.model_version)
        found = duel_of(_counts(test), float(test.spec.decision.alpha))
        if arms == (left_name, right.name):
            return found
        if arms == (right.name, left_name):
            return mirrored(found) if found else None
    return None


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
