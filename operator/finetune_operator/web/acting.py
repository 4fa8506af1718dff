"""Resources of the cluster in a caller's name: RBAC decides as for kubectl, and its refusals become problems."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from finetune_operator.kube.errors import INVALID, KubeError, NotFound
from finetune_operator.store import mirrored, mirrored_sums
from finetune_operator.store.mirrored import Found, Position, Wanted
from finetune_operator.web.auth import Caller, decide
from finetune_operator.web.identity import FIELD_MANAGER, Right
from finetune_operator.web.ids import ObjectId, WrongId, parse_id
from finetune_operator.web.lists import slim
from finetune_operator.web.mirroring import facts_of, is_wanted
from finetune_operator.web.pages import Page, Pager, Place, WrongCursor, is_cursor, parse_cursor, place_of
from finetune_operator.web.problems import FORBIDDEN, NOT_FOUND, Problem
from finetune_operator.web.refusals import forbidden, refused, token_needed
from finetune_operator.web.required_rights import Declared
from finetune_operator.web.services import Object, Resources, Services

CONFLICT, TOO_OLD = 409, 410
ALREADY_EXISTS = "AlreadyExists"
"""The reason of a 409 that says that the name is taken; there are others, such as a quota's."""


class Kind(NamedTuple):
    """A kind as the API server, a message and a problem name it."""

    plural: str
    kind: str
    word: str


JOBS = Kind("finetunejobs", "FineTuneJob", "job")
VERSIONS = Kind("modelversions", "ModelVersion", "model-version")
TESTS = Kind("abtests", "ABTest", "ab-test")
BATCHES = Kind("batchinferences", "BatchInference", "batch-inference")


OWN = Caller("finetune-api")
"""The api itself, which may read ABTests and ModelVersions, for who may vote and not read."""


@dataclass(frozen=True)
class Acting:
    """One caller's view of the cluster. Every method raises problems."""

    services: Services
    caller: Caller

    @property
    def resources(self) -> Resources:
        """With the caller's rights, or with the api's own, which can only read."""
        token, cluster = self.caller.token, self.services.cluster
        found: Resources = cluster
        if token is not None:
            found = cluster.on_behalf_of(token.get_secret_value(), FIELD_MANAGER, self.caller.name)
        return found if self.caller.required is None else Declared(found, self.caller.required)

    def identified(self, text: str) -> ObjectId:
        """What an id of a request names."""
        try:
            found = parse_id(text, self.services.settings.namespaces)
        except WrongId as error:
            raise Problem(422, "wrong-id", str(error)) from None
        self.require_served(found.namespace)
        return found

    def require_served(self, namespace: str) -> None:
        """404 for the others, which may exist or not."""
        served = self.services.settings.namespaces
        if served and namespace not in served:
            raise Problem(404, "unknown-namespace", f"namespace {namespace} is not among FINETUNE_NAMESPACES")

    def namespace_or_only(self, namespace: str | None) -> str:
        """Where something is to be made: said, or the only one that is served."""
        served = self.services.settings.namespaces
        if namespace is None:
            if len(served) != 1:
                raise Problem(422, "no-namespace", "say in which `namespace`")
            return served[0]
        self.require_served(namespace)
        return namespace

    def place_to_make(self, namespace: str | None) -> str:
        """`namespace_or_only`, for who has a name of their own to make something in."""
        place = self.namespace_or_only(namespace)
        self._writing(place)
        return place

    async def get(self, kind: Kind, found: ObjectId) -> Object:
        with self.refusals(found.namespace):
            try:
                return await self.resources.get(kind.plural, found.namespace, found.name)
            except NotFound:
                detail = f"there is no {kind.kind} {found.name} in namespace {found.namespace}"
                raise Problem(404, f"unknown-{kind.word}", detail) from None

    async def find(self, kind: Kind, text: str) -> Object:
        """What an id of a request stands for."""
        return await self.get(kind, self.identified(text))

    async def every(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """Of one namespace, or of all that are served and that the caller may see; 403 where that is none."""
        async with aclosing(self.chunks(kind, namespace)) as chunks:
            return [body async for chunk in chunks for body in chunk]

    async def chunks(self, kind: Kind, namespace: str | None = None) -> AsyncGenerator[list[Object], None]:
        """As `every`, some at a time."""
        if namespace is not None:
            self.require_served(namespace)
        asked = (namespace,) if namespace is not None else self.services.settings.namespaces or (None,)
        self._require_token(kind, asked[0])
        refusals: list[Problem] = []
        async with self.services.lists.one():
            for each in asked:
                try:
                    with self.refusals(each):
                        async with aclosing(self.resources.chunks(kind.plural, each)) as chunks:
                            async for chunk in chunks:
                                yield [slim(body) for body in chunk]
                except Problem as problem:
                    if problem.status == TOO_OLD:
                        detail = "the list was forgotten while it was read; try again"
                        raise Problem(503, "cluster-unavailable", detail) from problem
                    if problem.status != FORBIDDEN:
                        raise
                    refusals.append(problem)
        if len(refusals) == len(asked):
            raise refusals[0]

    def is_mirrored(self, *kinds: Kind) -> bool:
        """Whether the api's own tables have all of these kinds as they are now."""
        mirroring = self.services.mirroring
        return mirroring is not None and mirroring.is_current(*(kind.plural for kind in kinds))

    async def states(self, kind: Kind, namespace: str | None) -> Mapping[str | None, int]:
        """How many there are in each state, of all that the caller may see."""
        if self.is_mirrored(kind):
            return await mirrored_sums.states(self.services.engine, kind.plural, await self.listable(kind, namespace))
        counts: Counter[str | None] = Counter()
        async with aclosing(self.chunks(kind, namespace)) as chunks:
            async for chunk in chunks:
                counts.update(facts_of(kind.plural, body).state for body in chunk)
        return counts

    async def moment(self, kind: Kind, namespace: str | None) -> str:
        """The resource version of now, from which changes can be watched."""
        self._require_token(kind, namespace)
        with self.refusals(namespace):
            return await self.resources.version(kind.plural, namespace)

    async def page(
        self, kind: Kind, namespace: str | None, limit: int, after: str | None, wanted: Wanted
    ) -> Page[Object]:
        """Those that are wanted, the newest first; `after` is the `next` of a page, or an id.

        Of the api's own tables as long as they are current, else of all that the API server has.
        """
        place = await self.place(kind, after)
        if self.is_mirrored(kind):
            namespaces = await self.listable(kind, namespace)
            position = Position(place.created, *place.identity) if place else None
            chosen = replace(wanted, namespaces=namespaces)
            return _page_of(await mirrored.page(self.services.engine, chosen, position, limit + 1), limit)
        pager = Pager(limit, place, lambda body: is_wanted(wanted, body, {}))
        async with aclosing(self.chunks(kind, namespace)) as chunks:
            async for chunk in chunks:
                pager.add(chunk)
        return pager.page()

    async def listable(self, kind: Kind, namespace: str | None) -> tuple[str, ...] | None:
        """Of which namespaces the caller may list a kind, None for all; 403 where that is none, as of a list."""
        if namespace is not None:
            self.require_served(namespace)
        served = self.services.settings.namespaces
        asked: tuple[str | None, ...] = (namespace,) if namespace is not None else served or (None,)
        self._require_token(kind, asked[0])
        if self.caller.token is not None:
            right = Right("list", kind.plural)
            decisions = await asyncio.gather(*(decide(self.services, self.caller, right, each) for each in asked))
            if not any(decision.allowed for decision in decisions):
                raise forbidden(right, asked[0], decisions[0].reason)
            asked = tuple(each for each, decision in zip(asked, decisions, strict=True) if decision.allowed)
        return None if asked == (None,) else tuple(each for each in asked if each is not None)

    async def place(self, kind: Kind, after: str | None) -> Place | None:
        """Where a page begins. Raises 422 for what is no place."""
        if not after:
            return None
        try:
            if is_cursor(after):
                return parse_cursor(after)
            return place_of(await self.get(kind, self.identified(after)))
        except WrongCursor as error:
            raise Problem(422, "wrong-cursor", str(error)) from None
        except Problem as problem:
            if problem.status != NOT_FOUND:
                raise
            detail = f"after: {after} is not there any more; send the page's `next`, or begin with the first page"
            raise Problem(422, "wrong-cursor", detail) from None

    async def create(self, kind: Kind, namespace: str, body: Object) -> Object | None:
        """None where the name is taken."""
        with self.refusals(namespace):
            try:
                made = await self._writing(namespace).create(kind.plural, namespace, body, strict=True)
            except KubeError as error:
                if error.status != CONFLICT:
                    raise
                if error.reason == ALREADY_EXISTS:
                    return None
                raise Problem(503, "cluster-busy", f"{error}; nothing was made, try again") from error
        if self.services.mirroring is not None:
            await self.services.mirroring.note(kind.plural, made)
        return made

    async def change(self, kind: Kind, body: Object, spec: dict[str, Any]) -> Object:
        """Set fields of the spec of exactly this object; a later one of the same name is a conflict."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        patch = {"metadata": {"uid": body["metadata"]["uid"]}, "spec": spec}
        writing = self._writing(namespace)
        with self.refusals(namespace):
            try:
                changed = await writing.merge_patch(kind.plural, namespace, name, patch)
            except KubeError as error:
                if error.status == INVALID and await self._is_another(writing, kind, body):
                    detail = f"{kind.kind} {name} was deleted and made anew meanwhile; look at it again"
                    raise Problem(409, "conflict", detail) from error
                raise
        if self.services.mirroring is not None:
            await self.services.mirroring.note(kind.plural, changed)
        return changed

    async def delete(self, kind: Kind, found: ObjectId) -> None:
        writing = self._writing(found.namespace)
        body = await self.get(kind, found)
        with self.refusals(found.namespace):
            await writing.delete(kind.plural, found.namespace, found.name, body["metadata"]["uid"])
        if self.services.mirroring is not None:
            await self.services.mirroring.note_deleted(kind.plural, body)

    async def _is_another(self, resources: Resources, kind: Kind, body: Object) -> bool:
        """The API server calls another uid in a patch invalid, as it does all that is wrong with one."""
        metadata = body["metadata"]
        try:
            known = await resources.get(kind.plural, metadata["namespace"], metadata["name"])
        except NotFound:
            return True
        except KubeError:
            return False
        return bool(known["metadata"]["uid"] != metadata["uid"])

    def _require_token(self, kind: Kind, namespace: str | None) -> None:
        """The api may list trainings for its tables, and lends that right to nobody."""
        if self.caller.token is None and kind not in (TESTS, VERSIONS):
            raise token_needed(namespace)

    def _writing(self, namespace: str) -> Resources:
        if self.caller.token is None:
            raise token_needed(namespace)
        return self.resources

    @contextmanager
    def refusals(self, namespace: str | None) -> Iterator[None]:
        """What the API server says no to becomes a problem."""
        try:
            yield
        except KubeError as error:
            raise refused(error, namespace, own_token=self.caller.token is not None) from error


def _page_of(found: Found, limit: int) -> Page[Object]:
    """One more than the page has says whether there is another one."""
    shown, has_more = found.bodies[:limit], len(found.bodies) > limit
    return Page(shown, found.total, has_more, str(place_of(shown[-1])) if has_more else None)
