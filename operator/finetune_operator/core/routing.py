"""Who answers to which model name, decided from the ModelVersions and ABTests alone.

The gateway swaps the whole `RouteTable` on each change; the operator uses `active_version` for what it reports.
A name never falls through to another model: it has one answerer, a reason why it has none, or several meanings.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from finetune_operator.core.conditions import is_true
from finetune_operator.core.group_sequential import votes_bound
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.split import assign, is_shadowed
from finetune_operator.resources.abtest import ABTest, Arm, TestPhase
from finetune_operator.resources.common import BaseModelRef
from finetune_operator.resources.modelversion import ModelVersion, RequestedState

EngineUrl = Callable[[str, str], str]
"""Base URL of an engine, from the name of its Service and its namespace."""

NEVER = datetime.min.replace(tzinfo=UTC)
PAIRS_MAX = 10_000
"""More than people judge; each comparison looks at all that are kept."""
INACTIVE_STATES = (RequestedState.READY, RequestedState.ARCHIVED)


class Meaning(StrEnum):
    """What a name stands for."""

    ALIAS = "alias"
    VERSION = "version"
    BASE_MODEL = "base model"


@dataclass(frozen=True)
class Target:
    """A model in an engine that has it loaded."""

    url: str
    served_name: str
    parent: str | None = None
    """The base model's name; none for a base model."""
    version_uid: str | None = None
    """Of the ModelVersion; none for a base model."""


@dataclass(frozen=True)
class Unavailable:
    """Why a known name can't answer. It may be `temporary`, so that asking again later makes sense."""

    message: str
    served_name: str | None = None
    temporary: bool = True


Answerer = Target | Unavailable


@dataclass(frozen=True)
class Pairing:
    """Which share of the copied requests people are to judge, and how many of them at most."""

    percent: int
    max_count: int


@dataclass(frozen=True)
class Split:
    """A running ABTest: each subject has one arm, whether that can answer or not.

    Of the baseline's subjects `shadow_percent` also have their requests copied to the candidate. The texts of both
    answers are kept where there is a `pairing`, and never otherwise.
    """

    test_name: str
    test_uid: str
    candidate_percent: int
    baseline: Answerer
    candidate: Answerer
    shadow_percent: int = 0
    pairing: Pairing | None = None

    def arm_of(self, subject: str) -> Arm:
        return assign(self.test_uid, subject, self.candidate_percent)

    def is_shadowed(self, subject: str) -> bool:
        return is_shadowed(self.test_uid, subject, self.candidate_percent, self.shadow_percent)

    def answerer(self, arm: Arm) -> Answerer:
        return self.candidate if arm is Arm.CANDIDATE else self.baseline


@dataclass(frozen=True)
class Route:
    """One name in one namespace."""

    namespace: str
    name: str
    meaning: Meaning
    destination: Target | Split | Unavailable

    @property
    def qualified_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def answers(self) -> bool:
        match self.destination:
            case Split(baseline=baseline, candidate=candidate):
                return isinstance(baseline, Target) or isinstance(candidate, Target)
            case destination:
                return isinstance(destination, Target)


@dataclass(frozen=True)
class RouteTable:
    """All names; `routes_of` gives one route, none for an unknown name, or several for one that needs a namespace."""

    routes: tuple[Route, ...] = ()
    _by_name: Mapping[str, tuple[Route, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        by_name: dict[str, tuple[Route, ...]] = {}
        for route in self.routes:
            for name in (route.name, route.qualified_name):
                by_name[name] = (*by_name.get(name, ()), route)
        object.__setattr__(self, "_by_name", by_name)

    def routes_of(self, name: str) -> tuple[Route, ...]:
        return self._by_name.get(name, ())

    def public_name(self, route: Route) -> str:
        """The shortest name that means this route alone."""
        return route.name if len(self.routes_of(route.name)) == 1 else route.qualified_name


def active_version(versions: Iterable[ModelVersion]) -> ModelVersion | None:
    """The version that the alias of one model stands for, if any can answer.

    Pinned versions (spec.state Deployed) win over promoted ones. A pin that the operator has not yet acted upon
    (status.observedState) is younger than any that it has stamped; after that, the latest promotion wins. Who failed
    while it was active comes last until it has proved steady, unless it is pinned anew: an engine that comes and goes
    would have the model's answers come and go with it.
    """
    return max((version for version in versions if _is_eligible(version)), key=_precedence, default=None)


def _is_eligible(version: ModelVersion) -> bool:
    wanted = version.spec.state is RequestedState.DEPLOYED or version.status.promoted_at is not None
    return wanted and is_loaded(version) and version.spec.state not in INACTIVE_STATES


def _precedence(version: ModelVersion) -> tuple[bool, bool, bool, datetime, int]:
    promoted_at = version.status.promoted_at or NEVER
    is_trusted = version.status.failed_over_at is None or is_fresh_pin(version)
    return is_trusted, _is_pinned(version), is_fresh_pin(version), promoted_at, version.spec.version


def _is_pinned(version: ModelVersion) -> bool:
    return version.spec.state is RequestedState.DEPLOYED


def is_fresh_pin(version: ModelVersion) -> bool:
    """Asked for by its spec, and not yet acted upon by the operator."""
    return _is_pinned(version) and version.status.observed_state is not RequestedState.DEPLOYED


def rival_pins(pinned: ModelVersion, family: Iterable[ModelVersion]) -> tuple[ModelVersion, ...]:
    """Other pins of its model that may win over this one, now or once the operator has acted upon both.

    A fresh pin wins over those that have been acted upon; pinning once more what is pinned already makes none fresh.
    """
    others = (other for other in family if _is_pinned(other) and other.metadata.name != pinned.metadata.name)
    return tuple(other for other in others if is_fresh_pin(other) or not is_fresh_pin(pinned))


def is_loaded(version: ModelVersion) -> bool:
    """Whether the version answers to its own name."""
    loaded = is_true(version.status.conditions, "Loaded")
    return loaded and version.status.engine is not None and not version.deleting


def base_engines(base_model: BaseModelRef, versions: Iterable[ModelVersion]) -> tuple[str, ...]:
    """Engines that answer for the base model itself: those of versions that they serve as adapters, in a stable order.

    The versions are those of one namespace."""
    engines = {
        version.status.engine
        for version in versions
        if is_loaded(version) and version.status.engine and version.spec.base_model == base_model
    }
    return tuple(sorted(engine for engine in engines if not is_merged_engine(engine)))


def build_routes(versions: Iterable[ModelVersion], tests: Iterable[ABTest], engine_url: EngineUrl) -> RouteTable:
    """All names of all namespaces, in a stable order. Pure: the same resources give the same table."""
    versions_of: dict[str, list[ModelVersion]] = {}
    for version in versions:
        versions_of.setdefault(version.metadata.namespace, []).append(version)
    tests_of: dict[str, list[ABTest]] = {}
    for test in tests:
        tests_of.setdefault(test.metadata.namespace, []).append(test)
    routes = [
        route
        for namespace, members in versions_of.items()
        for route in _Namespace(namespace, members, tests_of.get(namespace, []), engine_url).routes()
    ]
    return RouteTable(tuple(sorted(routes, key=lambda route: (route.namespace, route.name, route.meaning))))


class _Namespace:
    """The names of one namespace; references never leave it."""

    def __init__(
        self, namespace: str, versions: Iterable[ModelVersion], tests: Iterable[ABTest], engine_url: EngineUrl
    ) -> None:
        self._namespace = namespace
        self._versions = {version.metadata.name: version for version in versions}
        self._tests = tuple(tests)
        self._engine_url = engine_url

    def routes(self) -> Iterable[Route]:
        for name, version in self._versions.items():
            yield Route(self._namespace, name, Meaning.VERSION, self._version(version))
        here = (version.spec.base_model for version in self._versions.values())
        for base_model in _distinct(model for model in here if model.source.openai is None):
            yield Route(self._namespace, base_model.name, Meaning.BASE_MODEL, self._base_model(base_model))
        for model in sorted({version.spec.model for version in self._versions.values()}):
            yield Route(self._namespace, model, Meaning.ALIAS, self._alias(model))

    def _version(self, version: ModelVersion) -> Answerer:
        name, served_name = version.metadata.name, version.status.served_name or version.metadata.name
        if is_loaded(version) and version.status.engine:
            url = self._engine_url(version.status.engine, self._namespace)
            return Target(url, served_name, version.spec.base_model.name, version.metadata.uid)
        if version.deleting:
            return Unavailable(f"{name} is being deleted", served_name, temporary=False)
        if version.spec.state is RequestedState.ARCHIVED:
            return Unavailable(f"{name} is archived: set its spec.state to Ready", served_name, temporary=False)
        if (provider := version.spec.artifact.base_url) is not None:
            return Unavailable(f"{name} answers at its provider, {provider}, not here", served_name, temporary=False)
        if version.spec.serving is None:
            return Unavailable(f"{name} is only registered: set its spec.serving", served_name, temporary=False)
        reason = f": {version.status.message}" if version.status.message else ""
        return Unavailable(f"{name} is not loaded{reason}", served_name)

    def _base_model(self, base_model: BaseModelRef, preferred_engine: str | None = None) -> Answerer:
        """Any engine with adapters on it has it; the one that a test's candidate is in makes the fairest baseline."""
        engines = base_engines(base_model, self._versions.values())
        if not engines:
            message = f"base model {base_model.name} has no running engine: it needs a loaded version that is served"
            return Unavailable(f"{message} as an adapter (spec.serving without mergedWeights)", base_model.name)
        engine = preferred_engine if preferred_engine in engines else engines[0]
        return Target(self._engine_url(engine, self._namespace), base_model.name)

    def _alias(self, model: str) -> Target | Split | Unavailable:
        family = [version for version in self._versions.values() if version.spec.model == model]
        active = active_version(family)
        running = [test for test in self._tests if test.spec.model == model and takes_traffic(test)]
        if running:
            oldest = min(running, key=lambda test: (test.status.start_time or NEVER, test.metadata.uid))
            if _is_heeded(oldest, active):
                return self._split(oldest)
        if active is not None:
            return self._version(active)
        wanted = sorted(version.metadata.name for version in family if _is_wanted(version))
        if wanted:
            return Unavailable(f"{model} has no loaded active version; {', '.join(wanted)} is not loaded")
        return Unavailable(f"{model} has no active version: promote one, or set the spec.state of one to Deployed")

    def _split(self, test: ABTest) -> Split:
        candidate = self._arm(test.spec.candidate.model_version)
        if test.spec.baseline.model_version:
            baseline = self._arm(test.spec.baseline.model_version)
        else:
            baseline = self._base_arm(test.spec.candidate.model_version)
        traffic = test.spec.traffic
        return Split(
            test.metadata.name,
            test.metadata.uid,
            traffic.candidate_percent,
            baseline,
            candidate,
            shadow_percent=traffic.shadow_percent,
            pairing=Pairing(traffic.pair_percent, min(votes_bound(test.spec.decision), PAIRS_MAX))
            if traffic.pair_percent
            else None,
        )

    def _arm(self, version_name: str) -> Answerer:
        version = self._versions.get(version_name)
        if version is None:
            return Unavailable(f"{version_name} does not exist", version_name)
        return self._version(version)

    def _base_arm(self, candidate_name: str) -> Answerer:
        candidate = self._versions.get(candidate_name)
        if candidate is None:
            return Unavailable(f"{candidate_name} does not exist, so its base model is unknown")
        return self._base_model(candidate.spec.base_model, preferred_engine=candidate.status.engine)


def takes_traffic(test: ABTest) -> bool:
    """Whether requests to the alias are divided or copied now; a test that copies alone must not change who answers.

    One that somebody has cancelled is over, whether or not the operator is there to say so.
    """
    running = test.status.phase is TestPhase.RUNNING and test.status.verdict is None
    return running and test.spec.traffic.any and not test.spec.cancel and not test.deleting


def is_pinned_since(test: ABTest, active: ModelVersion | None) -> bool:
    """Whether somebody has pinned what is active after the test began: a rollback does not wait for a verdict."""
    if active is None or not _is_pinned(active):
        return False
    started, pinned = test.status.start_time, active.status.promoted_at
    return is_fresh_pin(active) or (started is not None and pinned is not None and pinned > started)


def _is_heeded(test: ABTest, active: ModelVersion | None) -> bool:
    """Who divides requests gives way to a younger pin; who copies them, to whatever else answers."""
    if test.spec.traffic.candidate_percent > 0:
        return not is_pinned_since(test, active)
    return is_baseline(test, active)


def is_baseline(test: ABTest, active: ModelVersion | None) -> bool:
    """Whether the test's baseline is what answers to the alias without the test."""
    return active is not None and active.metadata.name == test.spec.baseline.model_version


def _is_wanted(version: ModelVersion) -> bool:
    promoted = version.status.promoted_at is not None and version.spec.state not in INACTIVE_STATES
    return promoted or version.spec.state is RequestedState.DEPLOYED


def _distinct(base_models: Iterable[BaseModelRef]) -> Iterable[BaseModelRef]:
    """Two different models of one name stay two routes, hence ambiguous rather than interchangeable."""
    found: dict[str, BaseModelRef] = {}
    for base_model in base_models:
        found[base_model.model_dump_json()] = base_model
    return found.values()
