"""The page of API keys: those that the caller may see, a form for a new one, and a button that ends one."""

from typing import Annotated

from fastapi import Form
from pydantic import ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.web.api_key_routes import (
    KeyEntry,
    KeyId,
    KeyRequest,
    NewKey,
    create_api_key,
    list_api_keys,
    revoke_api_key,
)
from finetune_operator.web.dashboard.commands import api_key_commands
from finetune_operator.web.dashboard.forms import mistakes_of
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import NavEntry, Visit, VisitOf, is_fragment
from finetune_operator.web.marks import MarkAfter
from finetune_operator.web.problems import Problem

PATH = "/api-keys"
LIFETIMES = (("1", "a day"), ("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("366", "a year"))
LISTED = 100
LIFETIME_DAYS = KeyRequest.model_fields["expires_in_days"].default

router = page_router(PATH)


@router.get("")
async def keys_page(visit: VisitOf, after: MarkAfter = None) -> HTMLResponse:
    """What there is, the newest first, and on each page those first that still work."""
    return await _shown(visit, "api_keys.html", after=after)


@router.post("")
async def create_key(
    visit: VisitOf,
    name: Annotated[str, Form(max_length=1024)] = "",
    account: Annotated[str, Form(max_length=320)] = "",
    expires_in_days: Annotated[int, Form()] = LIFETIME_DAYS,
    key: Annotated[str | None, Form(pattern=r"^[!-~]{1,64}$")] = None,
) -> HTMLResponse:
    """Make it, and show it once; the form's key makes it once, however often the form is sent."""
    namespace, _, service_account = account.partition("/")
    try:
        request = KeyRequest(
            name=name.strip(),
            namespace=namespace,
            service_account=service_account,
            expires_in_days=expires_in_days,
        )
    except ValidationError as error:
        raise Problem(422, "invalid-request", mistakes_of(error)) from None
    made = await create_api_key(visit.services, visit.caller, request, key)
    return await _shown(visit, "fragments/api_keys.html" if is_fragment(visit.request) else "api_keys.html", made)


@router.post("/{key_id}/revoke")
async def revoke_key(visit: VisitOf, key_id: KeyId) -> Response:
    """End it for good. Asking again changes nothing."""
    await revoke_api_key(visit.services, visit.caller, key_id)
    return visit.go(PATH)


async def _shown(visit: Visit, template: str, made: NewKey | None = None, after: str | None = None) -> HTMLResponse:
    listed = await part(list_api_keys(visit.services, visit.caller, LISTED, after))
    keys = listed.value.api_keys if listed.value else ()
    accounts = listed.value.accounts if listed.value else ()
    return visit.render(
        template,
        keys=sorted(keys, key=lambda key: not key.active),
        next_keys=listed.value.next if listed.value else None,
        is_first_page=after is None,
        state_of=_state_of,
        accounts=[(each, each) for each in (f"{a.namespace}/{a.service_account}" for a in accounts)],
        refusal=listed.refusal,
        by_api_key=visit.caller.by_api_key,
        made=made,
        form_key=visit.services.suffix(),
        lifetimes=LIFETIMES,
        lifetime=str(LIFETIME_DAYS),
        address=str(visit.request.base_url).rstrip("/"),
        commands=api_key_commands(accounts[0].namespace, accounts[0].service_account)
        if accounts
        else api_key_commands(),
    )


def _state_of(key: KeyEntry) -> tuple[str, str]:
    """A word and its tone."""
    if key.active:
        return "active", "good"
    return ("revoked", "quiet") if key.revoked_at else ("expired", "wait")


PAGE = Page(router, NavEntry("API keys", PATH, 50))
