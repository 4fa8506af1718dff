"""From the creation of a ModelVersion to its first token, hot-loaded, against the restart of the engine's pod.

Runs on the demo's node and leaves the engine with the adapters that it had. Requests go through the gateway, as a
client's do; the API server is reached by `kubectl proxy`, since a kubectl process for each request would be measured
too.
"""

import base64
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from bench.cluster import RUN_THE_DEMO, demo_kubectl
from bench.report import Figure, NotMeasurable, Report
from demo.install import RELEASE
from demo.kubectl import DemoError, Kubectl
from demo.story import FIRST, SECOND
from demo.target import NAMESPACE

KNOWN_VERSION, COPIED_VERSION = FIRST, SECOND
# A family of its own: the numbers of the demo's family, and what its alias answers, stay as they are.
FAMILY = "hot-load"
HOT_LOADS, RESTARTS = 5, 2
GOAL_RATIO = 20
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
                httpx2.Client(base_url=stack.enter_context(kubectl.port_forward(f"{RELEASE}-gateway")), timeout=60),
            )
            copied = bench.require_idle_demo()
            adapters = _Adapters(kubectl, copied["status"]["engine"])
            before = adapters.loaded()
            hot = [bench.hot_load(copied["spec"], number + 1, adapters) for number in range(HOT_LOADS)]
            restarts = [bench.restart(copied["status"]["engine"]) for _ in range(RESTARTS)]
            kubectl.wait_for("the engine has its adapters", lambda: adapters.loaded() == before, 60)
    except (DemoError, httpx2.HTTPError) as error:
        raise NotMeasurable(f"{error}; if the demo is not up, {RUN_THE_DEMO}") from error
    return _report(hot, restarts)


def _report(hot: list[float], restarts: list[float]) -> Report:
    load, restart = statistics.median(hot), statistics.median(restarts)
    ratio = restart / load
    return Report(
        (
            Figure("hot load: created -> first token", f"{load:.3f} s", f"median of {len(hot)}, through the gateway"),
            Figure("pod restart: deleted -> first token", f"{restart:.1f} s", f"median of {len(restarts)}"),
            Figure("times faster", f"{ratio:.0f}", "ratio of the medians", f">= {GOAL_RATIO}", ratio >= GOAL_RATIO),
        ),
        (
            "hot loads: " + ", ".join(f"{seconds:.3f} s" for seconds in hot),
            "restarts: " + ", ".join(f"{seconds:.1f} s" for seconds in restarts),
        ),
    )


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

    def hot_load(self, spec: dict[str, Any], number: int, adapters: "_Adapters") -> float:
        """Seconds; the version is gone from API server and engine afterwards."""
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
            return time.perf_counter() - started
        finally:
            self.api.delete(f"{VERSIONS}/{name}").raise_for_status()
            _poll(f"the unloading of {name}", lambda: name not in adapters.loaded(), HOT_LOAD_DEADLINE_SECONDS)

    def restart(self, engine: str) -> float:
        """Seconds until a pod that was not there before answers for a version that was."""
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
        seconds = time.perf_counter() - started
        # The next measurement must not share the machine with a pod that still shuts down.
        _poll(
            "the old engine pod is gone",
            lambda: not old.keys() & {pod["metadata"]["uid"] for pod in self.get(PODS, selector)["items"]},
            RESTART_DEADLINE_SECONDS,
        )
        return seconds

    def get(self, path: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
        """One object or list of the API server."""
        body: dict[str, Any] = self.api.get(path, params=parameters).raise_for_status().json()
        return body

    def _first_token(self, model: str) -> bool:
        """Whether the first event of a streamed answer came."""
        body = {"model": model, "stream": True, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
        with self.gateway.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != httpx2.codes.OK:
                return False
            return any(line.startswith("data: {") and '"choices"' in line for line in answer.iter_lines())


@dataclass(frozen=True)
class _Adapters:
    """What the engine itself says that it has loaded."""

    kubectl: Kubectl
    engine: str

    def loaded(self) -> frozenset[str]:
        """Served names; asked anew through the Service, since pods come and go."""
        secret = self.kubectl.get("secret", f"{RELEASE}-internal")
        key = base64.b64decode(secret["data"]["engine-api-key"]).decode()
        with self.kubectl.port_forward(self.engine, 8000) as url:
            answer = httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=60)
        return frozenset(model["id"] for model in answer.raise_for_status().json()["data"])


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
