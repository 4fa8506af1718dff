"""The played API server with pods, engines, Services, logs and tokens of ServiceAccounts; and one of everything."""

import asyncio
from typing import Any

from aiohttp import web

from finetune_operator.kube.paths import PREFIXES
from finetune_operator.kube.port_forward import DATA, ERRORS, PROTOCOL
from tests.builders import merged
from tests.cluster.samples import ab_test, batch_inference, fine_tune_job, model_version
from tests.unit.web.rest.played_api_server import EDIT, KINDS, READ, VIEW, PlayedApiServer, User, failure

Object = dict[str, Any]
NAMESPACE = "finetune"
MANAGED = {"app.kubernetes.io/managed-by": "finetune-operator"}
OTHERS = ("pods", "deployments", "services", "batchinferences")
READ_OTHERS = {(verb, resource) for verb in READ for resource in OTHERS}


FORWARD = {(verb, "pods/portforward") for verb in ("get", "create")}


class PlayedCluster(PlayedApiServer):
    """A whole cluster, as far as the command line looks at it."""

    def __init__(self) -> None:
        super().__init__()
        everything = (
            EDIT
            | READ_OTHERS
            | {
                ("create", "batchinferences"),
                ("create", "serviceaccounts/token"),
                *FORWARD,
            }
        )
        self.users |= {
            "editor": User("system:serviceaccount:finetune:editor", everything, {NAMESPACE}),
            "reader": User(
                "system:serviceaccount:finetune:reader",
                VIEW | READ_OTHERS | FORWARD,
                {NAMESPACE},
            ),
            "narrow": User(
                "narrow", {right for right in VIEW | READ_OTHERS if right[1] not in ("pods", "deployments")}
            ),
            "admin": User("admin", everything),
        }
        self.container_logs: dict[tuple[str, str], list[bytes]] = {}
        """By pod and container."""
        self.ports: dict[tuple[str, int], int] = {}
        """Of pods, by name and number: which port of this machine is behind each."""
        self.forwarded: list[str] = []
        """The pods to which a connection was made."""
        self.cuts_off = False
        """Whether a connection breaks after the first bytes."""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/apis/authentication.k8s.io/v1/selfsubjectreviews", self._who)
        app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._may)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._container_log)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/portforward", self._forward)
        app.router.add_post("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", self._token)
        for prefix in {PREFIXES[plural] for plural in (*KINDS, *OTHERS)}:
            app.router.add_get(prefix + "/{plural}", self._list_or_serve)
            app.router.add_get(prefix + "/namespaces/{namespace}/{plural}", self._list_or_serve)
            app.router.add_post(prefix + "/namespaces/{namespace}/{plural}", self._create_or_judge)
            app.router.add_route("*", prefix + "/namespaces/{namespace}/{plural}/{name}", self._serve)

    async def _list_or_serve(self, request: web.Request) -> web.StreamResponse:
        """Lists by label, which the REST interface does not ask for."""
        selector = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)
        hidden = {
            key: body
            for key, body in self.objects.items()
            if not selector.items() <= (body["metadata"].get("labels") or {}).items()
        }
        if request.query.get("watch") == "true" or not hidden:
            return await self._serve(request)
        everything = self.objects
        self.objects = {key: body for key, body in everything.items() if key not in hidden}
        try:
            return await self._serve(request)
        finally:
            self.objects = everything

    async def _create_or_judge(self, request: web.Request) -> web.StreamResponse:
        """A dry run leaves nothing behind."""
        before = dict(self.objects)
        response = await self._serve(request)
        if request.query.get("dryRun") == "All":
            self.objects = before
        return response

    async def _container_log(self, request: web.Request) -> web.StreamResponse:
        self._user(request)
        key = (request.match_info["name"], request.query["container"])
        if key not in self.container_logs:
            raise failure(404, f"container {key[1]} is not there")
        lines = self.container_logs[key]
        if "tailLines" in request.query:
            lines = lines[-int(request.query["tailLines"]) :]
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line)
            await asyncio.sleep(0)
        return response

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        """As the kubelet does: the port on both channels, and then bytes or an error."""
        user, name, port = self._user(request), request.match_info["name"], int(request.query["ports"])
        websocket = web.WebSocketResponse(protocols=(PROTOCOL,))
        # From Kubernetes 1.35 on, an upgrade takes both.
        for verb in ("get", "create") if websocket.can_prepare(request) else ("get",):
            if not user.may(verb, "pods/portforward", request.match_info["namespace"]):
                cannot = f'User "{user.name}" cannot {verb} resource "pods/portforward"'
                raise failure(403, f'pods "{name}" is forbidden: {cannot}')
        if not websocket.can_prepare(request):
            raise failure(400, "Upgrade request required")
        await websocket.prepare(request)
        self.forwarded.append(name)
        for channel in (DATA, ERRORS):
            await websocket.send_bytes(bytes((channel,)) + port.to_bytes(2, "little"))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports.get((name, port), 1))
        except OSError as error:
            await websocket.send_bytes(bytes((ERRORS,)) + f"error forwarding port {port}: {error}".encode())
            return websocket

        async def answered() -> None:
            while content := await reader.read(65_536):
                await websocket.send_bytes(bytes((DATA,)) + content)
                if self.cuts_off and request.transport:
                    request.transport.abort()
            await websocket.close()

        answering = asyncio.create_task(answered())
        async for message in websocket:
            writer.write(message.data[1:])
            await writer.drain()
        writer.close()
        await asyncio.gather(answering, return_exceptions=True)
        return websocket

    async def _token(self, request: web.Request) -> web.Response:
        user = self._user(request)
        if not user.may("create", "serviceaccounts/token", request.match_info["namespace"]):
            raise failure(403, f'User "{user.name}" cannot create resource "serviceaccounts/token"')
        return web.json_response({"status": {"token": f"token-of-{request.match_info['name']}"}}, status=201)


def placed(body: Object, name: str | None = None, **members: Any) -> Object:
    """A sample in the namespace of the tests."""
    metadata = {"namespace": NAMESPACE} | ({"name": name} if name else {})
    return merged(body, {"metadata": metadata, **members})


def pod(name: str, job: str, phase: str, **status: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": MANAGED | {"finetune.dev/job": job}},
        "spec": {"nodeName": "node-a", "initContainers": [{"name": "prepare"}], "containers": [{"name": "trainer"}]},
        "status": {"phase": phase, **status},
    }


def running(container: str) -> Object:
    return {"name": container, "state": {"running": {"startedAt": "2026-11-22T12:00:10Z"}}}


def terminated(container: str) -> Object:
    return {"name": container, "state": {"terminated": {"startedAt": "2026-11-22T12:00:01Z", "exitCode": 0}}}


def job(name: str, phase: str, **status: Any) -> Object:
    return placed(fine_tune_job(name), status={"phase": phase, **status})


def version(name: str, state: str, **members: Any) -> Object:
    status = {"state": state, "replicas": "1/1", "engine": "vllm-a", "servedName": name} | members.pop("status", {})
    loaded = {"type": "Loaded", "status": "True", "reason": "Loaded", "lastTransitionTime": "2026-11-22T12:00:00Z"}
    return merged(placed(model_version(name)), {"status": status | {"conditions": [loaded]}, **members})


def populate(cluster: PlayedCluster) -> None:
    """Two trainings, three versions, a test, an engine and a batch."""
    cost = {"spent": "1.42", "estimated": "1.42", "currency": "USD", "basis": "allocated time x 2.50 USD per hour"}
    cluster.put(
        "finetunejobs",
        job(
            "plato-1",
            "Succeeded",
            message="published as plato-v1",
            progress={"summary": "100%", "percent": 100, "epoch": "3.0", "loss": "0.1416", "eta": "0s"},
            modelVersion="plato-v1",
            cost=cost,
        ),
    )
    cluster.put(
        "finetunejobs",
        job(
            "plato-2",
            "Training",
            message="step 240 of 500",
            progress={"summary": "48%", "percent": 48, "epoch": "1.4", "loss": "0.2992", "eta": "12m"},
            cost=cost | {"spent": "0.58", "estimated": "1.20"},
        ),
    )
    cluster.put(
        "finetunejobs",
        job("plato-3", "Failed", message="CUDA out of memory: lower training.batchSize, or take a larger GPU"),
    )
    cluster.put(
        "pods",
        pod(
            "plato-2-abcde",
            "plato-2",
            "Running",
            initContainerStatuses=[terminated("prepare")],
            containerStatuses=[running("trainer") | {"restartCount": 1}],
        ),
    )
    cluster.container_logs[("plato-2-abcde", "prepare")] = [b"134 rows exported\n"]
    cluster.container_logs[("plato-2-abcde", "trainer")] = [b"step 239 loss 0.31\n", b"step 240 loss 0.2992\n"]
    lineage = {"lineage": {"fineTuneJob": "plato-1", "jobUid": "plato-1-uid"}}
    promoted = {"promotedAt": "2026-11-22T12:04:00.000000Z", "history": []}
    cluster.put("modelversions", version("plato-v1", "Deployed", spec=lineage, status=promoted))
    cluster.put("modelversions", version("plato-v2", "Ready"))
    cluster.put(
        "modelversions",
        version(
            "socrates-v1", "Failed", spec={"model": "socrates"}, status={"replicas": "0/1", "message": "no such file"}
        ),
    )
    cluster.put(
        "deployments",
        {
            "metadata": {"name": "vllm-a", "namespace": NAMESPACE, "labels": MANAGED},
            "spec": {"replicas": 1},
            "status": {"readyReplicas": 1},
        },
    )
    cluster.put(
        "abtests",
        merged(
            placed(ab_test("plato-v1-v2")),
            {
                "spec": {
                    "baseline": {"base": None, "modelVersion": "plato-v1"},
                    "candidate": {"modelVersion": "plato-v2"},
                },
                "status": {
                    "phase": "Running",
                    "split": "80/20",
                    "votes": {"total": 26, "winRatePercent": "78.8%"},
                    "pValue": "0.0753",
                    "votesStillNeeded": 9,
                    "leader": "plato-v2",
                },
            },
        ),
    )
    cluster.put("batchinferences", placed(batch_inference("plato-all"), status={"phase": "Running"}))
