"""Which versions an engine has, and what brings it and its pods there.

A version belongs to the engine that its spec asks for. After a change of spec.serving that is another one, and until it
answers, the version also stays in the engine that it answers from. What a status says of an engine is what gateways
route by: nothing is taken away from a version before its status no longer says that it answers there.

An engine of merged weights has its version from its start on, and no other: nothing is loaded into it or taken out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.routing import active_version
from finetune_operator.core.workloads import PROGRESS_DEADLINE_EXCEEDED, DeploymentFacts, PodFacts
from finetune_operator.manifests.common import going_owner
from finetune_operator.manifests.serving import adapter_of, directory_in, engine_manifests, wanted_engine
from finetune_operator.reconcile.plan import (
    Action,
    Apply,
    ApplyEngine,
    Delete,
    LoadAdapter,
    Patch,
    Probe,
    UnloadAdapter,
)
from finetune_operator.resources.modelversion import ModelVersion, RequestedState

Versions = tuple[ModelVersion, ...]


@dataclass(frozen=True)
class Refusal:
    """Why an engine would not take an adapter or merged weights; final, since artifacts are immutable."""

    reason: str
    message: str


@dataclass(frozen=True)
class EnginePod:
    """An engine pod, and what is known of the versions in it, by served name; `listed` has their directories.

    Not `listed` yet is no news.
    """

    pod: PodFacts
    listed: Mapping[str, str] | None = field(default_factory=dict)
    probed: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """A Deployment of vLLM and its pods, as far as they are there."""

    name: str
    deployment: DeploymentFacts | None = None
    pods: tuple[EnginePod, ...] = ()


def is_archived(version: ModelVersion) -> bool:
    """Whether the user has retired it."""
    return version.spec.state is RequestedState.ARCHIVED


def is_refused(version: ModelVersion) -> bool:
    """Final while the spec stays as it is; an engine that takes too long is no refusal, nor is one pod of several."""
    stalled = find(version.status.conditions, "Stalled")
    if stalled is None or stalled.reason == PROGRESS_DEADLINE_EXCEEDED:
        return False
    if is_true(version.status.conditions, "Loaded") and version.status.next_engine is None:
        # It answers from the engine that it asks for.
        return False
    return stalled.observed_generation == version.metadata.generation


def answers_in(version: ModelVersion, engine: str) -> bool:
    """Whether requests are routed to it there."""
    return version.status.engine == engine and is_true(version.status.conditions, "Loaded")


def stays_in(version: ModelVersion, engine: str) -> bool:
    """Whether it is to answer from this engine until the one that its spec asks for does.

    Once it is being moved, also while it does not answer there for a moment: a pod that was lost comes back.
    """
    if version.status.engine != engine or version.spec.serving is None or is_archived(version):
        return False
    is_kept = version.status.next_engine is not None or is_true(version.status.conditions, "Loaded")
    return is_kept and wanted_engine(version) != engine


def sharing(engine: str, versions: Iterable[ModelVersion]) -> Versions:
    """All versions that name this engine, or stay in it."""
    found = [version for version in versions if wanted_engine(version) == engine or stays_in(version, engine)]
    return tuple(sorted(found, key=lambda version: (version.spec.model, version.spec.version)))


def served(engine: str, slots: int, versions: Versions) -> Versions:
    """As many as the engine has slots: the active, the pinned, the last promoted, the loaded, the newest.

    The rest wait: who answers for a whole model never loses its slot to somebody who does not.
    """
    active = active_names(versions)

    def rank(version: ModelVersion) -> tuple[bool, bool, float, bool, int]:
        promoted = version.status.promoted_at
        return (
            version.metadata.name in active,
            version.spec.state is RequestedState.DEPLOYED,
            promoted.timestamp() if promoted else 0.0,
            is_true(version.status.conditions, "Loaded"),
            version.spec.version,
        )

    present = sharing(engine, versions)
    wanting = (v for v in present if stays_in(v, engine) or not (is_archived(v) or is_refused(v)))
    chosen = {version.metadata.name for version in sorted(wanting, key=rank, reverse=True)[:slots]}
    return tuple(version for version in present if version.metadata.name in chosen)


def active_names(versions: Versions) -> frozenset[str]:
    """Of those that answer for a whole model."""
    families = {version.spec.model for version in versions}
    actives = (active_version(v for v in versions if v.spec.model == model) for model in families)
    return frozenset(version.metadata.name for version in actives if version)


def engine_actions(
    engine: Engine, residents: Versions, versions: Versions, config: OperatorConfig
) -> tuple[Action, ...]:
    """Make the engine as its `residents` need it, or let it go with the last of them."""
    deployment = engine.deployment
    if not residents:
        if deployment is None or any(answers_in(version, engine.name) for version in versions):
            return ()
        return (_removal(engine, deployment),)
    config_map, service, wanted = engine_manifests(engine.name, residents, sharing(engine.name, versions), config)
    revision = next(iter(wanted["metadata"]["annotations"].values()))
    if deployment and deployment.revision == revision:
        return ()
    children = (Apply("configmaps", config_map), Apply("services", service), Apply("deployments", wanted))
    return (ApplyEngine(engine.name, revision, children),)


def leave_actions(engines: Iterable[Engine], versions: Versions) -> tuple[Action, ...]:
    """Engines that nobody asks for, nor answers from any more, go: their GPUs may be what others need."""
    return tuple(
        _removal(engine, engine.deployment)
        for engine in engines
        if engine.deployment and not any(_is_in(version, engine.name) for version in versions)
    )


def _removal(engine: Engine, deployment: DeploymentFacts) -> Delete:
    """Service and ConfigMap belong to its versions, which stay: so they are given to what goes.

    Not to the Deployment alone: a gateway that hears of it later still reaches a pod that drains. Who asks for the
    engine again meanwhile becomes their owner anew.
    """
    pods = [entry.pod for entry in engine.pods]
    owners = [
        going_owner("apps/v1", "Deployment", engine.name, deployment.uid),
        *(going_owner("v1", "Pod", pod.name, pod.uid) for pod in pods),
    ]
    body = {"metadata": {"ownerReferences": owners}}
    given = tuple(Patch(plural, engine.name, body) for plural in ("services", "configmaps"))
    return Delete("deployments", engine.name, deployment.uid, given)


def _is_in(version: ModelVersion, engine: str) -> bool:
    return answers_in(version, engine) or stays_in(version, engine) or wanted_engine(version) == engine


def unload_actions(engine: Engine, residents: Versions, versions: Versions) -> tuple[UnloadAdapter, ...]:
    """Adapters that no resident names, or that a version of that name had before it was created anew."""
    if is_merged_engine(engine.name):
        return ()
    kept = {adapter_of(v).name: adapter_of(v).path for v in versions if answers_in(v, engine.name)}
    kept |= {adapter_of(v).name: adapter_of(v).path for v in residents}
    return tuple(
        UnloadAdapter(entry.pod.uid, entry.pod.ip, name)
        for entry in engine.pods
        if entry.pod.ready and entry.pod.ip
        for name, directory in sorted((entry.listed or {}).items())
        if kept.get(name) != directory
    )


def load_actions(
    version: ModelVersion, engine: Engine, slots: int | None = None, unloads: Iterable[UnloadAdapter] = ()
) -> tuple[LoadAdapter | Probe, ...]:
    """Into each pod that lacks it and has a slot once the `unloads` are done: vLLM evicts, where it has none.

    A pod that has started with it is only asked for a token.
    """
    lacking = tuple(_without(version, engine))
    if is_merged_engine(engine.name):
        name, directory = version.metadata.name, directory_in(version, engine.name)
        return tuple(
            Probe(entry.pod.uid, ip, name)
            for entry, ip in lacking
            if entry.listed is None or entry.listed.get(name) == directory
        )
    adapter = adapter_of(version)
    going = {(action.pod_uid, action.name) for action in unloads}

    def has_room(entry: EnginePod) -> bool:
        staying = [name for name in entry.listed or () if (entry.pod.uid, name) not in going]
        return slots is None or adapter.name in staying or len(staying) < slots

    return tuple(LoadAdapter(entry.pod.uid, ip, adapter) for entry, ip in lacking if has_room(entry))


def _without(version: ModelVersion, engine: Engine) -> Iterator[tuple[EnginePod, str]]:
    """Pods that could answer for the version and do not, with their addresses."""
    for entry in engine.pods:
        if entry.pod.ready and entry.pod.ip and not entry.pod.deleting and not answers(version, engine, entry):
            yield entry, entry.pod.ip


def answers(version: ModelVersion, engine: Engine, entry: EnginePod) -> bool:
    """Listed, and asked for a token once; a listing is enough where an earlier operator had already asked.

    A pod that can't be asked just now is believed to be as it was: a busy engine must not lose its traffic.
    """
    name, did_answer = version.metadata.name, answers_in(version, engine.name)
    if entry.listed is None:
        return did_answer
    return entry.listed.get(name) == directory_in(version, engine.name) and (name in entry.probed or did_answer)
