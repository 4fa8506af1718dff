"""Public: ABTests, made and listed in the caller's name, and all that one can do with one by its id."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from finetune_operator.resources.abtest import Arm, TestPhase
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web import abtests
from finetune_operator.web.abtest_requests import (
    AbTestDetail,
    AbTestList,
    AbTestRequest,
    abtest_detail,
    abtest_entry,
    abtest_spec,
)
from finetune_operator.web.abtest_samples import SampleList, samples_of
from finetune_operator.web.acting import TESTS, Acting
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.creation import (
    IdempotencyKey,
    answered,
    create_once,
    digest_of,
    manifest,
    name_from_key,
    require_one_name,
)
from finetune_operator.web.ids import ID_PATTERN, NamespaceQuery
from finetune_operator.web.job_routes import CHANGING, READING, After
from finetune_operator.web.marks import MarkAfter
from finetune_operator.web.odd_resources import each_shown
from finetune_operator.web.pages import Time
from finetune_operator.web.problems import Problem, documented
from finetune_operator.web.required_rights import (
    CHANGE_TEST,
    LIST_TESTS,
    MAKE_TEST,
    READ_SAMPLES,
    READ_TEST,
    VOTE_THERE,
)
from finetune_operator.web.schemas import (
    BlindComparison,
    ComparisonList,
    ComparisonRequest,
    TestState,
    VoteRequest,
    VoteResult,
    VoterList,
    WinRateSeries,
)
from finetune_operator.web.services import Object, Services, ServicesOf

TESTS_PATH = "/v1/fine-tuning/ab-test"
NAME_PREFIX = "test"


TestId = Annotated[str, Path(max_length=317, pattern=ID_PATTERN, description="`<namespace>.<name>` of an ABTest")]
CREATING: dict[int | str, dict[str, Any]] = {
    200: {"model": AbTestDetail, "description": "What this Idempotency-Key has made before"},
    201: {"description": "The ABTest was made", "headers": {"Location": {"schema": {"type": "string"}}}},
    **CHANGING,
}


router = APIRouter(prefix=TESTS_PATH, tags=["ab-test"], dependencies=[Depends(require_caller)])


@router.post("", status_code=201, responses=CREATING, openapi_extra=MAKE_TEST)
async def post_test(
    services: ServicesOf,
    caller: CallerOf,
    request: AbTestRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> AbTestDetail:
    """Compare two models. Sent again with the same `Idempotency-Key`, it answers with the same test."""
    acting = Acting(services, caller)
    namespace = acting.place_to_make(request.namespace)
    require_one_name(request.name, idempotency_key)
    spec = abtest_spec(request)
    if idempotency_key is not None:
        made_up = name_from_key(NAME_PREFIX, TESTS_PATH, namespace, caller.name, idempotency_key)
    else:
        made_up = f"{NAME_PREFIX}-{services.suffix()}"
    digest = digest_of(request) if idempotency_key else None
    made = await create_once(acting, TESTS, manifest(TESTS.kind, namespace, request.name or made_up, spec, digest))
    detail = abtest_detail(made.body)
    answered(response, f"{TESTS_PATH}/{detail.id}", made)
    return detail


@router.get("", responses=READING, openapi_extra=LIST_TESTS)
async def get_tests(
    services: ServicesOf,
    caller: CallerOf,
    namespace: NamespaceQuery = None,
    model: str | None = None,
    phase: TestPhase | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: After = None,
) -> AbTestList:
    """ABTests, the newest first, of all namespaces that the caller may read."""
    wanted = Wanted(TESTS.plural, model=model, states=(phase.value,) if phase else ())
    page = await Acting(services, caller).page(TESTS, namespace, limit, after, wanted)
    tests = each_shown(abtest_entry, page.items)
    return AbTestList(tests=tests, total=page.total, has_more=page.has_more, next=page.next)


@router.get("/{test_id}", responses=READING, openapi_extra=READ_TEST)
async def get_one_test(services: ServicesOf, caller: CallerOf, test_id: TestId) -> TestState:
    """Where a test stands."""
    return await abtests.get_test(services, caller, *Acting(services, caller).identified(test_id))


@router.post(
    "/{test_id}/comparisons", responses=documented(401, 403, 404, 409, 422, 502, 503), openapi_extra=VOTE_THERE
)
async def post_comparison(
    services: ServicesOf, caller: CallerOf, test_id: TestId, request: ComparisonRequest
) -> BlindComparison:
    """Two answers to judge, without names. The evaluator's open comparison is returned until there is a vote on it."""
    namespace, name = Acting(services, caller).identified(test_id)
    return await abtests.create_comparison(services, caller, namespace, name, request)


@router.post("/{test_id}/cancel", responses=CHANGING, openapi_extra=CHANGE_TEST)
async def post_test_cancel(services: ServicesOf, caller: CallerOf, test_id: TestId) -> AbTestDetail:
    """End it for good before its verdict; the votes are kept. Asking again changes nothing."""
    return abtest_detail(await cancel_test(Acting(services, caller), test_id))


@router.post("/{test_id}/vote", responses=CHANGING, openapi_extra=VOTE_THERE)
async def post_vote(services: ServicesOf, caller: CallerOf, test_id: TestId, request: VoteRequest) -> VoteResult:
    """One vote per comparison and evaluator; sending it again changes nothing, another one is a conflict."""
    namespace, name = Acting(services, caller).identified(test_id)
    return await abtests.vote(services, caller, namespace, name, request)


@router.get("/{test_id}/comparisons", responses=READING, openapi_extra=READ_TEST)
async def get_comparisons_of(
    services: ServicesOf,
    caller: CallerOf,
    test_id: TestId,
    before: Time | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: MarkAfter = None,
) -> ComparisonList | TestState:
    """Comparisons of this test, the newest first; those without a vote stay blind."""
    if _is_namespace(services, test_id):
        return await abtests.get_test(services, caller, test_id, "comparisons")
    namespace, name = Acting(services, caller).identified(test_id)
    return await abtests.get_comparisons(services, caller, namespace, name, before, limit, after)


@router.get("/{test_id}/voters", responses=READING, openapi_extra=READ_TEST)
async def get_voters_of(
    services: ServicesOf,
    caller: CallerOf,
    test_id: TestId,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: MarkAfter = None,
) -> VoterList | TestState:
    """Whose votes they are, and how well people agree."""
    if _is_namespace(services, test_id):
        return await abtests.get_test(services, caller, test_id, "voters")
    namespace, name = Acting(services, caller).identified(test_id)
    return await abtests.get_voters(services, caller, namespace, name, limit, after)


@router.get("/{test_id}/samples", responses=READING, openapi_extra=READ_SAMPLES)
async def get_samples_of(
    services: ServicesOf,
    caller: CallerOf,
    test_id: TestId,
    arm: Arm | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: MarkAfter = None,
) -> SampleList | TestState:
    """What production traffic showed of each arm, answer by answer; nobody is told who asked."""
    if _is_namespace(services, test_id):
        return await abtests.get_test(services, caller, test_id, "samples")
    return await samples_of(Acting(services, caller), test_id, arm, limit, after)


@router.get("/{test_id}/win-rates", responses=READING, openapi_extra=READ_TEST)
async def get_win_rates_of(
    services: ServicesOf, caller: CallerOf, test_id: TestId, max_points: Annotated[int, Query(ge=2, le=10_000)] = 1000
) -> WinRateSeries | TestState:
    """The win rate after each vote; of more votes than `max_points` evenly thinned."""
    if _is_namespace(services, test_id):
        return await abtests.get_test(services, caller, test_id, "win-rates")
    namespace, name = Acting(services, caller).identified(test_id)
    return await abtests.get_win_rates(services, caller, namespace, name, max_points)


async def cancel_test(acting: Acting, test_id: str) -> Object:
    """Raises problems, 409 for one that has its verdict."""
    body = await acting.find(TESTS, test_id)
    if body["spec"].get("cancel"):
        return body
    if body.get("status", {}).get("verdict"):
        detail = f"ABTest {body['metadata']['name']} has its verdict: there is nothing to end any more"
        raise Problem(409, "finished", detail)
    return await acting.change(TESTS, body, {"cancel": True})


def _is_namespace(services: Services, text: str) -> bool:
    """`/ab-test/a/voters` is the test `voters` of a namespace a; of any other a it is what the test a has of them."""
    served = services.settings.namespaces
    return "." not in text and (text in served or len(served) != 1)
