"""Public: API keys, to make, list and revoke. Each stands for a ServiceAccount, whose rights are its holder's."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from finetune_operator.core.api_keys import ID_BYTES, ID_PATTERN, PREFIX, SECRET_BYTES, digest_of, new_key
from finetune_operator.logs import get_logger
from finetune_operator.resources.common import ShortText
from finetune_operator.store import api_keys
from finetune_operator.store.api_keys import Account, KeyRecord
from finetune_operator.store.keyset import Mark
from finetune_operator.web.acting import Acting
from finetune_operator.web.api_key_login import VALUE, require_listed, token_for
from finetune_operator.web.auth import Caller, CallerOf, decide, require_right
from finetune_operator.web.creation import IdempotencyKey, digits_of_key
from finetune_operator.web.identity import make_tokens
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN
from finetune_operator.web.marks import MarkAfter, mark_of, marked
from finetune_operator.web.problems import Problem, documented
from finetune_operator.web.refusals import token_needed
from finetune_operator.web.required_rights import MAKE_ANY_TOKENS, MAKE_TOKENS
from finetune_operator.web.services import Services, ServicesOf

KEYS_PATH = "/v1/api-keys"
MAX_ACTIVE = 50
"""Of one ServiceAccount."""
PROBLEMS = documented(401, 403, 404, 409, 422, 503)

KeyId = Annotated[str, Path(pattern=f"^{ID_PATTERN}$", description="The part between `ftk_` and the secret")]

logger = get_logger(__name__)
router = APIRouter(prefix=KEYS_PATH, tags=["api-keys"])


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class KeyRequest(_Model):
    """As whom the key acts, and until when."""

    name: Annotated[ShortText, Field(min_length=1)]
    """What it is for, to tell it from others."""
    service_account: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """Whose rights its holder has; you need the right to make tokens for it yourself."""
    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE_PATTERN}$")] | None = None
    """Of the ServiceAccount; may be left out where the api serves one namespace."""
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 90


class KeyEntry(_Model):
    """A key without its secret."""

    id: str
    name: str
    namespace: str
    service_account: str
    active: bool
    """Neither revoked nor expired."""
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None


class NewKey(KeyEntry):
    """A key that was just made."""

    key: str
    """The bearer token. It is shown this once, and kept nowhere."""


class KeyAccount(_Model):
    """A ServiceAccount that a key may stand for."""

    namespace: str
    service_account: str


class KeyList(_Model):
    """The newest first, ended ones too."""

    api_keys: tuple[KeyEntry, ...]
    has_more: bool
    next: str | None
    """`after` of the next page."""
    accounts: tuple[KeyAccount, ...]
    """For which the caller may make keys."""


@router.post("", status_code=201, responses=PROBLEMS, openapi_extra=MAKE_TOKENS)
async def create_api_key(
    services: ServicesOf, caller: CallerOf, request: KeyRequest, idempotency_key: IdempotencyKey = None
) -> NewKey:
    """Make a key that works wherever a Kubernetes token does, such as in OpenAI's clients.

    Sent again with the same `Idempotency-Key`, it makes no other one, and answers 409 with the id of the first: the
    secret was shown once. Who never saw it revokes that key, and makes another one with another `Idempotency-Key`.
    """
    _require_person(services, caller)
    namespace = request.namespace or Acting(services, caller).namespace_or_only(None)
    account = Account(namespace, request.service_account)
    await require_right(services, caller, make_tokens(account.name), account.namespace)
    require_listed(services, account)
    key = new_key(services.random_bytes(ID_BYTES + SECRET_BYTES))
    if idempotency_key is not None:
        key = key._replace(id=digits_of_key(KEYS_PATH, namespace, caller.name, idempotency_key))
        if await api_keys.find(services.engine, key.id):
            raise _made_before(key.id)
    now = services.now()
    if await api_keys.count_active(services.engine, account, now) >= MAX_ACTIVE:
        detail = f"{account} has {MAX_ACTIVE} active keys, and no more may be: revoke one that is not needed"
        raise Problem(409, "too-many-api-keys", detail)
    record = KeyRecord(
        id=key.id,
        digest=digest_of(key.secret),
        name=request.name,
        account=account,
        created_by=caller.name,
        created_at=now,
        expires_at=now + timedelta(days=request.expires_in_days),
    )
    # Before anybody has it, so that what is missing is told to who can help.
    await token_for(services, record)
    if not await api_keys.add(services.engine, record):
        raise _made_before(key.id)
    expires = record.expires_at.isoformat()
    logger.info("api key created", key=key.id, account=str(account), expires=expires, by=caller.name)
    return NewKey(**_entry(record, now).model_dump(), key=str(key))


@router.get("", responses=PROBLEMS, openapi_extra=MAKE_ANY_TOKENS)
async def list_api_keys(
    services: ServicesOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    after: MarkAfter = None,
) -> KeyList:
    """Keys of those ServiceAccounts that the caller may make tokens for, the newest first."""
    mark = mark_of(after)
    if caller.token is None:
        raise token_needed(None)
    listed = {Account(*place.split("/", 1)) for place in services.settings.api_key_accounts}
    if not listed:
        raise _not_configured()
    known = sorted(listed.union(await api_keys.accounts(services.engine)))
    decisions = [(each, await decide(services, caller, make_tokens(each.name), each.namespace)) for each in known]
    mine = [account for account, decision in decisions if decision.allowed]
    if not mine:
        account = known[0]
        await require_right(services, caller, make_tokens(account.name), account.namespace)
    now = services.now()
    found = await api_keys.of_accounts(services.engine, mine, limit + 1, mark)
    page = marked(found, limit, lambda key: Mark(key.created_at, key.id))
    open_to_keys = tuple(KeyAccount(namespace=a.namespace, service_account=a.name) for a in mine if a in listed)
    return KeyList(
        api_keys=tuple(_entry(key, now) for key in page.rows),
        has_more=page.has_more,
        next=page.next,
        accounts=open_to_keys,
    )


@router.delete("/{key_id}", status_code=204, responses=PROBLEMS, openapi_extra=MAKE_TOKENS)
async def revoke_api_key(services: ServicesOf, caller: CallerOf, key_id: KeyId) -> Response:
    """End it at once and for good."""
    if caller.token is None:
        raise token_needed(None)
    key = await api_keys.find(services.engine, key_id)
    if key is None:
        raise Problem(404, "unknown-api-key", f"there is no API key {PREFIX}{key_id}_...; GET {KEYS_PATH} lists them")
    await require_right(services, caller, make_tokens(key.account.name), key.account.namespace)
    await api_keys.revoke(services.engine, key.id, services.now(), caller.name)
    services.account_tokens.drop(key.id)
    logger.info("api key revoked", key=key.id, account=str(key.account), by=caller.name)
    return Response(status_code=204)


def _require_person(services: Services, caller: Caller) -> None:
    """A key that made others would outlive its revocation."""
    if not services.settings.api_key_accounts:
        raise _not_configured()
    if caller.token is None:
        raise token_needed(None)
    if caller.by_api_key:
        raise Problem(403, "api-key-makes-no-key", "an API key can't make another one: use a Kubernetes token")


def _made_before(key_id: str) -> Problem:
    detail = (
        f"API key {PREFIX}{key_id}_... was made with this Idempotency-Key, and its secret was shown then; if that "
        f"is lost, revoke it (DELETE {KEYS_PATH}/{key_id}) and send another Idempotency-Key"
    )
    return Problem(409, "api-key-made-before", detail)


def _not_configured() -> Problem:
    detail = f"this api makes no API keys: list the ServiceAccounts that they may stand for in {VALUE}"
    return Problem(409, "api-keys-not-configured", detail)


def _entry(key: KeyRecord, now: datetime) -> KeyEntry:
    return KeyEntry(
        id=key.id,
        name=key.name,
        namespace=key.account.namespace,
        service_account=key.account.name,
        active=key.is_active(now),
        created_by=key.created_by,
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    )
