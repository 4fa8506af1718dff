"""A test that was won while its candidate could not be promoted: how long its verdict has an effect."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.reconcile.promotion import promotion, unheeded
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import NOON, Object, make_test, make_version

BEFORE, VERDICT, AFTER, LATER = (f"2026-01-01T{hour}:30:00.000000Z" for hour in ("08", "09", "10", "11"))
LOADED: Object = {
    "type": "Loaded",
    "status": "True",
    "reason": "Loaded",
    "message": "",
    "lastTransitionTime": "2026-01-01T07:00:00Z",
}


def version(number: int, promoted: str | None = None, **spec: Any) -> ModelVersion:
    status: Object = {"conditions": [LOADED]} | ({"promotedAt": promoted} if promoted else {})
    return make_version(number, spec, status=status)


def decided(verdict: str, at: str, *, name: str = "duel", baseline: int = 1, candidate: int = 2, **spec: Any) -> ABTest:
    arms = {"baseline": {"modelVersion": f"plato-v{baseline}"}, "candidate": {"modelVersion": f"plato-v{candidate}"}}
    status = {"phase": "Concluded", "verdict": verdict, "concludedAt": at}
    return make_test(arms | spec, name=name, uid=f"uid-of-{name}", status=status)


def why_promoted(of: ModelVersion, versions: tuple[ModelVersion, ...], tests: tuple[ABTest, ...]) -> str | None:
    cause = promotion(of, versions, tests)
    return cause and cause.why


WON = decided("Won", VERDICT)
BASELINE = version(1, BEFORE)
LATE: dict[str, tuple[tuple[ModelVersion, ...], tuple[ABTest, ...], str | None]] = {
    "nothing has happened since": ((BASELINE,), (), None),
    "however long ago it was": ((BASELINE, version(3)), (), None),
    "a newer one is there, but was never promoted": ((BASELINE, version(9)), (), None),
    "another was promoted before": ((BASELINE, version(3, BEFORE)), (), None),
    "another was promoted since": ((BASELINE, version(9, AFTER)), (), "plato-v9 was promoted after that"),
    "the baseline was promoted again": ((version(1, AFTER),), (), "plato-v1 was promoted after that"),
    "it was promoted since, and unloaded again": (
        (BASELINE, make_version(9, {"state": "Archived"}, status={"promotedAt": AFTER})),
        (),
        "plato-v9 was promoted after that",
    ),
    "a version of another model was promoted": (
        (BASELINE, make_version(4, {"model": "kant"}, status={"promotedAt": AFTER})),
        (),
        None,
    ),
    "another won later, but may not be promoted either": (
        (BASELINE, version(3)),
        (decided("Won", AFTER, name="later", candidate=3),),
        "ABTest later was decided after that",
    ),
    "it lost later": ((BASELINE,), (decided("Lost", AFTER, name="later"),), "ABTest later was decided after that"),
    "it was the baseline of a later test": (
        (BASELINE, version(3)),
        (decided("Lost", AFTER, name="later", baseline=2, candidate=3),),
        "ABTest later was decided after that",
    ),
    "another lost later": ((BASELINE, version(3)), (decided("Lost", AFTER, name="later", candidate=3),), None),
    "a later test told nothing": ((BASELINE,), (decided("Inconclusive", AFTER, name="later"),), None),
    "another won before": ((BASELINE, version(3)), (decided("Won", BEFORE, name="earlier", candidate=3),), None),
}


@pytest.mark.parametrize(("others", "tests", "superseded"), LATE.values(), ids=LATE)
def test_a_hold_that_ends_late(
    others: tuple[ModelVersion, ...], tests: tuple[ABTest, ...], superseded: str | None
) -> None:
    held = version(2, state="Ready")
    assert why_promoted(held, (held, *others), (WON, *tests)) is None
    free = version(2)
    for order in ((WON, *tests), (*tests, WON)):
        assert why_promoted(free, (free, *others), order) == (None if superseded else "won ABTest duel")
        said = unheeded(free, (free, *others), order)
        assert (said is None) if superseded is None else (said is not None and superseded in said and "duel" in said)


def test_it_may_win_again() -> None:
    free, others = version(2), (BASELINE, version(9, AFTER))
    again = decided("Won", LATER, name="again", baseline=9)
    assert why_promoted(free, (free, *others), (WON, again)) == "won ABTest again"


def test_the_user_has_the_last_word() -> None:
    pinned, others = version(2, state="Deployed"), (BASELINE, version(9, AFTER))
    assert why_promoted(pinned, (pinned, *others), (WON,)) == "spec.state is Deployed"


def test_what_was_promoted_for_its_verdict_is_not_told_to_be_unheeded() -> None:
    promoted = version(2, AFTER)
    assert unheeded(promoted, (promoted, version(9, LATER)), (WON,)) is None


def test_a_verdict_of_now_is_no_late_one() -> None:
    moment = (NOON - timedelta(seconds=1)).isoformat()
    free = version(2)
    assert why_promoted(free, (free, BASELINE), (decided("Won", moment),)) == "won ABTest duel"
