"""Pages of an ABTest: a new one, where it stands, and what to do with what came out."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Form, Query
from pydantic import ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.core.group_sequential import most_votes
from finetune_operator.core.routing import is_fresh_pin
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.resources.abtest import ABTest, ABTestSpec, TestPhase, Verdict
from finetune_operator.resources.modelversion import ModelVersion, State
from finetune_operator.store import vote_statistics, votes
from finetune_operator.web.abtest_requests import BASE, AbTestRequest, abtest_spec
from finetune_operator.web.abtest_routes import cancel_test
from finetune_operator.web.acting import TESTS
from finetune_operator.web.creation import create_once, digest_of, manifest
from finetune_operator.web.dashboard.changed_yaml import promotion_yaml
from finetune_operator.web.dashboard.charts import Curve
from finetune_operator.web.dashboard.commands import test_commands
from finetune_operator.web.dashboard.comparison_pages import PATH
from finetune_operator.web.dashboard.forms import mistakes_of
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.version_choices import find_version, newest_versions, options_of
from finetune_operator.web.dashboard.version_comparison import comparison, summary
from finetune_operator.web.dashboard.version_figures import Figures, figures_of, figures_of_base
from finetune_operator.web.dashboard.visits import Visit, VisitOf
from finetune_operator.web.dashboard.vote_progress import (
    Arms,
    ShownCurve,
    certainty,
    duel_of,
    judgement,
    judgement_by_feedback,
    vote_progress,
    win_rate_curve,
)
from finetune_operator.web.dashboard.voting import TestId
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Object
from finetune_operator.web.shown import shown_manifest

CURVE_MAX_POINTS = 500
PROMPTS_MAX_CHARACTERS = 200 * 4097
Source = Literal["prompts", "traffic"]

router = page_router(f"{PATH}/tests")


class NewTest:
    """The form's fields; texts become an `AbTestRequest`, which says what is wrong with them."""

    def __init__(
        self,
        candidate: Annotated[str, Form(max_length=317)],
        baseline: Annotated[str, Form(max_length=317)] = BASE,
        source: Annotated[Source, Form()] = "prompts",
        prompts: Annotated[str, Form(max_length=PROMPTS_MAX_CHARACTERS)] = "",
        candidate_percent: Annotated[str, Form(max_length=8)] = "20",
        min_votes: Annotated[str, Form(max_length=8)] = "",
        max_votes: Annotated[str, Form(max_length=8)] = "",
        min_effect: Annotated[str, Form(max_length=12)] = "",
        alpha: Annotated[str, Form(max_length=12)] = "",
        on_win: Annotated[str, Form(max_length=16)] = "",
        name: Annotated[str, Form(max_length=64)] = "",
    ) -> None:
        self.candidate = candidate
        self._flat: dict[str, Any] = {"baseline": baseline.partition(".")[2] or baseline, "name": name.strip()}
        self._flat |= {"min_votes": min_votes, "max_votes": max_votes, "min_effect": min_effect}
        self._flat |= {"alpha": alpha, "on_win": on_win}
        if source == "traffic":
            self._flat["candidate_percent"] = candidate_percent
        self._prompts = tuple(line.strip() for line in prompts.splitlines() if line.strip())

    def request(self, visit: Visit) -> AbTestRequest:
        """Raises 422 with what to change."""
        found = visit.acting.identified(self.candidate)
        defaults = AbTestRequest.model_fields
        said = {
            name: text.strip()
            for name, text in self._flat.items()
            if text.strip() and text.strip() != str(defaults[name].default)
        }
        said |= {"namespace": found.namespace, "candidate": found.name}
        try:
            request = AbTestRequest.model_validate_strings(said)
            return AbTestRequest.model_validate(
                request.model_dump(exclude_unset=True) | ({"test_prompts": self._prompts} if self._prompts else {})
            )
        except ValidationError as error:
            raise Problem(422, "invalid-request", mistakes_of(error)) from None


def path_of_test(found: ObjectId) -> str:
    return f"{PATH}/tests/{found}"


@router.get("/new")
async def new_test_page(
    visit: VisitOf,
    left: Annotated[str, Query(max_length=317)] = BASE,
    right: Annotated[str | None, Query(max_length=317)] = None,
) -> HTMLResponse:
    """The form, with defaults explained."""
    options = options_of(await newest_versions(visit.acting), right, None if left == BASE else left)
    candidate = right or (options[0][0] if options else "")
    name = candidate.partition(".")[2] or candidate
    opponent = BASE if left == BASE else left.rpartition("-")[2] or BASE
    return visit.render(
        "new_ab_test.html",
        options=options,
        left=left,
        right=candidate,
        name=f"{name[:30]}-{opponent[:8]}-{visit.services.suffix()}",
        defaults=AbTestRequest(candidate="any-v1"),
    )


@router.post("/preview")
async def preview(visit: VisitOf, form: Annotated[NewTest, Depends()]) -> HTMLResponse:
    """The ABTest that the form stands for, or what is wrong with it."""
    try:
        request = form.request(visit)
    except Problem as problem:
        return visit.render("fragments/manifest.html", mistake=problem.detail)
    body = _manifest(request)
    return visit.render("fragments/manifest.html", mistake=_lacking(body), yaml=yaml_text(body), file="abtest.yaml")


@router.post("")
async def create_test(visit: VisitOf, form: Annotated[NewTest, Depends()]) -> Response:
    """Make it. The form's name makes it once, however often it is sent."""
    return visit.go(path_of_test(await created_test(visit, form)))


@router.get("/{test_id}")
async def one_test_page(visit: VisitOf, test_id: TestId) -> HTMLResponse:
    """Where it stands; a fragment of the same is what changes while people vote."""
    found = visit.acting.identified(test_id)
    context = await context_of_test(visit, found)
    return visit.render("ab_test.html", **context)


@router.get("/{test_id}/state")
async def state_of_test(visit: VisitOf, test_id: TestId) -> HTMLResponse:
    """What changes of the page while it is open."""
    return visit.render(
        "fragments/ab_test_state.html", **await context_of_test(visit, visit.acting.identified(test_id))
    )


@router.get("/{test_id}/win-rates")
async def win_rates(visit: VisitOf, test_id: TestId, by: Literal["votes", "time"] = "votes") -> Curve:
    """For the chart."""
    test = await _test(visit, visit.acting.identified(test_id))
    engine, uid, decision = visit.services.engine, test.metadata.uid, test.spec.decision
    counted = (await votes.tally(engine, uid, most_votes(decision))).total
    points = await visit.services.remembered.answer(
        ("win rates", uid, most_votes(decision), CURVE_MAX_POINTS),
        counted,
        lambda: vote_statistics.win_rates(engine, uid, most_votes(decision), CURVE_MAX_POINTS),
    )
    return win_rate_curve(points, float(decision.alpha), by_time=by == "time")


@router.post("/{test_id}/cancel")
async def cancel(visit: VisitOf, test_id: TestId) -> Response:
    """End it before its verdict. Asking again changes nothing."""
    await cancel_test(visit.acting, test_id)
    return visit.go(path_of_test(visit.acting.identified(test_id)))


async def created_test(visit: Visit, form: NewTest) -> ObjectId:
    """Raises problems."""
    request = form.request(visit)
    body = _manifest(request, digest_of(request))
    if mistake := _lacking(body):
        raise Problem(422, "invalid-request", mistake)
    made = await create_once(visit.acting, TESTS, body)
    return ObjectId(made.body["metadata"]["namespace"], made.body["metadata"]["name"])


def _manifest(request: AbTestRequest, digest: str | None = None) -> Object:
    name = request.name or f"{request.candidate}-test"
    return manifest(TESTS.kind, request.namespace or "", name, abtest_spec(request), digest)


def _lacking(body: Object) -> str | None:
    """What would leave people with nothing to judge, or is refused by the API server anyway."""
    spec = ABTestSpec.model_validate(body["spec"])
    if not spec.prompts and not spec.traffic.any:
        return "write at least one question for both to answer, or choose production traffic"
    if spec.baseline.model_version == spec.candidate.model_version:
        return "choose two different models"
    if spec.baseline.model_version and not spec.baseline.model_version.startswith(f"{spec.model}-v"):
        return f"both must be versions of {spec.model}: choose another one to compare with"
    return None


async def _test(visit: Visit, found: ObjectId) -> ABTest:
    return parsed(ABTest, await visit.acting.get(TESTS, found))


async def context_of_test(visit: Visit, found: ObjectId) -> Object:
    """What the templates show of a test. Raises problems."""
    body = await visit.acting.get(TESTS, found)
    test = parsed(ABTest, body)
    decision, status = test.spec.decision, test.status
    engine = visit.services.engine
    standing = await votes.standing(engine, test.metadata.uid, most_votes(decision))
    counts = standing.votes
    candidate = await find_version(visit.acting, found.namespace, test.spec.candidate.model_version)
    baseline_name = test.spec.baseline.model_version
    baseline = await find_version(visit.acting, found.namespace, baseline_name) if baseline_name else None
    arms = Arms(
        baseline_name or (candidate.spec.base_model.name if candidate else BASE), test.spec.candidate.model_version
    )
    groups = comparison(
        _figures(baseline, candidate, arms.baseline, is_base=baseline_name is None),
        figures_of(candidate) if candidate else Figures(arms.candidate),
        duel_of(counts, float(decision.alpha)),
    )
    stands = (float(decision.alpha), status.phase, status.verdict, status.message)
    return {
        "found": found,
        "here": path_of_test(found),
        "test": test,
        "arms": arms,
        "counts": counts,
        "aside": [
            f"{number} {word}{'' if number == 1 else 's'}"
            for number, word in ((standing.second_opinions, "second opinion"), (standing.late_votes, "late vote"))
            if number
        ],
        "progress": vote_progress(counts, decision, status.verdict),
        "judgement": (
            judgement_by_feedback(arms, status.leader, *stands)
            if decision.by_feedback
            else judgement(arms, counts, *stands)
        ),
        "is_ending": test.spec.cancel and status.verdict is None,
        "is_running": status.phase is TestPhase.RUNNING,
        "is_won": status.verdict is Verdict.WON,
        "is_live": candidate is not None and candidate.status.state is State.DEPLOYED,
        "is_awaited": candidate is not None and is_fresh_pin(candidate),
        "candidate_id": str(ObjectId(found.namespace, arms.candidate)),
        "curve": ShownCurve(
            path_of_test(found), str(found), arms.candidate, certainty(float(decision.alpha)), linked=False
        ),
        "groups": groups,
        "summary": summary(groups),
        "left_title": arms.baseline,
        "right_title": arms.candidate,
        "left": BASE if baseline_name is None else str(ObjectId(found.namespace, baseline_name)),
        "right": str(ObjectId(found.namespace, arms.candidate)),
        "commands": test_commands(found, arms.candidate),
        "yaml": yaml_text(shown_manifest(TESTS.kind, body)),
        "promotion_yaml": promotion_yaml(ObjectId(found.namespace, arms.candidate)),
    }


def _figures(baseline: ModelVersion | None, candidate: ModelVersion | None, title: str, *, is_base: bool) -> Figures:
    if is_base:
        return figures_of_base(candidate) if candidate else Figures(title, is_base=True)
    return figures_of(baseline) if baseline else Figures(title)


PAGE = Page(router)
