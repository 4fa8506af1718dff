"""What belongs together as a tree: job -> pods -> version -> engine -> tests. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from rich.text import Text
from rich.tree import Tree

from finetune_operator.cli.kinds import (
    STYLES,
    Standing,
    arms,
    found,
    job_state,
    money,
    sign,
    standing,
    styled,
    test_state,
    text,
    version_state,
)
from finetune_operator.cli.printing import SIGNS, Signs, age

JOB_LABEL = "finetune.dev/job"
ENGINE_LABEL = "finetune.dev/engine"
BAR_COLUMNS = 16
GUIDE_STYLE = "bright_black"
PAST_JOBS_SHOWN = 5
"""Of each model, those that have ended and of which nothing is served; `get jobs` lists all."""
POD_STATES = {"Succeeded": "Succeeded", "Failed": "Failed", "Running": "Running"}
TREE_PLURALS = ("finetunejobs", "pods", "modelversions", "deployments", "abtests", "batchinferences")
CHILD_SELECTOR = "app.kubernetes.io/managed-by=finetune-operator"

Object = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """All that there is in one or all namespaces, by plural; `unreadable` ones the caller may not list."""

    objects: Mapping[str, tuple[Object, ...]]
    unreadable: frozenset[str] = frozenset()

    def of(self, plural: str, namespace: str) -> list[Object]:
        here = [body for body in self.objects.get(plural, ()) if body["metadata"]["namespace"] == namespace]
        return sorted(
            here, key=lambda body: (text(body["metadata"].get("creationTimestamp")), body["metadata"]["name"])
        )

    @property
    def namespaces(self) -> list[str]:
        return sorted({body["metadata"]["namespace"] for bodies in self.objects.values() for body in bodies})


@dataclass
class _Namespace:
    """One namespace while its tree grows; what was shown is not shown again."""

    name: str
    snapshot: Snapshot
    now: datetime
    signs: Signs
    shown: set[str] = field(default_factory=set)
    """Uids of versions and tests."""
    _known: dict[str, list[Object]] = field(default_factory=dict)

    def of(self, plural: str) -> list[Object]:
        if plural not in self._known:
            self._known[plural] = self.snapshot.of(plural, self.name)
        return self._known[plural]

    @cached_property
    def pods(self) -> dict[str, list[Object]]:
        """By the name of their job."""
        return _by(self.of("pods"), lambda pod: found(pod, "metadata", "labels", JOB_LABEL))

    @cached_property
    def versions(self) -> dict[str, list[Object]]:
        """By the name of the job that made them."""
        return _by(self.of("modelversions"), lambda version: found(version, "spec", "lineage", "fineTuneJob"))

    @cached_property
    def tests(self) -> dict[str, list[Object]]:
        """By their candidates."""
        return _by(self.of("abtests"), lambda test: arms(test)[1])

    @cached_property
    def engines(self) -> dict[str, list[Object]]:
        """By their names."""
        return _by(self.of("deployments"), lambda deployment: deployment["metadata"]["name"])

    def versions_of(self, job: Object) -> list[Object]:
        """A later job of the same name has not made them."""
        uid = job["metadata"]["uid"]
        made = self.versions.get(job["metadata"]["name"], [])
        return [version for version in made if found(version, "spec", "lineage", "jobUid") in (None, uid)]


def _by(bodies: Iterable[Object], key: Callable[[Object], Any]) -> dict[str, list[Object]]:
    found_by: dict[str, list[Object]] = {}
    for body in bodies:
        if name := key(body):
            found_by.setdefault(name, []).append(body)
    return found_by


def trees(cluster: Snapshot, now: datetime, *, signs: Signs = SIGNS, namespaced: bool = False) -> list[Tree]:
    """One for each namespace that has something, or a single one without its name."""
    return [_tree(_Namespace(name, cluster, now, signs), namespaced=namespaced) for name in cluster.namespaces]


def _tree(here: _Namespace, *, namespaced: bool) -> Tree:
    root = Tree(
        Text(here.name, style="bold") if namespaced else Text(""), guide_style=GUIDE_STYLE, hide_root=not namespaced
    )
    jobs, versions, tests = here.of("finetunejobs"), here.of("modelversions"), here.of("abtests")
    models = dict.fromkeys(found(body, "spec", "model") for body in (*jobs, *versions, *tests))
    for model in models:
        family = root.add(_model_line(model, versions))
        own = [job for job in jobs if found(job, "spec", "model") == model]
        past = [job for job in own if _is_past(job, here)][:-PAST_JOBS_SHOWN]
        if past:
            family.add(Text(f"and {len(past)} earlier jobs: ftctl get jobs --model {model}", style="bright_black"))
            here.shown |= {version["metadata"]["uid"] for job in past for version in here.versions_of(job)}
        hidden = {job["metadata"]["uid"] for job in past}
        for job in own:
            if job["metadata"]["uid"] not in hidden:
                _add_job(family, job, here)
        for version in versions:
            if found(version, "spec", "model") == model and version["metadata"]["uid"] not in here.shown:
                _add_version(family, version, here)
        for test in tests:
            if found(test, "spec", "model") == model and test["metadata"]["uid"] not in here.shown:
                _add_test(family, test, here)
    for batch in here.of("batchinferences"):
        state = job_state(batch)
        parts = [
            Text(text(found(batch, "status", "progress", "summary"))),
            Text(text(found(batch, "spec", "modelVersion")), style="bright_black"),
        ]
        root.add(_line(here, "batch", batch, state, parts, message=standing(state) is Standing.BAD))
    return root


def _is_past(job: Object, here: _Namespace) -> bool:
    """It has ended, and nothing of it is served or tested."""
    has_ended = standing(job_state(job)) in (Standing.GOOD, Standing.BAD)
    return has_ended and not any(
        version_state(version) in ("Pending", "Ready", "Deployed") or version["metadata"]["name"] in here.tests
        for version in here.versions_of(job)
    )


def _model_line(model: Any, versions: Iterable[Object]) -> Text:
    deployed = [
        body["metadata"]["name"]
        for body in versions
        if found(body, "spec", "model") == model and version_state(body) == "Deployed"
    ]
    told = f"  answered by {', '.join(deployed)}" if deployed else "  not answered by any version"
    return Text.assemble((text(model), "bold"), (told, "bright_black"))


def _add_job(parent: Tree, job: Object, here: _Namespace) -> None:
    state = job_state(job)
    progress = found(job, "status", "progress") or {}
    cost = found(job, "status", "cost") or {}
    parts: list[Text] = []
    if progress and standing(state) in (Standing.BUSY, Standing.WAITING):
        parts.append(bar(progress.get("percent", 0), here.signs))
    if progress.get("loss") is not None:
        parts.append(Text(f"loss {progress['loss']}"))
    if progress.get("eta") and state == "Training":
        parts.append(Text(f"{progress['eta']} left"))
    if cost.get("spent") is not None:
        parts.append(Text(money(cost["spent"], cost.get("currency")), style="bright_black"))
    is_told = standing(state) in (Standing.BAD, Standing.WAITING)
    node = parent.add(_line(here, "job", job, state, parts, message=is_told))
    for pod in here.pods.get(job["metadata"]["name"], ()):
        _add_pod(node, pod, here)
    for version in here.versions_of(job):
        _add_version(node, version, here)


def _add_pod(parent: Tree, pod: Object, here: _Namespace) -> None:
    phase = text(found(pod, "status", "phase")) or "Pending"
    parts = [Text(text(found(pod, "spec", "nodeName")), style="bright_black")]
    if phase == "Pending" and (why := _waits_for(pod)):
        parts.append(Text(why, style="yellow"))
    restarts = sum(found(each, "restartCount") or 0 for each in found(pod, "status", "containerStatuses") or ())
    if restarts:
        parts.append(Text("1 restart" if restarts == 1 else f"{restarts} restarts", style="yellow"))
    parent.add(_line(here, "pod", pod, POD_STATES.get(phase, phase), parts))


def _waits_for(pod: Object) -> str:
    """Which container is at work, or what keeps the pod."""
    status = found(pod, "status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = container.get("state") or {}
        if "running" in state:
            return f"{container['name']} runs"
        if reason := found(state, "waiting", "reason"):
            if reason == "PodInitializing":
                continue
            return f"{container['name']}: {reason}"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return text(condition.get("reason"))
    return ""


def _add_version(parent: Tree, version: Object, here: _Namespace) -> None:
    here.shown.add(version["metadata"]["uid"])
    state, name = version_state(version), version["metadata"]["name"]
    parts = [Text(f"{found(version, 'status', 'replicas')} loaded")] if found(version, "status", "replicas") else []
    if state == "Deployed" and found(version, "status", "promotedAt"):
        since = age(found(version, "status", "promotedAt"), here.now)
        parts.append(Text(f"live for {since}", style="green"))
    if (rating := found(version, "status", "metrics", "ratings", "average")) is not None:
        parts.append(Text(f"rated {rating}"))
    is_told = state in ("Failed", "Pending")
    node = parent.add(_line(here, "version", version, state, parts, message=is_told))
    for deployment in here.engines.get(text(found(version, "status", "engine")), ()):
        _add_engine(node, deployment, here)
    for test in here.tests.get(name, ()):
        if test["metadata"]["uid"] not in here.shown:
            _add_test(node, test, here)


def _add_engine(parent: Tree, deployment: Object, here: _Namespace) -> None:
    wanted = found(deployment, "spec", "replicas")
    ready = found(deployment, "status", "readyReplicas") or 0
    wanted = 1 if wanted is None else wanted
    state = "Ready" if ready >= wanted > 0 else "Pending"
    parent.add(_line(here, "engine", deployment, state, [Text(f"{ready}/{wanted} pods")], word=""))


def _add_test(parent: Tree, test: Object, here: _Namespace) -> None:
    here.shown.add(test["metadata"]["uid"])
    state, status = test_state(test), found(test, "status") or {}
    votes = status.get("votes") or {}
    baseline, candidate = arms(test)
    parts = []
    if votes.get("total"):
        told = f"{votes['total']} votes"
        if votes.get("winRatePercent"):
            told += f", {votes['winRatePercent']} for {candidate}"
        parts.append(Text(told))
    if status.get("pValue") is not None:
        parts.append(Text(f"p {status['pValue']}"))
    if status.get("votesStillNeeded") and not status.get("verdict"):
        parts.append(Text(f"about {status['votesStillNeeded']} more needed", style="yellow"))
    parts.append(Text(f"against {baseline}", style="bright_black"))
    if status.get("split"):
        parts.append(Text(f"traffic {text(status['split'])}", style="bright_black"))
    parent.add(_line(here, "test", test, state, parts, message=state == "Pending"))


def bar(percent: int, signs: Signs = SIGNS) -> Text:
    """`━━━━━━━━  48%`."""
    share = min(max(int(percent), 0), 100)
    done = round(BAR_COLUMNS * share / 100)
    return Text.assemble(
        (signs.bar * done, STYLES[Standing.BUSY]),
        (signs.empty * (BAR_COLUMNS - done), GUIDE_STYLE),
        f" {share:>3}%",
    )


def _line(
    here: _Namespace,
    kind: str,
    body: Object,
    state: str,
    parts: Iterable[Text] = (),
    *,
    message: bool = False,
    word: str | None = None,
) -> Text:
    """`✔ job plato-1  Succeeded  loss 0.14`; what can't be shown on one line is cut at its end."""
    told = styled(state) if word is None else Text(word)
    cells = [told, *parts]
    if message and (fact := text(found(body, "status", "message"))):
        cells.append(Text(" ".join(fact.split()), style="red" if standing(state) is Standing.BAD else "bright_black"))
    line = Text.assemble(sign(state, here.signs), " ", (f"{kind} ", "bright_black"), body["metadata"]["name"])
    for cell in cells:
        if cell.plain:
            line.append("  ").append_text(cell)
    line.no_wrap = True
    line.overflow = "ellipsis"
    return line
