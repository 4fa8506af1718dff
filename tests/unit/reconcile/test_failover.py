"""An active version whose engine comes and goes: another one takes over once, until the first has proved steady."""

from datetime import datetime, timedelta

from finetune_operator.core.routing import active_version
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import CONFIG, NOON, Object, after
from tests.unit.reconcile.engines import decide, engine_pod, loaded, world

STANDBY = loaded(1, promotedAt="2026-01-01T10:00:00.000000Z")
LIVE = loaded(2, active=True)
STEADY = CONFIG.steady_seconds


def seconds(count: float) -> datetime:
    return NOON + timedelta(seconds=count)


def looked_at(version: ModelVersion, *listed: str, now: datetime) -> ModelVersion:
    """As its status is after a look at an engine that lists these."""
    return after(version, decide(version, world(version, STANDBY, pods=(engine_pod(*listed),)), now))


def lost(version: ModelVersion, at: float) -> ModelVersion:
    return looked_at(version, "plato-v1", now=seconds(at))


def back(version: ModelVersion, at: float) -> ModelVersion:
    return looked_at(version, "plato-v1", "plato-v2", now=seconds(at))


def active(version: ModelVersion) -> str:
    found = active_version((version, STANDBY))
    assert found is not None
    return found.metadata.name


def test_it_is_active_again_only_after_it_has_answered_without_a_break() -> None:
    assert active(LIVE) == "plato-v2"
    down = lost(LIVE, at=0)
    assert (active(down), down.status.failed_over_at) == ("plato-v1", NOON)
    again = back(down, at=10)
    assert (active(again), again.status.state) == ("plato-v1", State.READY)
    assert "has to answer for 120 s" in (again.status.message or "")
    waiting = back(again, at=10 + STEADY - 1)
    assert (active(waiting), len(waiting.status.history)) == ("plato-v1", len(down.status.history))
    proven = back(waiting, at=10 + STEADY)
    assert (active(proven), proven.status.state, proven.status.failed_over_at) == ("plato-v2", State.DEPLOYED, None)
    assert proven.status.history[-1].why == "it has answered without a break since it failed"


def test_an_engine_that_crashes_again_and_again_moves_the_alias_once() -> None:
    version, answerers = LIVE, [active(LIVE)]
    for crash in range(10):
        for look, moment in ((lost, 60.0 * crash), (back, 60.0 * crash + 30)):
            version = look(version, moment)
            answerers.append(active(version))
    assert answerers == ["plato-v2", *["plato-v1"] * 20]
    assert len(version.status.history) == len(LIVE.status.history) + 1


def test_it_is_looked_at_when_its_time_has_come() -> None:
    again = back(lost(LIVE, at=0), at=10)
    plan = decide(again, world(again, STANDBY, pods=(engine_pod("plato-v1", "plato-v2"),)), seconds(STEADY))
    assert plan.requeue_after_seconds == 10


def test_without_another_one_it_is_active_as_soon_as_it_answers() -> None:
    alone = after(LIVE, decide(LIVE, world(LIVE, pods=(engine_pod(),)), NOON))
    assert alone.status.failed_over_at is None
    failed = back(lost(LIVE, at=0), at=10)
    assert active_version((failed,)) == failed


def test_versions_that_are_lost_with_one_engine_do_not_take_over_from_each_other() -> None:
    """Whichever is looked at first, the other one's status does not tell it yet."""
    seen = world(LIVE, STANDBY, pods=())
    down = after(LIVE, decide(LIVE, seen, NOON))
    assert (down.status.state, down.status.failed_over_at, down.status.history) == (
        State.PENDING,
        None,
        LIVE.status.history,
    )


def test_a_new_pod_that_lacks_it_is_no_failure() -> None:
    pods = (engine_pod("plato-v1", "plato-v2"), engine_pod("plato-v1", name="engine-2"))
    assert after(LIVE, decide(LIVE, world(LIVE, STANDBY, pods=pods), NOON)).status.failed_over_at is None


def test_who_serves_it_no_more_makes_no_failure_of_it() -> None:
    body: Object = LIVE.to_dict()
    del body["spec"]["serving"]
    assert lost(ModelVersion.parse(body), at=0).status.failed_over_at is None


def test_who_pins_it_anew_knows_better() -> None:
    failed = lost(LIVE, at=0)
    body: Object = failed.to_dict()
    body["spec"]["state"] = "Deployed"
    pinned = back(ModelVersion.parse(body), at=10)
    assert (active(pinned), pinned.status.failed_over_at) == ("plato-v2", None)


def test_who_takes_it_down_makes_no_failure_of_it() -> None:
    body: Object = LIVE.to_dict()
    body["spec"]["state"] = "Archived"
    assert lost(ModelVersion.parse(body), at=0).status.failed_over_at is None
