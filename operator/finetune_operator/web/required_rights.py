"""What an operation asks of RBAC: its OpenAPI document says it, and nothing else is asked in the caller's name.

The extension `x-required-rights` of each operation is what `Acting` and `decide` look at: an operation that asked for
more than its document says would be answered by a 500, so that the two cannot drift apart.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from finetune_operator.resources.common import GROUP
from finetune_operator.web.identity import Right
from finetune_operator.web.services import Object, Resources

EXTENSION = "x-required-rights"
Where = Literal["Namespace", "AnyNamespace", "EveryNamespace"]


class Rule(BaseModel):
    """One of a Role, as RBAC has it."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    api_groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]

    def grants(self, right: Right) -> bool:
        """Whatever its name: which one is the request's."""
        return right.group in self.api_groups and right.resource in self.resources and right.verb in self.verbs


class RequiredRights(BaseModel):
    """`rules` have to be granted in the namespace that the request names, in one that is served, or in all of them.

    `optional` ones make an answer fuller, or are for a member of the request that not all have. `by_api_token` says
    that the api's own token is enough, which has no rights of its own to lend.
    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    rules: tuple[Rule, ...] = ()
    optional: tuple[Rule, ...] = ()
    where: Where = "Namespace"
    by_api_token: bool = False

    def allow(self, right: Right) -> bool:
        return any(rule.grants(right) for rule in (*self.rules, *self.optional))


PLACES: Mapping[Where, str] = {
    "Namespace": "in its namespace",
    "AnyNamespace": "in a namespace that is served",
    "EveryNamespace": "in every namespace that is served",
}


def in_words(required: RequiredRights) -> str:
    """For people who read the document."""
    if not required.rules:
        return "Needs no right of RBAC by itself."
    wanted = (
        f"{', '.join(f'`{verb}`' for verb in rule.verbs)} on {', '.join(f'`{each}`' for each in rule.resources)}"
        for rule in required.rules
    )
    token = ", or the api's own token" if required.by_api_token else ""
    return f"Needs {' and '.join(wanted)} {PLACES[required.where]}{token}."


class UndeclaredRight(RuntimeError):
    """An operation asks for what its document does not say."""


def rule(resource: str, *verbs: str, group: str = GROUP) -> Rule:
    return Rule(api_groups=(group,), resources=(resource,), verbs=verbs)


def asks(
    *rules: Rule, optional: Iterable[Rule] = (), where: Where = "Namespace", by_api_token: bool = False
) -> dict[str, Any]:
    """`openapi_extra` of a route."""
    required = RequiredRights(rules=rules, optional=tuple(optional), where=where, by_api_token=by_api_token)
    return {EXTENSION: required.model_dump(by_alias=True, mode="json")}


def required_of(request: Request) -> RequiredRights | None:
    """Of the operation that answers; None for a page, which has no document."""
    extra: Mapping[str, Any] = getattr(request.scope.get("route"), "openapi_extra", None) or {}
    return RequiredRights.model_validate(extra[EXTENSION]) if EXTENSION in extra else None


def require_declared(required: RequiredRights | None, right: Right) -> None:
    """Raises `UndeclaredRight`."""
    if required is not None and not required.allow(right):
        raise UndeclaredRight(f"the operation asks for {right}, which its {EXTENSION} does not have")


@dataclass(frozen=True)
class Declared:
    """Resources of the cluster, as far as an operation's document says that it asks for them."""

    resources: Resources
    required: RequiredRights

    async def get(self, plural: str, namespace: str, name: str) -> Object:
        self._require("get", plural)
        return await self.resources.get(plural, namespace, name)

    async def list(self, plural: str, namespace: str | None, selector: str = "") -> tuple[list[Object], str]:
        self._require("list", plural)
        return await self.resources.list(plural, namespace, selector)

    def chunks(self, plural: str, namespace: str | None) -> AsyncGenerator[tuple[Object, ...], None]:
        self._require("list", plural)
        return self.resources.chunks(plural, namespace)

    async def version(self, plural: str, namespace: str | None) -> str:
        self._require("list", plural)
        return await self.resources.version(plural, namespace)

    async def create(
        self, plural: str, namespace: str | None, body: Mapping[str, Any], *, strict: bool = False
    ) -> Object:
        self._require("create", plural)
        return await self.resources.create(plural, namespace, body, strict=strict)

    async def merge_patch(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        self._require("patch", f"{plural}/{subresource}" if subresource else plural)
        return await self.resources.merge_patch(plural, namespace, name, body, subresource)

    async def delete(self, plural: str, namespace: str, name: str, uid: str) -> None:
        self._require("delete", plural)
        await self.resources.delete(plural, namespace, name, uid)

    def watch(
        self, plural: str, namespace: str | None, resource_version: str, selector: str = "", *, name: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]:
        self._require("watch", plural)
        return self.resources.watch(plural, namespace, resource_version, selector, name=name)

    def log(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, tail_lines: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        self._require("get", "pods/log", "")
        return self.resources.log(namespace, pod, container, follow=follow, tail_lines=tail_lines)

    def _require(self, verb: str, resource: str, group: str = GROUP) -> None:
        require_declared(self.required, Right(verb, resource, group))


OF_JOBS, OF_VERSIONS, OF_TESTS, OF_BATCHES = "finetunejobs", "modelversions", "abtests", "batchinferences"
GET_JOB, GET_VERSION = rule(OF_JOBS, "get"), rule(OF_VERSIONS, "get")
"""Also to begin a page after one of them, whose place in the list is looked up."""
ANYBODY_KNOWN = asks(by_api_token=True)
READ_JOB = asks(rule(OF_JOBS, "get"))
READ_TRAINED = asks(rule(OF_JOBS, "get"), optional=[GET_VERSION])
LIST_JOBS = asks(rule(OF_JOBS, "list"), optional=[GET_JOB])
LIST_ANY_JOBS = asks(rule(OF_JOBS, "list"), optional=[GET_JOB], where="AnyNamespace")
MAKE_JOB = asks(rule(OF_JOBS, "create"), optional=[rule(OF_JOBS, "get")])
CHANGE_JOB = asks(rule(OF_JOBS, "get", "patch"))
DELETE_JOB = asks(rule(OF_JOBS, "get", "delete"))
FOLLOW_JOB = asks(rule(OF_JOBS, "get"), optional=[rule(OF_JOBS, "watch")])
READ_VERSION = asks(rule(OF_VERSIONS, "get"), by_api_token=True)
READ_NAMED_VERSION = asks(rule(OF_VERSIONS, "get"), optional=[rule(OF_VERSIONS, "list")], by_api_token=True)
"""A name alone is looked for in all namespaces that are served."""
READ_FAMILY = asks(rule(OF_VERSIONS, "get", "list"), optional=[GET_JOB], by_api_token=True)
LIST_VERSIONS = asks(rule(OF_VERSIONS, "list"), optional=[GET_VERSION, rule(OF_JOBS, "get", "list")], by_api_token=True)
LIST_ANY_VERSIONS = asks(rule(OF_VERSIONS, "list"), optional=[GET_VERSION], where="AnyNamespace", by_api_token=True)
ASK_VERSION = asks(rule("modelversions/completions", "create"), by_api_token=True)
CHANGE_VERSION = asks(rule(OF_VERSIONS, "get", "list", "patch"), optional=[GET_JOB])
READ_TEST = asks(rule(OF_TESTS, "get"), optional=[GET_VERSION], by_api_token=True)
READ_SAMPLES = asks(rule(OF_TESTS, "get"), optional=[GET_VERSION, rule(OF_JOBS, "create")], by_api_token=True)
LIST_TESTS = asks(rule(OF_TESTS, "list"), optional=[rule(OF_TESTS, "get")], by_api_token=True)
MAKE_TEST = asks(rule(OF_TESTS, "create"), optional=[rule(OF_TESTS, "get"), GET_VERSION])
CHANGE_TEST = asks(rule(OF_TESTS, "get", "patch"))
VOTE_THERE = asks(rule("abtests/votes", "create"), by_api_token=True)
VOTE_EVERYWHERE = asks(rule("abtests/votes", "create"), where="EveryNamespace", by_api_token=True)
USE_RATINGS = asks(rule(OF_JOBS, "create"), where="EveryNamespace", by_api_token=True)
TRAIN_THERE = asks(rule(OF_JOBS, "create"), by_api_token=True)
READ_FILE = asks(rule(OF_JOBS, "create"), optional=[rule(OF_JOBS, "get")], by_api_token=True)
DELETE_FILE = asks(rule(OF_JOBS, "create"), optional=[rule(OF_JOBS, "list")], by_api_token=True)
TRAIN_ANYWHERE = asks(rule(OF_JOBS, "create"), where="AnyNamespace", by_api_token=True)
LIST_COSTS = asks(rule(OF_JOBS, "list"), rule(OF_VERSIONS, "list"))
READ_ROI = asks(rule(OF_VERSIONS, "get"), optional=[rule(OF_JOBS, "get"), rule(OF_TESTS, "get")], by_api_token=True)
READ_SERIES = asks(optional=[rule(OF_JOBS, "get"), rule("batchinferences", "get")], by_api_token=True)
MAKE_TOKENS = asks(rule("serviceaccounts/token", "create", group=""))
MAKE_ANY_TOKENS = asks(rule("serviceaccounts/token", "create", group=""), where="AnyNamespace")
READ_BATCH = asks(rule(OF_BATCHES, "get"))
LIST_BATCHES = asks(rule(OF_BATCHES, "list"), optional=[rule(OF_BATCHES, "get")])
MAKE_BATCH = asks(rule(OF_BATCHES, "create"), optional=[rule(OF_BATCHES, "get"), rule(OF_TESTS, "get", "create")])
CHANGE_BATCH = asks(rule(OF_BATCHES, "get", "patch"))
DELETE_BATCH = asks(rule(OF_BATCHES, "get", "delete"))
