"""From the creation of a ModelVersion to its first token: against a bare load at the engine, against the restart of its
pod, and what the others notice of it.

A bare load is what anybody could do by curl: POST the adapter to vLLM, and ask for a token. Runs on the demo's node and
leaves the engine with the adapters that it had. Requests go through the gateway, as a client's do; the API server is
reached by `kubectl proxy`, since a kubectl process for each request would be measured too.
"""

import base64
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

from bench.cluster import RUN_THE_DEMO, demo_kubectl, service_url
from bench.report import Figure, NotMeasurable, Report
from demo.install import RELEASE
from demo.kubectl import DemoError, Kubectl
from demo.story import FIRST, SECOND
from demo.target import NAMESPACE
from finetune_operator.contract.adapters import ADAPTER_DIGEST_HEADER
from finetune_operator.contract.places import ARTIFACTS_ROOT

KNOWN_VERSION, COPIED_VERSION = FIRST, SECOND
# A family of its own: the numbers of the demo's family, and what its alias answers, stay as they are.
FAMILY = "hot-load"
HOT_LOADS, RESTARTS = 60, 2
RESTART_GOAL, BARE_GOAL, OTHERS_GOAL = 20, 1.2, 1.1
OTHERS_PER_SECOND = 10
# The operator looks at the engine a few times more, and takes out what it does not know.
SETTLE_SECONDS = 1.0
POLL_SECONDS = 0.005
HOT_LOAD_DEADLINE_SECONDS, RESTART_DEADLINE_SECONDS = 60.0, 600.0
VERSIONS = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/modelversions"
JOBS = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def measure() -> Report:
    """Both ways in one run; raises NotMeasurable where the demo is not there, or busy."""
    kubectl = demo_kubectl()
    try:
        with ExitStack() as stack:
            bench = Bench(
                httpx2.Client(base_url=stack.enter_context(_api_server(kubectl)), timeout=60),
                httpx2.Client(base_url=stack.enter_context(service_url(kubectl, f"{RELEASE}-gateway")), timeout=60),
            )
            copied = bench.require_idle_demo()
            adapters = Adapters(kubectl, copied["status"]["engine"])
            before = adapters.loaded()
            loads = Loads()
            with Others(stack.enter_context(service_url(kubectl, f"{RELEASE}-gateway"))) as others:
                for number in range(1, HOT_LOADS + 1):
                    loads.bare.append(adapters.bare_load(copied["spec"]["artifact"], f"bare-load-{number}"))
                    loads.hot.append(bench.hot_load(copied["spec"], number, adapters))
                    time.sleep(SETTLE_SECONDS)
            loads.restarts.extend(bench.restart(copied["status"]["engine"]) for _ in range(RESTARTS))
            kubectl.wait_for("the engine has its adapters", lambda: adapters.loaded() == before, 60)
    except (DemoError, httpx2.HTTPError) as error:
        raise NotMeasurable(f"{error}; if the demo is not up, {RUN_THE_DEMO}") from error
    return _report(loads, *others.meanwhile_and_else(loads.hot))


@dataclass(frozen=True)
class Span:
    """When something began and ended, by `time.perf_counter`."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def overlaps(self, other: "Span") -> bool:
        return self.began < other.ended and other.began < self.ended


@dataclass(frozen=True)
class Loads:
    """What was timed."""

    bare: list[Span] = field(default_factory=list)
    hot: list[Span] = field(default_factory=list)
    restarts: list[Span] = field(default_factory=list)


def _report(loads: Loads, meanwhile: list[float], otherwise: list[float]) -> Report:
    bare, hot, restart = (
        statistics.median(span.seconds for span in spans) for spans in (loads.bare, loads.hot, loads.restarts)
    )
    p99_meanwhile, p99_otherwise = (statistics.quantiles(taken, n=100)[98] for taken in (meanwhile, otherwise))
    in_turn = f"median of {len(loads.hot)}, in turns"
    return Report(
        (
            Figure("bare load: posted -> first token", f"{bare:.3f} s", f"{in_turn}, at the engine"),
            Figure("hot load: created -> first token", f"{hot:.3f} s", f"{in_turn}, through the gateway"),
            _ratio("hot load / bare load", hot / bare, BARE_GOAL, hot <= bare * BARE_GOAL),
            Figure("others' p99 meanwhile", f"{p99_meanwhile * 1000:.0f} ms", f"{len(meanwhile)} requests"),
            Figure("others' p99 otherwise", f"{p99_otherwise * 1000:.0f} ms", f"{len(otherwise)} requests"),
            _ratio(
                "others' p99, meanwhile / otherwise",
                p99_meanwhile / p99_otherwise,
                OTHERS_GOAL,
                p99_meanwhile <= p99_otherwise * OTHERS_GOAL,
            ),
            Figure("pod restart: deleted -> first token", f"{restart:.1f} s", f"median of {len(loads.restarts)}"),
            Figure(
                "hot load, times faster than a restart",
                f"{restart / hot:.0f}",
                "ratio of the medians",
                f">= {RESTART_GOAL}",
                restart >= hot * RESTART_GOAL,
            ),
        ),
        tuple(
            f"{name}: " + ", ".join(f"{span.seconds:.3f} s" for span in spans)
            for name, spans in (("bare loads", loads.bare), ("hot loads", loads.hot), ("restarts", loads.restarts))
        ),
    )


def _ratio(name: str, ratio: float, goal: float, met: bool) -> Figure:
    return Figure(name, f"{ratio:.2f}", "ratio of the two", f"<= {goal:g}", met)


class Others:
    """Somebody else's requests for a version that stays, ten a second while the block lasts."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._taken: list[Span] = []
        self._failed: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Others":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def meanwhile_and_else(self, spans: list[Span]) -> tuple[list[float], list[float]]:
        """Seconds of those requests that shared a moment with one of the spans, and of all others.

        Raises `NotMeasurable` where one failed.
        """
        if self._failed:
            raise NotMeasurable(f"others' requests failed: {self._failed[0]}")
        parts: tuple[list[float], list[float]] = ([], [])
        for taken in self._taken:
            parts[0 if any(taken.overlaps(span) for span in spans) else 1].append(taken.seconds)
        return parts

    def _ask(self) -> None:
        due = time.perf_counter()
        body = {"model": KNOWN_VERSION, "prompt": "Hello", "max_tokens": 1}
        with httpx2.Client(base_url=self._gateway, timeout=60) as client:
            while not self._stop.wait(max(0.0, due - time.perf_counter())):
                try:
                    client.post("/v1/completions", json=body).raise_for_status()
                except httpx2.HTTPError as error:
                    self._failed.append(str(error))
                # From when it was due: one that waits for another would have waited for the engine, too.
                self._taken.append(Span(due, time.perf_counter()))
                due += 1 / OTHERS_PER_SECOND


@dataclass(frozen=True)
class Bench:
    """The API server and the gateway."""

    api: httpx2.Client
    gateway: httpx2.Client

    def require_idle_demo(self) -> dict[str, Any]:
        """The version to copy; raises NotMeasurable where something is missing or in the way."""
        jobs = self.get(JOBS)["items"]
        if busy := [
            job["metadata"]["name"] for job in jobs if job.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        ]:
            raise NotMeasurable(f"FineTuneJob {', '.join(busy)} is under way: wait for its end, then run this again")
        versions = {version["metadata"]["name"]: version for version in self.get(VERSIONS)["items"]}
        for name in (KNOWN_VERSION, COPIED_VERSION):
            state = versions.get(name, {}).get("status", {}).get("state")
            if state not in ("Ready", "Deployed"):
                raise NotMeasurable(
                    f"ModelVersion {name} is {state or 'not there'}, and must be loaded: {RUN_THE_DEMO}"
                )
        if left := [name for name in versions if name.startswith(f"{FAMILY}-v")]:
            raise NotMeasurable(
                f"an interrupted run left {', '.join(left)}: "
                f"`kubectl --namespace {NAMESPACE} delete modelversion {' '.join(left)}`"
            )
        copied: dict[str, Any] = versions[COPIED_VERSION]
        return copied

    def hot_load(self, spec: dict[str, Any], number: int, adapters: "Adapters") -> Span:
        """The version is gone from API server and engine afterwards."""
        name = f"{FAMILY}-v{number}"
        body = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "ModelVersion",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec | {"model": FAMILY, "version": number, "state": "Ready", "promotion": "Manual"},
        }
        started = time.perf_counter()
        answer = self.api.post(VERSIONS, json=body)
        if answer.status_code != httpx2.codes.CREATED:
            raise DemoError(f"ModelVersion {name} was refused: {answer.text}")
        try:
            _poll(f"a token of {name}", lambda: self._first_token(name), HOT_LOAD_DEADLINE_SECONDS)
            return Span(started, time.perf_counter())
        finally:
            self.api.delete(f"{VERSIONS}/{name}").raise_for_status()
            _poll(f"the unloading of {name}", lambda: name not in adapters.loaded(), HOT_LOAD_DEADLINE_SECONDS)

    def restart(self, engine: str) -> Span:
        """Until a pod that was not there before answers for a version that was."""
        selector = {"labelSelector": f"finetune.dev/engine={engine}"}
        old = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in self.get(PODS, selector)["items"]}
        if not old:
            raise NotMeasurable(f"engine {engine} has no pod: {RUN_THE_DEMO}")

        def replaced() -> bool:
            pods = self.get(PODS, selector)["items"]
            return any(pod["metadata"]["uid"] not in old and _is_ready(pod) for pod in pods)

        started = time.perf_counter()
        for name in old.values():
            self.api.delete(f"{PODS}/{name}").raise_for_status()
        _poll("a new engine pod is ready", replaced, RESTART_DEADLINE_SECONDS)
        _poll(f"a token of {KNOWN_VERSION}", lambda: self._first_token(KNOWN_VERSION), RESTART_DEADLINE_SECONDS)
        taken = Span(started, time.perf_counter())
        # The next measurement must not share the machine with a pod that still shuts down.
        _poll(
            "the old engine pod is gone",
            lambda: not old.keys() & {pod["metadata"]["uid"] for pod in self.get(PODS, selector)["items"]},
            RESTART_DEADLINE_SECONDS,
        )
        return taken

    def get(self, path: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
        """One object or list of the API server."""
        body: dict[str, Any] = self.api.get(path, params=parameters).raise_for_status().json()
        return body

    def _first_token(self, model: str) -> bool:
        return _first_token(self.gateway, model)


def _first_token(server: httpx2.Client, model: str) -> bool:
    """Whether the first event of a streamed answer came."""
    body = {"model": model, "stream": True, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    with server.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != httpx2.codes.OK:
            return False
        return any(line.startswith("data: {") and '"choices"' in line for line in answer.iter_lines())


@dataclass(frozen=True)
class Adapters:
    """The engine itself, asked through its Service each time anew, since pods come and go."""

    kubectl: Kubectl
    engine: str

    def loaded(self) -> frozenset[str]:
        """Served names."""
        with self._server() as server:
            answer = server.get("/v1/models")
        return frozenset(model["id"] for model in answer.raise_for_status().json()["data"])

    def bare_load(self, artifact: dict[str, str], name: str) -> Span:
        """Load the artifact by hand and ask it for a token; it is gone afterwards."""
        path = f"{ARTIFACTS_ROOT}/{artifact['uri'].removeprefix('volume://').split('/', 1)[1]}"
        with self._server() as server:
            started = time.perf_counter()
            server.post(
                "/v1/load_lora_adapter",
                json={"lora_name": name, "lora_path": path},
                headers={ADAPTER_DIGEST_HEADER: artifact["digest"]},
            ).raise_for_status()
            try:
                _poll(f"a token of {name}", lambda: _first_token(server, name), HOT_LOAD_DEADLINE_SECONDS)
                return Span(started, time.perf_counter())
            finally:
                server.post("/v1/unload_lora_adapter", json={"lora_name": name}).raise_for_status()

    @contextmanager
    def _server(self) -> Iterator[httpx2.Client]:
        secret = self.kubectl.get("secret", f"{RELEASE}-internal")
        key = base64.b64decode(secret["data"]["engine-api-key"]).decode()
        with (
            service_url(self.kubectl, self.engine, 8000) as url,
            httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client,
        ):
            # So that the connection is there when time is taken, as the gateway's is.
            client.get("/health").raise_for_status()
            yield client


@contextmanager
def _api_server(kubectl: Kubectl) -> Iterator[str]:
    """`kubectl proxy` on a free port; yields its URL."""
    process = subprocess.Popen(
        [kubectl.program, "proxy", "--port=0"], stdout=subprocess.PIPE, text=True, env=kubectl.environment()
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "Starting to serve on" not in line:
            raise DemoError(f"kubectl proxy said {line.strip()!r}")
        yield f"http://{line.split()[-1]}"
    finally:
        process.terminate()
        process.wait()


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _poll(what: str, check: Callable[[], bool], deadline_seconds: float) -> None:
    """Ask as fast as a client would notice; a connection that breaks while a pod changes is one more "not yet"."""
    deadline = time.perf_counter() + deadline_seconds
    while True:
        with suppress(httpx2.TransportError, json.JSONDecodeError):
            if check():
                return
        if time.perf_counter() > deadline:
            raise DemoError(f"{what} did not come within {deadline_seconds:.0f} s")
        time.sleep(POLL_SECONDS)
