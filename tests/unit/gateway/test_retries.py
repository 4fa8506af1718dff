"""When an attempt is repeated, decided from its reason and the clock alone."""

import pytest

from finetune_operator.gateway.retries import LONGEST_PAUSE_SECONDS, Reason, Retries, WaitingRoom

UNREACHABLE, REFUSED, UNLOADED = Reason.UNREACHABLE, Reason.REFUSED, Reason.UNLOADED
FAILED, LOST = Reason.FAILED, Reason.LOST
CASES: dict[str, tuple[list[tuple[Reason, float, float]], list[float | None]]] = {
    # Each attempt: why it failed, when it began, when it had failed; then the pauses, with the most luck.
    "refused three times": ([(REFUSED, 0, 0), (REFUSED, 1, 1), (REFUSED, 2, 2)], [0.1, 0.2, None]),
    "unloaded for less than a second": ([(UNLOADED, n, n) for n in range(4)], [0.1, 0.2, 0.4, None]),
    "lost three times": ([(LOST, 0, 9), (LOST, 10, 20), (LOST, 21, 30)], [0.1, 0.2, None]),
    "two ways to break an engine": ([(FAILED, 0, 9), (LOST, 10, 20), (FAILED, 21, 30)], [0.1, 0.2, None]),
    "refused does not count as broken": (
        [(REFUSED, 0, 0), (FAILED, 1, 1), (REFUSED, 2, 2), (LOST, 3, 3), (FAILED, 4, 4)],
        [0.1, 0.2, 0.4, 0.8, None],
    ),
    "unreachable for as long as is allowed": (
        [(UNREACHABLE, second, second) for second in range(6)],
        [0.1, 0.2, 0.4, 0.8, 1.0, None],
    ),
    "six times at least": (
        [(UNREACHABLE, 9 * n, 9 * n + 9) for n in range(6)],
        [0.0, 0.0, 0.0, 0.0, 0.0, None],
    ),
    "a connection that hung has been a pause": ([(UNREACHABLE, 0, 1), (UNREACHABLE, 1, 2)], [0.0, 0.0]),
    "lost after a long while, then unreachable": ([(LOST, 0, 500), (UNREACHABLE, 501, 501)], [0.1, 0.2]),
    "unreachable, reached and lost, unreachable": (
        [(UNREACHABLE, n, n) for n in range(5)] + [(LOST, 5, 400), (UNREACHABLE, 401, 401), (UNREACHABLE, 405, 406)],
        [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, None],
    ),
    "what was unreachable does not count as lost": (
        [(UNREACHABLE, 0, 0), (UNREACHABLE, 1, 1), (UNREACHABLE, 2, 2), (LOST, 3, 3), (LOST, 4, 4), (LOST, 5, 5)],
        [0.1, 0.2, 0.4, 0.8, 1.0, None],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pauses(case: str) -> None:
    failures, expected = CASES[case]
    retries = Retries(seconds=5.0)
    assert [retries.pause_seconds(reason, begun, now, luck=1.0) for reason, begun, now in failures] == expected


def test_luck_spreads_pauses_over_half_of_their_length() -> None:
    assert Retries(5.0).pause_seconds(LOST, 0, 0, luck=0.0) == pytest.approx(0.05)


def test_pauses_stop_growing() -> None:
    retries = Retries(10_000.0)
    assert max(retries.pause_seconds(UNREACHABLE, n, n, 1.0) or 0.0 for n in range(5000)) == LONGEST_PAUSE_SECONDS


def test_a_way_of_two_pods_is_found() -> None:
    """Who meets the dead one of two each second time has seven chances at least, even where connections hang."""
    retries, now, attempts = Retries(10.0), 0.0, 0
    while True:
        attempts += 1
        pause = retries.pause_seconds(UNREACHABLE, now, now + 1.0, luck=1.0)
        if pause is None:
            break
        now += 1.0 + pause
    assert attempts >= 7


def test_a_waiting_room_has_seats_for_each_engine() -> None:
    room = WaitingRoom(1)
    first, second, other = room.seat("a"), room.seat("a"), room.seat("b")
    assert (first.take(), first.take(), second.take(), other.take()) == (True, True, False, True)
    first.leave()
    first.leave()
    assert (second.take(), first.take()) == (True, False)
