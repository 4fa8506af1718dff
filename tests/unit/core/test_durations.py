"""Seconds as kubectl prints ages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.durations import short_duration

CASES = {
    -5: "0s", 0: "0s", 59: "59s", 60: "1m0s", 599: "9m59s", 600: "10m", 3599: "59m",
    3600: "1h0m", 12_059: "3h20m", 86_399: "23h59m", 86_400: "1d0h", 187_200: "2d4h",
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "expected"), CASES.items())
def test_two_units_at_most(seconds: int, expected: str) -> None:
    assert short_duration(seconds) == expected


@given(st.integers(min_value=0, max_value=10_000_000))
def test_what_is_left_out_is_less_than_a_tenth(seconds: int) -> None:
    units = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
    number, total = "", 0
    for character in short_duration(seconds):
        if character.isdigit():
            number += character
        else:
            total, number = total + int(number) * units[character], ""
    assert total <= seconds
    assert seconds - total <= seconds / 10
