"""An API server as far as the REST interface asks it, by HTTP: objects, RBAC by token, reviews and watches."""

import asyncio
import copy
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from aiohttp import web

from finetune_operator.kube.paths import PREFIXES
from finetune_operator.resources.abtest import ABTest, ABTestSpec
from finetune_operator.resources.batch_inference import BatchInference, BatchInferenceSpec
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobSpec
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionSpec
from tests.builders import merged

Object = dict[str, Any]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OWN_TOKEN = "own-token"  # noqa: S105 - of this test
KINDS = {
    "finetunejobs": (FineTuneJob, FineTuneJobSpec),
    "modelversions": (ModelVersion, ModelVersionSpec),
    "abtests": (ABTest, ABTestSpec),
    "batchinferences": (BatchInference, BatchInferenceSpec),
}
READ = ("get", "list", "watch")
CHANGE = ("create", "patch", "delete")
OWN_RIGHTS = {(verb, resource) for verb in READ for resource in ("modelversions", "abtests")}
OWN_RIGHTS |= {(verb, resource) for verb in ("list", "watch") for resource in ("finetunejobs", "batchinferences")}
VIEW = {(verb, resource) for verb in READ for resource in KINDS} | {("list", "pods"), ("get", "pods/log")}
BESIDE_THE_CRDS = {("create", "abtests/votes"), ("create", "modelversions/completions")}
EDIT = VIEW | {(verb, resource) for verb in CHANGE for resource in KINDS} | BESIDE_THE_CRDS


def without_nulls(value: Any) -> Any:
    """As a merge patch leaves it, also within what was not there before (RFC 7386)."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


@dataclass
class User:
    """Who a token belongs to, and what they may do in which namespaces."""

    name: str
    rights: set[tuple[str, str]] = field(default_factory=set)
    namespaces: set[str] | None = None
    accounts: set[str] = field(default_factory=set)
    """`<namespace>/<name>` of the ServiceAccounts that they may make tokens for."""

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        here = self.namespaces is None or namespace in self.namespaces
        return here and (verb, resource) in self.rights


class PlayedApiServer:
    """Objects by plural, namespace and name."""

    def __init__(self) -> None:
        self.url = ""
        self.away = False
        self.strangers = 0
        self.refusing: tuple[int, str, str] | None = None
        """Status, reason and message of what is said to who creates something."""
        self.users = {
            OWN_TOKEN: User("system:serviceaccount:finetune:finetune-api", OWN_RIGHTS),
            "reader": User("system:serviceaccount:finetune:reader", VIEW),
            "editor": User("system:serviceaccount:finetune:editor", EDIT),
            "nobody": User("system:serviceaccount:finetune:nobody"),
        }
        self.accounts: dict[str, User] = {}
        """ServiceAccounts that tokens can be made for, by `<namespace>/<name>`."""
        self.made_tokens = 0
        self.now: Callable[[], datetime] = lambda: NOON
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.requests: list[tuple[str, str, str]] = []
        """User, method, path."""
        self.managers: set[str] = set()
        """User agents of writes."""
        self.says_who = True
        """Whether people may ask who they are."""
        self.watch_ends_after: int | None = None
        """Events after which a watch is closed."""
        self.watch_failure: Callable[[], web.HTTPException] | None = None
        self.compacted_until = 0
        self.watches = 0
        self.lists: list[str] = []
        """Plural of each request for a list."""
        self.logs: dict[tuple[str, str], str] = {}
        """Of pods by namespace and name; each has one container, and belongs to the job whose uid is its label."""
        self.pods: list[Object] = []
        self._events: list[tuple[int, str, str, Object]] = []
        self._news = asyncio.Condition()
        self._versions = itertools.count(1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """On a port of its own: `url`."""
        app = web.Application()
        self.add_routes(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/apis/authentication.k8s.io/v1/selfsubjectreviews", self._who)
        app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._may)
        app.router.add_post("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", self._token)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self._pods)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._log)
        for prefix in {PREFIXES[plural] for plural in KINDS}:
            app.router.add_route("*", prefix + "/{plural}", self._serve)
            app.router.add_route("*", prefix + "/namespaces/{namespace}/{plural}", self._serve)
            app.router.add_route("*", prefix + "/namespaces/{namespace}/{plural}/{name}", self._serve)

    def put(self, plural: str, body: Object) -> Object:
        """As if somebody had created or changed it."""
        metadata = body["metadata"]
        key = (plural, metadata["namespace"], metadata["name"])
        number = next(self._versions)
        known = {"uid": f"{metadata['name']}-uid", "creationTimestamp": f"2026-11-22T12:{number % 60:02}:00Z"}
        body = body | {"metadata": known | metadata | {"resourceVersion": str(number)}}
        self._events.append((number, "MODIFIED" if key in self.objects else "ADDED", plural, copy.deepcopy(body)))
        self.objects[key] = body
        return body

    async def tell(self, plural: str, namespace: str, name: str, **status: Any) -> None:
        """A change of the status, which watches see."""
        body = self.objects[plural, namespace, name]
        self.put(plural, merged(body, {"status": status}))
        async with self._news:
            self._news.notify_all()

    async def remove(self, plural: str, namespace: str, name: str) -> None:
        body = self.objects.pop((plural, namespace, name))
        number = next(self._versions)
        gone = merged(body, {"metadata": {"resourceVersion": str(number)}})
        self._events.append((number, "DELETED", plural, gone))
        async with self._news:
            self._news.notify_all()

    def put_pod(self, namespace: str, name: str, job_uid: str, log: str | None) -> None:
        """A pod of a training; without a log its container has not begun."""
        state = {"running": {}} if log is not None else {"waiting": {}}
        labels = {"finetune.dev/job-uid": job_uid}
        self.pods.append(
            {
                "metadata": {"namespace": namespace, "name": name, "labels": labels},
                "status": {"containerStatuses": [{"name": "trainer", "state": state}]},
            }
        )
        if log is not None:
            self.logs[namespace, name] = log

    def names(self, plural: str) -> list[str]:
        return sorted(name for kind, _, name in self.objects if kind == plural)

    def writes(self) -> list[tuple[str, str, str]]:
        """What was asked for that changes something, by anybody."""
        return [entry for entry in self.requests if entry[1] != "GET" and "/selfsubject" not in entry[2]]

    def _user(self, request: web.Request) -> User:
        if self.away:
            raise failure(503, "etcd is away")
        user = self.users.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if user is None:
            self.strangers += 1
            raise failure(401, "Unauthorized")
        self.requests.append((user.name, request.method, request.path))
        return user

    async def _who(self, request: web.Request) -> web.Response:
        user = self._user(request)
        if not self.says_who:
            raise failure(403, f'User "{user.name}" cannot create resource "selfsubjectreviews"')
        return web.json_response({"status": {"userInfo": {"username": user.name}}}, status=201)

    async def _may(self, request: web.Request) -> web.Response:
        user = self._user(request)
        asked = (await request.json())["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        if asked["group"] == "":
            assert (asked["verb"], resource) == ("create", "serviceaccounts/token")
            allowed = f"{asked['namespace']}/{asked['name']}" in user.accounts
            return web.json_response({"status": {"allowed": allowed}})
        assert asked["group"] == "finetune.dev"
        return web.json_response({"status": {"allowed": user.may(asked["verb"], resource, asked["namespace"])}})

    async def _token(self, request: web.Request) -> web.Response:
        """TokenRequest: whoever may gets a new token of the ServiceAccount."""
        user = self._user(request)
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        place = f"{namespace}/{name}"
        if place not in user.accounts:
            raise failure(403, f'serviceaccounts "{name}" is forbidden: User "{user.name}" cannot create resource')
        if place not in self.accounts:
            raise failure(404, f'serviceaccounts "{name}" not found')
        seconds = (await request.json())["spec"]["expirationSeconds"]
        self.made_tokens += 1
        token = f"made-{self.made_tokens}"
        self.users[token] = self.accounts[place]
        ends = self.now() + timedelta(seconds=seconds)
        return web.json_response({"status": {"token": token, "expirationTimestamp": ends.isoformat()}}, status=201)

    async def _pods(self, request: web.Request) -> web.Response:
        user, namespace = self._user(request), request.match_info["namespace"]
        if not user.may("list", "pods", namespace):
            raise failure(403, f'pods is forbidden: User "{user.name}" cannot list resource "pods" in API group ""')
        name, _, value = request.query["labelSelector"].partition("=")
        found = [
            pod
            for pod in self.pods
            if pod["metadata"]["namespace"] == namespace and pod["metadata"]["labels"].get(name) == value
        ]
        return web.json_response({"items": found, "metadata": {"resourceVersion": "1"}})

    async def _log(self, request: web.Request) -> web.Response:
        user, namespace, name = self._user(request), request.match_info["namespace"], request.match_info["name"]
        if not user.may("get", "pods/log", namespace):
            raise failure(403, f'pods "{name}" is forbidden: User "{user.name}" cannot get resource "pods/log"')
        lines = self.logs[namespace, name].splitlines(keepends=True)
        return web.Response(text="".join(lines[-int(request.query["tailLines"]) :]))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request)
        plural, namespace, name = (request.match_info.get(part, "") for part in ("plural", "namespace", "name"))
        watching = request.query.get("watch") == "true"
        reading = "get" if name else "watch" if watching else "list"
        verb = {"GET": reading, "POST": "create", "PATCH": "patch", "DELETE": "delete"}[request.method]
        if not user.may(verb, plural, namespace):
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            resource = f'{plural} is forbidden: User "{user.name}" cannot {verb} resource "{plural}"'
            raise failure(403, f'{resource} in API group "finetune.dev" {where}')
        if verb == "watch":
            wanted = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
            return await self._watch(request, plural, namespace, wanted)
        if verb == "list":
            chosen = sorted(key for key in self.objects if key[0] == plural and namespace in ("", key[1]))
            self.lists.append(plural)
            begin = int(request.query.get("continue", 0))
            end = begin + int(request.query.get("limit", len(chosen)))
            metadata = {"resourceVersion": str(self._events_end()), "continue": str(end) if end < len(chosen) else ""}
            return web.json_response({"items": [self.objects[key] for key in chosen[begin:end]], "metadata": metadata})
        if verb == "create":
            return await self._create(request, plural, namespace)
        if (plural, namespace, name) not in self.objects:
            raise failure(404, f'{plural}.finetune.dev "{name}" not found')
        return await self._one(request, verb, (plural, namespace, name))

    async def _create(self, request: web.Request, plural: str, namespace: str) -> web.Response:
        body, (model, spec) = await request.json(), KINDS[plural]
        self.managers.add(request.query.get("fieldManager", request.headers["User-Agent"]))
        assert request.query["fieldValidation"] == "Strict"
        known = {field.alias for field in spec.model_fields.values()}
        if unknown := set(body["spec"]) - known:
            raise failure(400, f'strict decoding error: unknown field "spec.{min(unknown)}"')
        if self.refusing:
            status, reason, message = self.refusing
            raise failure(status, message, reason)
        name = body["metadata"]["name"]
        if (plural, namespace, name) in self.objects:
            raise failure(409, f'{plural}.finetune.dev "{name}" already exists', "AlreadyExists")
        try:
            model.model_validate(merged(body, {"metadata": {"namespace": namespace, "uid": "new"}}))
        except ValueError as error:
            raise failure(422, f"{body['kind']} {name} is invalid: {error}") from None
        body["metadata"]["namespace"] = namespace
        made = self.put(plural, body)
        async with self._news:
            self._news.notify_all()
        return web.json_response(made, status=201)

    async def _one(self, request: web.Request, verb: str, key: tuple[str, str, str]) -> web.Response:
        body = self.objects[key]
        if verb == "get":
            return web.json_response(body)
        self.managers.add(request.query.get("fieldManager", request.headers["User-Agent"]))
        sent = json.loads(await request.read())
        if verb == "delete":
            if sent["preconditions"]["uid"] != body["metadata"]["uid"]:
                raise failure(409, "the uid is another one")
            await self.remove(*key)
            return web.json_response({"kind": "Status", "status": "Success"})
        if sent.get("metadata", {}).get("uid") != body["metadata"]["uid"]:
            raise failure(422, f'{key[0]} "{key[2]}" is invalid: metadata.uid: field is immutable', "Invalid")
        wanted = without_nulls(merged(body, sent))
        try:
            KINDS[key[0]][0].model_validate(wanted)
        except ValueError as error:
            raise failure(422, f'{key[0]} "{key[2]}" is invalid: {error}', "Invalid") from None
        changed = self.put(key[0], wanted)
        async with self._news:
            self._news.notify_all()
        return web.json_response(changed)

    async def _watch(self, request: web.Request, plural: str, namespace: str, name: str) -> web.StreamResponse:
        asked = request.query["resourceVersion"]
        after = int(asked or self._events_end())
        self.watches += 1
        if self.watch_failure is not None:
            raise self.watch_failure()
        if after < self.compacted_until:
            raise failure(410, "too old resource version")
        response = web.StreamResponse()
        await response.prepare(request)
        sent, position = 0, 0
        if not asked and (body := self.objects.get((plural, namespace, name))):
            await response.write(json.dumps({"type": "ADDED", "object": body}).encode() + b"\n")

        def is_open() -> bool:
            return self.watch_ends_after is None or sent < self.watch_ends_after

        while is_open():
            while is_open() and position < len(self._events):
                number, kind, of, body = self._events[position]
                position += 1
                metadata = body["metadata"]
                here, named = namespace in ("", metadata["namespace"]), name in ("", metadata["name"])
                is_wanted = of == plural and here and named
                if number > after and is_wanted:
                    await response.write(json.dumps({"type": kind, "object": body}).encode() + b"\n")
                    sent += 1
            async with self._news:
                if is_open() and position == len(self._events):
                    await self._news.wait()
        return response

    def _events_end(self) -> int:
        return self._events[-1][0] if self._events else 0


def failure(status: int, message: str, reason: str = "", **headers: str) -> web.HTTPException:
    body = {"kind": "Status", "message": message, "code": status, "reason": reason}
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    found = web.HTTPBadRequest(text=json.dumps(body), content_type="application/json", headers=told)
    found.set_status(status)
    return found
