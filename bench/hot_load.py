"""From the creation of a ModelVersion to its first token: against a bare load at the engine, against the restart of its
pod, and what the others notice of it.

A bare load is what anybody could do by curl: POST the adapter to vLLM, and ask for a token. Runs on the demo's node and
leaves the engine with the adapters that it had. Requests go through the gateway, as a client's do; the API server is
reached by `kubectl proxy`, since a kubectl process for each request would be measured too. `hot_load` takes the demo's
adapter, of less than 1 MB, `hot_load_large` one of 100 MB.
"""

import base64
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

from bench.cluster import RUN_THE_DEMO, demo_kubectl, service_url
from bench.cores import cores_apart
from bench.large_adapter import large_version
from bench.other_traffic import Others, Pods, Span, cpu_seconds, since
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
HOT_LOADS, LARGE_HOT_LOADS, RESTARTS = 60, 30, 2
# Of both, an engine on one core without a GPU can do more than twice as many.
OTHERS_PER_SECOND, OTHERS_OF_LARGE_PER_SECOND = 10.0, 4.0
RESTART_GOAL, BARE_GOAL, OTHERS_GOAL = 20, 1.2, 1.1
# The operator looks at the engine a few times more, and takes out what it does not know.
SETTLE_SECONDS = 1.0
POLL_SECONDS = 0.005
HOT_LOAD_DEADLINE_SECONDS, RESTART_DEADLINE_SECONDS = 60.0, 600.0
VERSIONS = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/modelversions"
JOBS = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PODS_TOLD = ("operator", "gateway", "engine")
CPU_UNKNOWN = "CPU time: not measurable, since this machine is not the pods' node"


def measure() -> Report:
    """Both ways in one run; raises NotMeasurable where the demo is not there, or busy."""
    return _measure(lambda kubectl, copied: nullcontext(Subject(KNOWN_VERSION, copied)))


def measure_large() -> Report:
    """As `measure`, with an adapter of 100 MB on an engine of its own."""

    @contextmanager
    def large(kubectl: Kubectl, copied: dict[str, Any]) -> Iterator[Subject]:
        with large_version(kubectl, copied) as version:
            yield Subject(version["metadata"]["name"], version, LARGE_HOT_LOADS, OTHERS_OF_LARGE_PER_SECOND)

    return _measure(large)


@dataclass(frozen=True)
class Subject:
    """The loaded version that others ask meanwhile, and the one whose artifact is loaded again and again."""

    known: str
    copied: dict[str, Any]
    loads: int = HOT_LOADS
    others_per_second: float = OTHERS_PER_SECOND


def _measure(subject_of: Callable[[Kubectl, dict[str, Any]], AbstractContextManager[Subject]]) -> Report:
    kubectl = demo_kubectl()
    try:
        with ExitStack() as stack:
            gateway = stack.enter_context(service_url(kubectl, f"{RELEASE}-gateway"))
            api = httpx2.Client(base_url=stack.enter_context(_api_server(kubectl)), timeout=60)
            bench = Bench(api, httpx2.Client(base_url=gateway, timeout=60))
            subject = stack.enter_context(subject_of(kubectl, bench.require_idle_demo()))
            copied = subject.copied
            engine = copied["status"]["engine"]
            pods, adapters = bench.pods(engine), Adapters(kubectl, engine)
            before = adapters.loaded()
            loads = Loads()
            with (
                cores_apart(pods["engine"]) as apart,
                Others(gateway, subject.known, subject.others_per_second) as others,
            ):
                for number in range(1, subject.loads + 1):
                    loads.bare.append(adapters.bare_load(copied["spec"]["artifact"], f"bare-load-{number}", pods))
                    loads.hot.append(bench.hot_load(copied["spec"], number, adapters, pods))
                    time.sleep(SETTLE_SECONDS)
            loads.restarts.extend(bench.restart(engine, subject.known) for _ in range(RESTARTS))
            kubectl.wait_for("the engine has its adapters", lambda: adapters.loaded() == before, 60)
    except (DemoError, httpx2.HTTPError) as error:
        raise NotMeasurable(f"{error}; if the demo is not up, {RUN_THE_DEMO}") from error
    return _report(loads, others, apart)


@dataclass(frozen=True)
class Loads:
    """What was timed."""

    bare: list[Span] = field(default_factory=list)
    hot: list[Span] = field(default_factory=list)
    restarts: list[Span] = field(default_factory=list)


def _report(loads: Loads, others: Others, apart: bool) -> Report:
    bare, hot, restart = (
        statistics.median(span.seconds for span in spans) for spans in (loads.bare, loads.hot, loads.restarts)
    )
    in_bare, in_hot, otherwise = others.meanwhile_and_else(loads.bare, loads.hot)
    p99_in_bare, p99_in_hot, p99_otherwise = (
        statistics.quantiles(taken, n=100)[98] for taken in (in_bare, in_hot, otherwise)
    )
    in_turn = f"median of {len(loads.hot)}, in turns"
    return Report(
        (
            Figure("bare load: posted -> first token", f"{bare:.3f} s", f"{in_turn}, at the engine"),
            *_cpu("bare load", loads.bare),
            Figure("hot load: created -> first token", f"{hot:.3f} s", f"{in_turn}, through the gateway"),
            *_cpu("hot load", loads.hot),
            _ratio("hot load / bare load", hot / bare, BARE_GOAL),
            Figure("others' p99 during hot loads", f"{p99_in_hot * 1000:.0f} ms", f"{len(in_hot)} requests"),
            Figure("others' p99 during bare loads", f"{p99_in_bare * 1000:.0f} ms", f"{len(in_bare)} requests"),
            Figure("others' p99 otherwise", f"{p99_otherwise * 1000:.0f} ms", f"{len(otherwise)} requests"),
            *(
                _ratio(f"others' p99, during hot loads / {name}", p99_in_hot / p99, OTHERS_GOAL)
                for name, p99 in (("during bare loads", p99_in_bare), ("otherwise", p99_otherwise))
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
        (
            *(() if loads.hot[0].cpu else (CPU_UNKNOWN,)),
            "the engine had a core of its own while it was not restarted"
            if apart
            else "the engine shared its cores with the control plane",
            *(
                f"{name}: " + ", ".join(f"{span.seconds:.3f} s" for span in spans)
                for name, spans in (("bare loads", loads.bare), ("hot loads", loads.hot), ("restarts", loads.restarts))
            ),
        ),
    )


def _cpu(name: str, spans: Sequence[Span]) -> Iterator[Figure]:
    """Of the pods in the time of one load, which has a share of the others' requests in it."""
    for what in PODS_TOLD:
        if known := [span.cpu[what] for span in spans if what in span.cpu]:
            yield Figure(f"{name}: CPU time of the {what}", f"{statistics.median(known):.3f} s", "median of the same")


def _ratio(name: str, ratio: float, goal: float) -> Figure:
    return Figure(name, f"{ratio:.2f}", "ratio of the two", f"<= {goal:g}", ratio <= goal)


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

    def pods(self, engine: str) -> Pods:
        """Those of the operator, the gateway and this engine, as they are now."""
        release = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component"
        selectors = dict(
            zip(
                PODS_TOLD,
                (f"{release}=operator", f"{release}=gateway", f"finetune.dev/engine={engine}"),
                strict=True,
            )
        )
        return {
            what: [pod["metadata"]["uid"] for pod in self.get(PODS, {"labelSelector": selector})["items"]]
            for what, selector in selectors.items()
        }

    def hot_load(self, spec: dict[str, Any], number: int, adapters: "Adapters", pods: Pods) -> Span:
        """The version is gone from API server and engine afterwards."""
        name = f"{FAMILY}-v{number}"
        body = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "ModelVersion",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec | {"model": FAMILY, "version": number, "state": "Ready", "promotion": "Manual"},
        }
        used, started = cpu_seconds(pods), time.perf_counter()
        answer = self.api.post(VERSIONS, json=body)
        if answer.status_code != httpx2.codes.CREATED:
            raise DemoError(f"ModelVersion {name} was refused: {answer.text}")
        try:
            _poll(f"a token of {name}", lambda: self._first_token(name), HOT_LOAD_DEADLINE_SECONDS)
            return Span(started, time.perf_counter(), since(used, cpu_seconds(pods)))
        finally:
            self.api.delete(f"{VERSIONS}/{name}").raise_for_status()
            _poll(f"the unloading of {name}", lambda: name not in adapters.loaded(), HOT_LOAD_DEADLINE_SECONDS)

    def restart(self, engine: str, version: str) -> Span:
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
        _poll(f"a token of {version}", lambda: self._first_token(version), RESTART_DEADLINE_SECONDS)
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

    def bare_load(self, artifact: dict[str, str], name: str, pods: Pods) -> Span:
        """Load the artifact by hand and ask it for a token; it is gone afterwards."""
        path = f"{ARTIFACTS_ROOT}/{artifact['uri'].removeprefix('volume://').split('/', 1)[1]}"
        with self._server() as server:
            used, started = cpu_seconds(pods), time.perf_counter()
            server.post(
                "/v1/load_lora_adapter",
                json={"lora_name": name, "lora_path": path},
                headers={ADAPTER_DIGEST_HEADER: artifact["digest"]},
            ).raise_for_status()
            try:
                _poll(f"a token of {name}", lambda: _first_token(server, name), HOT_LOAD_DEADLINE_SECONDS)
                return Span(started, time.perf_counter(), since(used, cpu_seconds(pods)))
            finally:
                unloaded = server.post("/v1/unload_lora_adapter", json={"lora_name": name})
                # The operator may have been quicker: it takes out what it does not know.
                if unloaded.status_code != httpx2.codes.NOT_FOUND:
                    unloaded.raise_for_status()

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
