"""What holds for a ModelVersion whatever its spec, its engine's pods and the other versions are."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.conditions import find
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.reconcile.modelversion import reconcile
from finetune_operator.reconcile.plan import LoadAdapter, UnloadAdapter
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, NOON, Object, after, make_version
from tests.unit.reconcile.comparisons import LOST, WON
from tests.unit.reconcile.engines import REFUSAL, decide, engine_pod, loaded, world

NAMES = ["plato-v1", "plato-v2", "plato-v3"]
STATES = st.sampled_from([None, "Ready", "Deployed", "Archived"])
PROMOTED = st.sampled_from([None, "2026-01-01T10:00:00.000000Z", "2026-01-01T11:45:00.000000Z"])
SPECS = st.fixed_dictionaries(
    {"state": STATES, "promotion": st.sampled_from(["Manual", "Always"]), "serving": st.just({"maxLoras": 2})}
)
ENGINE_PODS = st.builds(
    lambda listed, name, ready, probed, refused, unknown: engine_pod(
        *listed, name=name, ready=ready, probed=probed, refused=refused, unknown=unknown
    ),
    st.sets(st.sampled_from(NAMES)),
    st.sampled_from(["pod-1", "pod-2"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([{}, {"plato-v2": REFUSAL}]),
    st.booleans(),
)
OTHERS = st.builds(
    lambda n, spec, promoted: loaded(n, spec, promotedAt=promoted), st.sampled_from([1, 3]), SPECS, PROMOTED
)
STEPS = st.lists(
    st.tuples(
        SPECS,
        st.lists(OTHERS, max_size=2, unique_by=lambda version: version.metadata.name),
        st.lists(ENGINE_PODS, max_size=2, unique_by=lambda entry: entry.pod.uid),
        st.sampled_from([(), (WON,), (LOST,)]),
        st.integers(min_value=1, max_value=3600),
    ),
    min_size=1,
    max_size=4,
)


@given(STEPS)
def test_nothing_changes_means_no_write_and_times_move_with_status_only(
    steps: list[tuple[Object, list[ModelVersion], list[EnginePod], tuple[ABTest, ...], int]],
) -> None:
    status: Object = {}
    now = NOON
    # What has failed proves itself by the mere passing of time.
    config = replace(CONFIG, steady_seconds=10**6)
    for generation, (spec, others, pods, tests, seconds) in enumerate(steps, start=1):
        now += timedelta(seconds=seconds)
        version = make_version(2, spec, generation=generation, status=status)
        seen = world(version, *others, pods=tuple(pods), tests=tests)
        once = after(version, reconcile(version, seen, now, config))
        for entry in once.status.conditions:
            old = find(version.status.conditions, entry.type)
            assert entry.last_transition_time == now or (old is not None and old.status is entry.status)
        # What was refused is known once the version has been tried in its present form, hence two rounds to settle.
        settled = after(once, reconcile(once, seen, now, config))
        again = reconcile(settled, seen, now + timedelta(seconds=5), config)
        assert again.status == settled.status.to_dict()
        assert again.events == ()
        status = settled.status.to_dict()


@given(
    SPECS,
    st.lists(OTHERS, max_size=2, unique_by=lambda version: version.metadata.name),
    st.lists(ENGINE_PODS, max_size=2),
)
def test_only_what_the_engine_should_not_have_is_unloaded(
    spec: Object, others: list[ModelVersion], pods: list[EnginePod]
) -> None:
    version = make_version(2, spec)
    plan = decide(version, world(version, *others, pods=tuple(pods)))
    unloaded = {action.name for action in plan.actions if isinstance(action, UnloadAdapter)}
    loading = {action.adapter.name for action in plan.actions if isinstance(action, LoadAdapter)}
    assert not unloaded & loading
    if spec["state"] == "Archived":
        assert loading == set()
    for other in others:
        if other.spec.state == "Deployed" and other.spec.serving == version.spec.serving:
            pinned = [v for v in (version, *others) if v.spec.state == "Deployed"]
            assert other.metadata.name not in unloaded or len(pinned) > 2
