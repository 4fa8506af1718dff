"""Page: blind voting on an ABTest, by the same functions as REST, for people with nothing but a keyboard or a phone.

Nothing is kept in the browser: the evaluator's open pair is in the database until there is a vote on it, so that a
reload and a second tab show the same one, and a vote that is sent twice counts once.
"""

from typing import Annotated, NamedTuple
from urllib.parse import quote, unquote

from fastapi import Form, Path, Query
from pydantic import TypeAdapter, ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.core.group_sequential import most_votes
from finetune_operator.resources.abtest import ABTest
from finetune_operator.store import votes
from finetune_operator.store.votes import Choice
from finetune_operator.web import abtests
from finetune_operator.web.abtests import Judged
from finetune_operator.web.auth import ANYBODY
from finetune_operator.web.dashboard.policy import is_secure
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import Visit, VisitOf, is_fragment
from finetune_operator.web.dashboard.vote_progress import VoteProgress, vote_progress
from finetune_operator.web.ids import ID_PATTERN, ObjectId
from finetune_operator.web.problems import Problem
from finetune_operator.web.schemas import BlindComparison, ComparisonRequest, Evaluator, VoteRequest, VoteWord

COOKIE = "finetune_evaluator"
COOKIE_SECONDS = 365 * 86_400
ALREADY_VOTED = "already-voted"
ENOUGH_NAME = "a name needs 1 to 128 characters that can be seen, and none of them may be a line break"
NAMES: TypeAdapter[str] = TypeAdapter(Evaluator)

TestId = Annotated[str, Path(max_length=317, pattern=ID_PATTERN)]
ComparisonId = Annotated[str, Form(min_length=1, max_length=36, pattern=r"^[-0-9a-f]+$")]
Seen = Annotated[str | None, Query(max_length=36, pattern=r"^[-0-9a-f]+$")]

router = page_router("/model-comparison/tests")


class Ballot(NamedTuple):
    """One way to vote; `keys` are KeyboardEvent.key, `shown` is how people call them."""

    word: VoteWord
    text: str
    keys: str
    shown: str


BALLOTS = (
    Ballot(VoteWord.A, "Left is better", "1 ArrowLeft", "1 or ←"),
    Ballot(VoteWord.B, "Right is better", "2 ArrowRight", "2 or →"),
    Ballot(VoteWord.TIE, "Equally good", "3 ArrowDown", "3 or ↓"),
    Ballot(VoteWord.BOTH_BAD, "Both are bad", "4 x", "4 or x"),
)
SAID = {
    Choice.TIE: "You called it a tie.",
    Choice.BOTH_BAD: "You called both bad.",
}


def vote_path(found: ObjectId) -> str:
    return f"/model-comparison/tests/{found}/vote"


@router.get("/{test_id}/vote")
async def vote_page(visit: VisitOf, test_id: TestId, seen: Seen = None) -> Response:
    """The pair that is open, a question for a name where nobody knows who judges, or what a vote has revealed."""
    found = visit.acting.identified(test_id)
    test = await abtests.votable_test(visit.services, visit.caller, *found)
    name = _evaluator(visit)
    if visit.caller.token is None and name is None:
        return visit.render("vote_name.html", found=found, here=vote_path(found), mistake=None)
    revealed = await abtests.judged(visit.services, visit.caller, found, seen, name) if seen else None
    return await _page(visit, found, test, "revealed" if revealed else "waiting", judged=revealed)


@router.post("/{test_id}/vote/name")
async def say_who(visit: VisitOf, test_id: TestId, name: Annotated[str, Form(max_length=1000)] = "") -> Response:
    """Remember, in this browser, who judges: of whom the api's token or an open api tells nothing."""
    found = visit.acting.identified(test_id)
    try:
        evaluator = NAMES.validate_python(name.strip())
    except ValidationError:
        return visit.render("vote_name.html", 422, found=found, here=vote_path(found), mistake=ENOUGH_NAME)
    response = visit.go(vote_path(found))
    request = visit.request
    response.set_cookie(
        COOKIE,
        quote(evaluator),
        max_age=COOKIE_SECONDS,
        path="/model-comparison",
        httponly=True,
        samesite="strict",
        secure=is_secure(request.url.scheme, request.headers),
    )
    return response


@router.post("/{test_id}/vote/pair")
async def show_pair(visit: VisitOf, test_id: TestId) -> Response:
    """Two answers to judge. Both models may have to be asked for them, which takes as long as they take."""
    found = visit.acting.identified(test_id)
    asked = ComparisonRequest(evaluator=_evaluator(visit))
    pair = await abtests.create_comparison(visit.services, visit.caller, *found, asked)
    test = await abtests.votable_test(visit.services, visit.caller, *found)
    return await _page(visit, found, test, "pair", pair=pair)


@router.post("/{test_id}/vote/cast")
async def cast(
    visit: VisitOf, test_id: TestId, comparison_id: ComparisonId, vote: Annotated[VoteWord, Form()]
) -> Response:
    """The first vote counts. Another one, of a second tab, is told which one that was."""
    found = visit.acting.identified(test_id)
    name = _evaluator(visit)
    request = VoteRequest(comparison_id=comparison_id, evaluator=name, vote=vote)
    is_second = False
    try:
        await abtests.vote(visit.services, visit.caller, *found, request)
    except Problem as problem:
        if problem.kind != ALREADY_VOTED:
            raise
        is_second = True
    if not is_fragment(visit.request):
        return visit.go(f"{vote_path(found)}?seen={comparison_id}")
    test = await abtests.votable_test(visit.services, visit.caller, *found)
    revealed = await abtests.judged(visit.services, visit.caller, found, comparison_id, name)
    return await _page(visit, found, test, "revealed", judged=revealed, is_second=is_second)


async def _page(
    visit: Visit,
    found: ObjectId,
    test: ABTest,
    stage: str,
    *,
    pair: BlindComparison | None = None,
    judged: Judged | None = None,
    is_second: bool = False,
) -> HTMLResponse:
    """The whole page, or the booth alone where htmx asks."""
    template = "fragments/booth.html" if is_fragment(visit.request) else "vote.html"
    return visit.render(
        template,
        found=found,
        here=vote_path(found),
        model=test.spec.model,
        stage=stage,
        pair=pair or (judged.comparison if judged else None),
        judged=judged,
        said=_said(judged) if judged else "",
        is_second=is_second,
        verdict=test.status.verdict,
        progress=await _progress(visit, test),
        ballots=BALLOTS,
        evaluator=visit.caller.name if visit.caller.token else _evaluator(visit),
        is_nobody=visit.caller.name == ANYBODY,
    )


async def _progress(visit: Visit, test: ABTest) -> VoteProgress:
    counts = await votes.tally(visit.services.engine, test.metadata.uid, most_votes(test.spec.decision))
    return vote_progress(counts, test.spec.decision, test.status.verdict)


def _said(judged: Judged) -> str:
    """What the vote was, by the names that it has revealed."""
    if judged.vote in SAID:
        return SAID[judged.vote]
    sides = judged.sides
    chosen = sides.a if sides.a.arm == judged.vote else sides.b
    return f"You preferred {chosen.served_name}."


def _evaluator(visit: Visit) -> str | None:
    """None for who has a Kubernetes user's name, and for who has told none yet."""
    if visit.caller.token is not None:
        return None
    kept = visit.request.cookies.get(COOKIE)
    if not kept:
        return None
    try:
        return NAMES.validate_python(unquote(kept))
    except ValidationError:
        return None


PAGE = Page(router)
