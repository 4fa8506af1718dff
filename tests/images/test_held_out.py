"""The held-out loss on the trainer's own module, without a model: what it makes of extremes and of a full memory."""

import importlib
import math
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.images.ml_environment import REPOSITORY


@pytest.fixture(scope="module")
def held_out() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "trainer_image"))
    try:
        return importlib.import_module("held_out")
    finally:
        sys.path.pop(0)


def make(held_out: ModuleType, **attributes: Any) -> Any:
    measure = object.__new__(held_out.HeldOut)
    vars(measure).update(attributes)
    return measure


def test_a_pair_that_is_told_apart_the_wrong_way_by_far_has_its_margin_as_loss(held_out: ModuleType) -> None:
    measure = make(held_out, sequences=[([], [])] * 2, beta=0.5)

    assert measure._preference_loss([0.0, 0.0], [-4000.0, 0.0]) == 2000.0
    assert measure._preference_loss([0.0, 0.0], [4000.0, 0.0]) == 0.0
    assert measure._preference_loss([0.0, 0.0], [0.0, 0.0]) == pytest.approx(math.log(2))


def test_the_end_of_a_turn_is_seen_also_where_it_is_the_token_of_padding(held_out: ModuleType) -> None:
    ids, labels, mask = held_out.padded_to_one_width([([5, 2, 6, 2], [-100, -100, 6, 2]), ([7], [7])], 2)

    assert ids == [[5, 2, 6, 2], [7, 2, 2, 2]]
    assert labels == [[-100, -100, 6, 2], [7, -100, -100, -100]]
    assert mask == [[1, 1, 1, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("fits", "expected", "sizes"),
    [(2, (1.0, 0.5), [8, 4, 2]), (0, (None, None), [8, 4, 2, 1])],
    ids=["a batch that fits is found", "none fits"],
)
def test_a_full_memory_costs_the_loss_at_most(
    held_out: ModuleType, monkeypatch: pytest.MonkeyPatch, fits: int, expected: tuple[Any, Any], sizes: list[int]
) -> None:
    measure = make(held_out, batch_size=8)
    tried: list[int] = []

    def losses(model: Any) -> tuple[float, float]:
        tried.append(measure.batch_size)
        if measure.batch_size > fits:
            raise MemoryError
        return 1.0, 0.5

    measure.losses = losses
    monkeypatch.setattr(held_out, "release_memory", lambda: None)

    losses = measure.losses_if_possible(None)

    assert (losses.base, losses.fine_tuned) == expected
    assert (losses.error is None) == (expected[0] is not None)
    assert tried == sizes


def test_token_accuracy_finds_a_batch_that_fits_as_the_loss_does(
    held_out: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = make(held_out, batch_size=8)

    def token_accuracies(model: Any) -> tuple[float, float]:
        if measure.batch_size > 2:
            raise MemoryError
        return 0.25, 0.5

    measure.token_accuracies = token_accuracies
    monkeypatch.setattr(held_out, "release_memory", lambda: None)

    assert measure.token_accuracies_if_possible(None) == (0.25, 0.5, None)


@pytest.mark.parametrize("is_dpo", [False, True])
def test_token_accuracy_of_answers_that_were_all_cut_away_is_told(held_out: ModuleType, is_dpo: bool) -> None:
    cut = ([5, 6, 7], [-100, -100, -100])
    found = make(held_out, batch_size=8, rows=1, sequences=[cut, cut], is_dpo=is_dpo).token_accuracies_if_possible(None)

    assert (found.base, found.fine_tuned) == (None, None)
    assert found.error.startswith("none of 1 held-out rows has an answer within spec.training.maxSeqLength")


def test_another_error_costs_the_loss_alone(held_out: ModuleType) -> None:
    def losses(model: Any) -> tuple[float, float]:
        raise ZeroDivisionError

    found = make(held_out, batch_size=8, losses=losses).losses_if_possible(None)

    assert (found.base, found.fine_tuned) == (None, None)
    assert found.error == "the held-out loss can't be measured: ZeroDivisionError: see the log"


@pytest.mark.parametrize(("rows", "error"), [(0, None), (3, "none of 3 held-out rows has an answer within")])
def test_rows_without_answers_are_told_and_no_rows_are_not(held_out: ModuleType, rows: int, error: str | None) -> None:
    found = make(held_out, batch_size=8, rows=rows, sequences=[]).losses_if_possible(None)

    assert (found.base, found.fine_tuned) == (None, None)
    assert found.error == error or (error and found.error.startswith(error))
