"""Who answers to which name, as tables of named cases."""

from typing import Any

import pytest

from finetune_operator.core.routing import (
    Answerer,
    Meaning,
    Pairing,
    RouteTable,
    Split,
    Target,
    Unavailable,
    active_version,
    build_routes,
    rival_pins,
)
from finetune_operator.resources.abtest import ABTest, Arm
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import make_version
from tests.unit.resource_builders import abtest_object, base_model, version_object

Objects = list[dict[str, Any]]


def routes(versions: Objects, tests: Objects | None = None) -> RouteTable:
    parsed = [ModelVersion.parse(body) for body in versions]
    return build_routes(
        parsed, [ABTest.parse(body) for body in tests or []], lambda engine, namespace: f"http://{engine}.{namespace}"
    )


def only(table: RouteTable, name: str) -> Target | Split | Unavailable:
    (route,) = table.routes_of(name)
    return route.destination


def target(url: str, name: str) -> Target:
    """A version's; the namespace is the end of its engine's address."""
    return Target(url, name, parent="tiny", version_uid=f"uid-of-{url.rpartition('.')[2]}-{name}")


V = version_object
ACTIVE_CASES: dict[str, tuple[Objects, str | None]] = {
    "nothing at all": ([], None),
    "loaded but never promoted": ([V("plato-v1")], None),
    "promoted": ([V("plato-v1", promoted=1)], "plato-v1"),
    "the latest promotion wins": ([V("plato-v1", promoted=2), V("plato-v2", promoted=1)], "plato-v1"),
    "at the same instant the higher version wins": ([V("plato-v2", promoted=1), V("plato-v1", promoted=1)], "plato-v2"),
    "version 10 is higher than version 9": ([V("plato-v9", promoted=1), V("plato-v10", promoted=1)], "plato-v10"),
    "promoted but not loaded": ([V("plato-v1", promoted=1), V("plato-v2", promoted=2, loaded=False)], "plato-v1"),
    "promoted but being deleted": ([V("plato-v1", promoted=1), V("plato-v2", promoted=2, deleting=True)], "plato-v1"),
    "loaded without an engine": ([V("plato-v1", promoted=1, engine=None)], None),
    "state Ready rolls back": ([V("plato-v1", promoted=1), V("plato-v2", promoted=2, state="Ready")], "plato-v1"),
    "state Ready taken away rolls forward": (
        [V("plato-v1", promoted=1), V("plato-v2", promoted=2, observed_state="Ready")],
        "plato-v2",
    ),
    "state Archived": ([V("plato-v1", promoted=1), V("plato-v2", promoted=2, state="Archived")], "plato-v1"),
    "a pin that the operator has not seen beats a later promotion": (
        [V("plato-v1", state="Deployed"), V("plato-v2", promoted=9)],
        "plato-v1",
    ),
    "a pin of an earlier promoted version": (
        [V("plato-v1", promoted=1, state="Deployed"), V("plato-v2", promoted=9)],
        "plato-v1",
    ),
    "a stamped pin beats a later promotion": (
        [V("plato-v1", promoted=1, state="Deployed", observed_state="Deployed"), V("plato-v2", promoted=9)],
        "plato-v1",
    ),
    "a fresh pin beats a stamped one": (
        [
            V("plato-v1", promoted=1, state="Deployed"),
            V("plato-v2", promoted=9, state="Deployed", observed_state="Deployed"),
        ],
        "plato-v1",
    ),
    "stamping a fresh pin changes nothing": (
        [
            V("plato-v1", promoted=10, state="Deployed", observed_state="Deployed"),
            V("plato-v2", promoted=9, state="Deployed", observed_state="Deployed"),
        ],
        "plato-v1",
    ),
    "of two fresh pins the later promoted": (
        [V("plato-v1", promoted=2, state="Deployed"), V("plato-v2", promoted=1, state="Deployed")],
        "plato-v1",
    ),
    "of two fresh pins that were never promoted the higher": (
        [V("plato-v2", state="Deployed"), V("plato-v1", state="Deployed")],
        "plato-v2",
    ),
    "a pin that is not loaded waits its turn": (
        [V("plato-v1", state="Deployed", loaded=False), V("plato-v2", promoted=9)],
        "plato-v2",
    ),
    "a pin taken away leaves the promotion that it made": (
        [V("plato-v1", promoted=10, observed_state="Deployed"), V("plato-v2", promoted=9)],
        "plato-v1",
    ),
}


@pytest.mark.parametrize("case", ACTIVE_CASES)
def test_active_version(case: str) -> None:
    objects, expected = ACTIVE_CASES[case]
    for order in (objects, objects[::-1]):
        active = active_version(ModelVersion.parse(body) for body in order)
        assert (active.metadata.name if active else None) == expected


def test_a_version_that_is_being_moved_is_routed_to_the_engine_that_answers() -> None:
    body = V("plato-v1", promoted=1, engine="vllm-former")
    body["status"] |= {"nextEngine": "vllm-next"}
    body["spec"]["serving"] = {"maxModelLen": 1024}
    assert only(routes([body]), "plato") == target("http://vllm-former.finetune", "plato-v1")


UNAVAILABLE_CASES: dict[str, tuple[Objects, str, bool, str]] = {
    "not loaded yet": ([V("plato-v1", loaded=False, message="loading")], "plato-v1", True, "loading"),
    "archived": ([V("plato-v1", loaded=False, state="Archived")], "plato-v1", False, "set its spec.state to Ready"),
    "registered only": ([V("plato-v1", loaded=False, serving=False)], "plato-v1", False, "set its spec.serving"),
    "being deleted": ([V("plato-v1", deleting=True)], "plato-v1", False, "is being deleted"),
    "base model without an engine": ([V("plato-v1", loaded=False)], "tiny", True, "needs a loaded version"),
    "base model of a version by its merged weights": (
        [V("plato-v1", engine="vllm-merged-a", promoted=1)],
        "tiny",
        True,
        "base model tiny has no running engine: it needs a loaded version that is served as an adapter "
        "(spec.serving without mergedWeights)",
    ),
    "alias of nothing promoted": ([V("plato-v1")], "plato", True, "promote one"),
    "alias of a promoted version that is away": (
        [V("plato-v1"), V("plato-v2", promoted=1, loaded=False)],
        "plato",
        True,
        "plato-v2 is not loaded",
    ),
}


@pytest.mark.parametrize("case", UNAVAILABLE_CASES)
def test_known_names_that_cannot_answer(case: str) -> None:
    objects, name, temporary, words = UNAVAILABLE_CASES[case]
    destination = only(routes(objects), name)
    assert isinstance(destination, Unavailable)
    assert destination.temporary is temporary
    assert words in destination.message


def test_a_loaded_version_its_base_model_and_the_alias_answer() -> None:
    table = routes([V("plato-v1", promoted=1), V("plato-v2", engine="vllm-b")])
    assert only(table, "plato-v1") == target("http://vllm-a.finetune", "plato-v1")
    assert only(table, "plato-v2") == target("http://vllm-b.finetune", "plato-v2")
    assert only(table, "plato") == only(table, "plato-v1") == only(table, "finetune/plato")
    assert only(table, "tiny") == Target("http://vllm-a.finetune", "tiny")
    assert table.routes_of("plato-v3") == table.routes_of("other/plato") == ()


def test_merged_weights_answer_for_their_version_and_not_for_its_base_model() -> None:
    table = routes([V("plato-v1", promoted=1, engine="vllm-merged-a"), V("plato-v2", engine="vllm-b")])
    assert only(table, "plato") == only(table, "plato-v1") == target("http://vllm-merged-a.finetune", "plato-v1")
    assert only(table, "tiny") == Target("http://vllm-b.finetune", "tiny")


@pytest.mark.parametrize("has_adapter", [True, False])
def test_the_base_arm_beside_merged_weights_is_another_engine_or_an_error(has_adapter: bool) -> None:
    objects = [V("plato-v2", promoted=1, engine="vllm-merged-a"), *([V("plato-v1")] if has_adapter else [])]
    baseline, candidate = arms(only(routes(objects, [abtest_object(baseline=None)]), "plato"))
    assert candidate == target("http://vllm-merged-a.finetune", "plato-v2")
    if has_adapter:
        assert baseline == Target("http://vllm-a.finetune", "tiny")
    else:
        assert isinstance(baseline, Unavailable)


def test_an_archived_version_answers_to_its_name_while_it_is_loaded() -> None:
    table = routes([V("plato-v1", promoted=1, state="Archived")])
    assert isinstance(only(table, "plato-v1"), Target)
    assert isinstance(only(table, "plato"), Unavailable)


def test_the_same_name_in_two_namespaces_needs_the_namespace() -> None:
    table = routes([V("plato-v1", namespace="left", promoted=1), V("plato-v1", namespace="right", promoted=1)])
    assert [route.qualified_name for route in table.routes_of("plato")] == ["left/plato", "right/plato"]
    assert only(table, "left/plato") == target("http://vllm-a.left", "plato-v1")
    assert only(table, "right/plato") == target("http://vllm-a.right", "plato-v1")
    assert {table.public_name(route) for route in table.routes_of("plato")} == {"left/plato", "right/plato"}


SEVERAL_MEANINGS: dict[str, tuple[Objects, str]] = {
    "an alias spelled like a base model": ([V("tiny-v1", promoted=1)], "tiny"),
    "an alias spelled like a version": ([V("plato-v1"), V("plato-v1-v1", promoted=1)], "plato-v1"),
    "two base models of one name": ([V("plato-v1"), V("plato-v2", base=base_model(path="other"))], "tiny"),
    "a base model spelled like a qualified name": (
        [V("plato-v1", namespace="left"), V("kant-v1", namespace="right", base=base_model("left/plato-v1"))],
        "left/plato-v1",
    ),
}


@pytest.mark.parametrize("case", SEVERAL_MEANINGS)
def test_a_name_with_several_meanings_is_never_guessed(case: str) -> None:
    objects, name = SEVERAL_MEANINGS[case]
    assert len(routes(objects).routes_of(name)) == 2


def test_the_table_does_not_depend_on_the_order_of_its_sources() -> None:
    objects = [V("plato-v1", promoted=1), V("plato-v2", engine="vllm-b"), V("kant-v1", namespace="other")]
    tests = [abtest_object(), abtest_object(name="later", started=5)]
    assert routes(objects, tests) == routes(objects[::-1], tests[::-1])


def arms(destination: Target | Split | Unavailable) -> tuple[Answerer, Answerer]:
    assert isinstance(destination, Split)
    return destination.baseline, destination.candidate


TWO = [V("plato-v1", promoted=1), V("plato-v2")]
NO_SPLIT: dict[str, dict[str, Any]] = {
    "votes only": {"percent": 0},
    "still pending": {"phase": "Pending"},
    "concluded": {"phase": "Concluded"},
    "with a verdict": {"verdict": "Won"},
    "being deleted": {"deleting": True},
    "cancelled, which no operator has seen yet": {"cancel": True},
    "of another model": {"model": "kant", "baseline": "kant-v1", "candidate": "kant-v2"},
    "in another namespace": {"namespace": "other"},
}


@pytest.mark.parametrize("case", NO_SPLIT)
def test_a_test_that_splits_nothing(case: str) -> None:
    table = routes(TWO, [abtest_object(**NO_SPLIT[case])])
    assert only(table, "plato") == target("http://vllm-a.finetune", "plato-v1")


def test_a_running_test_splits_the_alias_and_nothing_else() -> None:
    table = routes(TWO, [abtest_object(percent=20)])
    split = only(table, "plato")
    assert isinstance(split, Split)
    assert (split.test_uid, split.candidate_percent) == ("uid-of-finetune-duel", 20)
    assert arms(split) == (only(table, "plato-v1"), only(table, "plato-v2"))
    assert {split.arm_of(f"user-{n}") for n in range(100)} == set(Arm)


PINNED_MEANWHILE: dict[str, tuple[Objects, int, str | None]] = {
    "the baseline, as a rollback does": ([V("plato-v1", state="Deployed", promoted=1), V("plato-v2")], 5, "plato-v1"),
    "the baseline, and the operator knows": (
        [V("plato-v1", state="Deployed", observed_state="Deployed", promoted=6), V("plato-v2")],
        5,
        "plato-v1",
    ),
    "the candidate": ([V("plato-v1", promoted=1), V("plato-v2", state="Deployed")], 5, "plato-v2"),
    "neither arm": ([*TWO, V("plato-v3", state="Deployed")], 5, "plato-v3"),
    "before the test began": (
        [V("plato-v1", state="Deployed", observed_state="Deployed", promoted=5), V("plato-v2")],
        5,
        None,
    ),
    "what is not loaded": ([V("plato-v1", promoted=1), V("plato-v2", state="Deployed", loaded=False)], 5, None),
    "what was promoted after it began, and pinned by nobody": ([V("plato-v1", promoted=9), V("plato-v2")], 5, None),
}


@pytest.mark.parametrize("case", PINNED_MEANWHILE)
def test_who_pins_a_version_does_not_wait_for_a_verdict(case: str) -> None:
    objects, started, answers = PINNED_MEANWHILE[case]
    table = routes(objects, [abtest_object(percent=50, started=started)])
    if answers is None:
        assert isinstance(only(table, "plato"), Split)
    else:
        assert only(table, "plato") == only(table, answers)


def test_a_test_that_only_copies_lets_its_baseline_answer_everybody() -> None:
    split = only(routes(TWO, [abtest_object(percent=0, shadow=30)]), "plato")
    assert isinstance(split, Split)
    assert {split.arm_of(f"user-{n}") for n in range(100)} == {Arm.BASELINE}
    assert 10 < sum(split.is_shadowed(f"user-{n}") for n in range(100)) < 50


PAIRINGS: dict[str, tuple[int, Pairing | None]] = {"no texts": (0, None), "some": (7, Pairing(7, max_count=2000))}


@pytest.mark.parametrize(("percent", "pairing"), PAIRINGS.values(), ids=PAIRINGS)
def test_texts_are_kept_only_where_the_test_says_so(percent: int, pairing: Pairing | None) -> None:
    split = only(routes(TWO, [abtest_object(percent=0, shadow=30, pairs=percent)]), "plato")
    assert isinstance(split, Split)
    assert split.pairing == pairing


ANOTHER_ACTIVE: dict[str, tuple[Objects, dict[str, Any]]] = {
    "another version is active": (TWO, {"baseline": "plato-v2", "candidate": "plato-v3"}),
    "the baseline is the base model": (TWO, {"baseline": None}),
    "the baseline is pinned no more": ([V("plato-v1"), V("plato-v2", promoted=1)], {}),
}


@pytest.mark.parametrize("case", ANOTHER_ACTIVE)
def test_a_test_that_only_copies_never_changes_who_answers(case: str) -> None:
    versions, options = ANOTHER_ACTIVE[case]
    table = routes(versions, [abtest_object(percent=0, shadow=30, **options)])
    assert only(table, "plato") == only(routes(versions), "plato")


def test_a_test_that_divides_copies_as_well() -> None:
    split = only(routes(TWO, [abtest_object(percent=20, shadow=100)]), "plato")
    assert isinstance(split, Split)
    subjects = [f"user-{n}" for n in range(100)]
    assert all(split.is_shadowed(subject) is (split.arm_of(subject) is Arm.BASELINE) for subject in subjects)


PINNED: dict[str, tuple[dict[str, Any], Objects, tuple[str, ...]]] = {
    "nothing else is pinned": (V("plato-v1", state="Deployed"), [V("plato-v2", promoted=9)], ()),
    "a fresh pin wins by itself": (
        V("plato-v1", state="Deployed"),
        [V("plato-v2", promoted=9, state="Deployed", observed_state="Deployed")],
        (),
    ),
    "an old pin does not": (
        V("plato-v1", promoted=1, state="Deployed", observed_state="Deployed"),
        [V("plato-v2", promoted=9, state="Deployed", observed_state="Deployed")],
        ("plato-v2",),
    ),
    "nor against a fresh one": (
        V("plato-v1", promoted=1, state="Deployed", observed_state="Deployed"),
        [V("plato-v2", state="Deployed")],
        ("plato-v2",),
    ),
    "of two fresh ones nobody knows": (
        V("plato-v1", promoted=9, state="Deployed"),
        [V("plato-v2", state="Deployed")],
        ("plato-v2",),
    ),
}


@pytest.mark.parametrize("case", PINNED)
def test_pins_that_may_win_over_another(case: str) -> None:
    pinned, others, rivals = PINNED[case]
    version, *family = [ModelVersion.parse(body) for body in (pinned, *others)]
    assert tuple(rival.metadata.name for rival in rival_pins(version, [version, *family])) == rivals


def test_the_baseline_may_be_the_base_model_in_the_candidates_engine() -> None:
    versions = [V("plato-v1", promoted=1), V("plato-v2", engine="vllm-b")]
    baseline, _ = arms(only(routes(versions, [abtest_object(baseline=None)]), "plato"))
    assert baseline == Target("http://vllm-b.finetune", "tiny")


BROKEN_ARMS: dict[str, tuple[Objects, dict[str, Any], Arm]] = {
    "candidate not loaded": ([V("plato-v1", promoted=1), V("plato-v2", loaded=False)], {}, Arm.CANDIDATE),
    "candidate missing": ([V("plato-v1", promoted=1)], {}, Arm.CANDIDATE),
    "baseline not loaded": ([V("plato-v1", promoted=1, loaded=False), V("plato-v2")], {}, Arm.BASELINE),
    "base model of a missing candidate": ([V("plato-v1", promoted=1)], {"baseline": None}, Arm.BASELINE),
}


@pytest.mark.parametrize("case", BROKEN_ARMS)
def test_an_arm_that_cannot_answer_stays_an_arm(case: str) -> None:
    versions, options, broken = BROKEN_ARMS[case]
    split = only(routes(versions, [abtest_object(**options)]), "plato")
    assert isinstance(split, Split)
    assert isinstance(split.answerer(broken), Unavailable)


def test_of_two_running_tests_the_older_one_splits() -> None:
    tests = [abtest_object(name="younger", started=5, percent=90), abtest_object(name="older", started=1, percent=10)]
    split = only(routes(TWO, tests), "plato")
    assert isinstance(split, Split)
    assert split.test_name == "older"


def test_meanings_are_told_apart() -> None:
    table = routes([V("plato-v1", promoted=1)])
    assert {route.name: route.meaning for route in table.routes} == {
        "plato": Meaning.ALIAS,
        "plato-v1": Meaning.VERSION,
        "tiny": Meaning.BASE_MODEL,
    }


def test_a_model_at_a_provider_has_no_route_and_says_where_it_answers() -> None:
    url = "https://api.openai.com/v1"
    source = {"volume": None, "openai": {"model": "gpt-4.1-mini-2025-04-14"}}
    at_provider = make_version(
        1,
        {
            "baseModel": {"name": "gpt-4.1-mini", "source": source},
            "artifact": {"uri": "openai://ft:x", "digest": None, "baseUrl": url},
            "serving": None,
        },
    )

    table = build_routes([at_provider], [], lambda engine, namespace: "http://engine")

    answer = only(table, "plato-v1")
    assert isinstance(answer, Unavailable)
    assert url in answer.message
    assert answer.temporary is False
    assert table.routes_of("gpt-4.1-mini") == ()
