"""Who made a version the active one, or ceased to, and why; as `metadata.managedFields` and the tests tell."""

from dataclasses import dataclass

import pytest

from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import HistoryEntry, ModelVersion
from tests.builders import Object, after, make_test, make_version
from tests.unit.reconcile.engines import decide, engine_pod, loaded, status_of, world

TIMES = {"early": "2026-01-01T10:00:00Z", "late": "2026-01-01T11:00:00Z"}
WON = make_test(status={"phase": "Concluded", "verdict": "Won", "concludedAt": "2026-01-01T11:30:00Z"})
LOST = make_test(
    {"onLoss": "Rollback"}, status={"phase": "Concluded", "verdict": "Lost", "concludedAt": "2026-01-01T11:30:00Z"}
)


def set_by(version: ModelVersion, **managers: str) -> ModelVersion:
    """The version, its fields of the spec last set by these; after a comma who else has set it, before."""
    fields: list[Object] = []
    for name, owners in managers.items():
        for time, manager in zip(("late", "early"), owners.split(","), strict=False):
            entry = {"manager": manager, "time": TIMES[time], "fieldsV1": {"f:spec": {f"f:{name}": {}}}}
            fields.append(entry)
    body = version.to_dict()
    body["metadata"]["managedFields"] = fields
    return ModelVersion.parse(body)


@dataclass(frozen=True)
class Change:
    """A version at the moment of a change, and one of its model beside it."""

    version: ModelVersion
    other: ModelVersion | None = None
    tests: tuple[ABTest, ...] = ()
    is_gone: bool = False
    """Whether the engine has lost the version."""


def entry(change: Change) -> HistoryEntry:
    """What the version writes into its history then."""
    version, others = change.version, (change.other,) if change.other else ()
    listed = {v.metadata.name for v in (version, *others)} - ({version.metadata.name} if change.is_gone else set())
    seen = world(version, *others, pods=(engine_pod(*listed),), tests=change.tests)
    history = status_of(decide(version, seen)).history
    assert len(history) == len(version.status.history) + 1
    return history[-1]


LIVE = loaded(1, active=True)
RIVAL = loaded(2, active=True)
PINNED = set_by(make_version(2, {"state": "Deployed"}), state="kubectl-patch,argocd-controller")
ALWAYS = make_version(2, {"promotion": "Always"})
HAND_MADE: Object = {"promotion": "Always", "lineage": {"fineTuneJob": None}}
EARLIER = loaded(1, promotedAt="2026-01-01T10:00:00.000000Z")
AWAY = loaded(2, promotedAt="2026-01-01T11:00:00.000000Z", message="no engine pod is ready yet", conditions=[])

BECAME: dict[str, tuple[Change, str | None, str]] = {
    "pinned by hand, after Argo CD": (Change(PINNED, LIVE), "kubectl-patch", "spec.state is Deployed"),
    "pinned, nobody knows by whom": (
        Change(make_version(2, {"state": "Deployed"}), LIVE),
        None,
        "spec.state is Deployed",
    ),
    "published by a job": (
        Change(set_by(ALWAYS, promotion="finetune-operator"), LIVE),
        "FineTuneJob plato-job-2",
        "spec.promotion is Always",
    ),
    "published by a job, and changed by hand": (
        Change(set_by(ALWAYS, promotion="kubectl-edit,finetune-operator"), LIVE),
        "kubectl-edit",
        "spec.promotion is Always",
    ),
    "made by hand": (
        Change(set_by(make_version(2, HAND_MADE), promotion="kubectl"), LIVE),
        "kubectl",
        "spec.promotion is Always",
    ),
    "won": (Change(loaded(2), LIVE, tests=(WON,)), "ABTest duel", "won ABTest duel"),
    "the candidate lost": (
        Change(EARLIER, loaded(2, promotedAt="2026-01-01T11:00:00.000000Z"), tests=(LOST,)),
        "ABTest duel",
        "candidate plato-v2 lost ABTest duel",
    ),
    "the one after it is taken back": (
        Change(EARLIER, set_by(loaded(2, {"state": "Ready"}, active=True), state="kubectl-edit")),
        "kubectl-edit",
        "spec.state of plato-v2 is Ready",
    ),
    "the one after it has lost its engine": (
        Change(EARLIER, AWAY),
        "finetune-operator",
        "plato-v2 is not loaded: no engine pod is ready yet",
    ),
    "the one after it is deleted": (
        Change(EARLIER, make_version(2, deleting=True, status=RIVAL.status.to_dict())),
        None,
        "plato-v2 is being deleted",
    ),
}
CANDIDATE = loaded(2)
WINNER = after(CANDIDATE, decide(CANDIDATE, world(CANDIDATE, LIVE, pods=(engine_pod("plato-v2"),), tests=(WON,))))
CEASED: dict[str, tuple[Change, str | None, str]] = {
    "taken back": (
        Change(set_by(loaded(1, {"state": "Ready"}, active=True), state="kubectl-patch")),
        "kubectl-patch",
        "spec.state is Ready",
    ),
    "another one is pinned": (
        Change(LIVE, set_by(loaded(2, {"state": "Deployed"}), state="argocd-controller")),
        "argocd-controller",
        "plato-v2 is active",
    ),
    "another one has won": (Change(LIVE, WINNER), "ABTest duel", "plato-v2 is active"),
    "its engine has lost it": (
        Change(RIVAL, EARLIER, is_gone=True),
        "finetune-operator",
        "plato-v1 is active, since this one is not loaded: loaded in 0 of 1 engine pods",
    ),
}


@pytest.mark.parametrize(("change", "who", "why"), (BECAME | CEASED).values(), ids=(BECAME | CEASED).keys())
def test_who_and_why(change: Change, who: str | None, why: str) -> None:
    found = entry(change)
    assert (found.who, found.why) == (who, why)


@pytest.mark.parametrize("change", [row[0] for row in BECAME.values()], ids=BECAME.keys())
def test_who_becomes_active_is_deployed(change: Change) -> None:
    assert entry(change).state == "Deployed"


def test_the_version_before_is_of_the_same_model() -> None:
    kant = loaded(1, {"model": "kant"}, active=True)
    seen = world(PINNED, kant, LIVE, pods=(engine_pod("plato-v1", "plato-v2"),))
    assert status_of(decide(PINNED, seen)).history[-1].previous == "plato-v1"


def test_a_cause_of_any_length_fits_the_schema() -> None:
    long = AWAY.model_copy(update={"status": AWAY.status.model_copy(update={"message": "x" * 4096})})
    assert len(entry(Change(EARLIER, long)).why) == 256


def test_both_sides_of_a_change_name_the_same_cause() -> None:
    promoted = after(ALWAYS, decide(ALWAYS, world(ALWAYS, LIVE, pods=(engine_pod("plato-v1", "plato-v2"),))))
    assert entry(Change(LIVE, promoted)).who == promoted.status.history[-1].who == "FineTuneJob plato-job-2"
