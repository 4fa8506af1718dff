"""Making a resource from a request, once however often it is sent with the same Idempotency-Key."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from fastapi import Header, Response
from pydantic import BaseModel

from finetune_operator.resources.common import API_VERSION
from finetune_operator.web.acting import Acting, Kind
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.problems import NOT_FOUND, Problem
from finetune_operator.web.services import Object
from finetune_operator.web.shown import DIGEST_ANNOTATION

KEY_DIGITS = 16

IdempotencyKey = Annotated[str | None, Header(pattern=r"^[!-~]{1,255}$")]


class Created(NamedTuple):
    """The resource, and whether this request made it."""

    body: Object
    created: bool


def name_from_key(prefix: str, interface: str, namespace: str, caller: str, key: str) -> str:
    """The same key of the same caller to the same interface and namespace is the same name, whatever the body says."""
    return f"{prefix}-{digits_of_key(interface, namespace, caller, key)}"


def digits_of_key(interface: str, namespace: str, caller: str, key: str) -> str:
    """Hexadecimal ones."""
    return hashlib.sha256(json.dumps([interface, namespace, caller, key]).encode()).hexdigest()[:KEY_DIGITS]


def require_one_name(name: str | None, key: str | None) -> None:
    """A key makes up the name, so that with one of the caller's own it would say nothing. Raises 422."""
    if name is not None and key is not None:
        detail = "name and Idempotency-Key: send one of them; a name can't be taken twice anyway"
        raise Problem(422, "name-and-key", detail)


def digest_of(request: BaseModel) -> str:
    """Of what the client said, not of defaults."""
    return request_digest(request.model_dump(mode="json", exclude_unset=True))


def request_digest(body: Mapping[str, Any]) -> str:
    """The same for all orders of members."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def manifest(
    kind: str,
    namespace: str,
    name: str,
    spec: Mapping[str, Any],
    digest: str | None,
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> Object:
    """What is sent to the API server; `digest` only where there is a key."""
    noted = {**annotations, **({DIGEST_ANNOTATION: digest} if digest else {})}
    metadata = {"name": name, "namespace": namespace, **({"annotations": noted} if noted else {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


async def create_once(acting: Acting, kind: Kind, body: Object) -> Created:
    """Raises 409 where the name is taken by something else."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    made = await acting.create(kind, namespace, body)
    if made is not None:
        return Created(made, created=True)
    digest = body["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION)
    if digest is None:
        raise Problem(
            409, "already-exists", f"there is a {kind.kind} {name} in namespace {namespace}; name it otherwise"
        )
    known = await _known(acting, kind, ObjectId(namespace, name))
    if known["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION) != digest:
        detail = f"{kind.kind} {name} was made with another body and this Idempotency-Key; send another key"
        raise Problem(409, "idempotency-key-reused", detail)
    if known["metadata"].get("deletionTimestamp"):
        detail = f"{kind.kind} {name}, which this Idempotency-Key has made, is being deleted; send another key"
        raise Problem(409, "being-deleted", detail)
    return Created(known, created=False)


async def _known(acting: Acting, kind: Kind, found: ObjectId) -> Object:
    try:
        return await acting.get(kind, found)
    except Problem as problem:
        if problem.status != NOT_FOUND:
            raise
        detail = f"{kind.kind} {found.name} was deleted just now; try again"
        raise Problem(503, "cluster-busy", detail) from problem


def answered(response: Response, path: str, made: Created) -> None:
    """201 for what is new, 200 for what this key had made before; both say where it is."""
    response.status_code = 201 if made.created else 200
    response.headers["Location"] = path
