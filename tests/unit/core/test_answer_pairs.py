"""How pairs are shown, and sent."""

import pytest

from finetune_operator.contract.experiments import PAIRS_MAX_PER_BATCH, AnswerPair
from finetune_operator.core.answer_pairs import GROUP_MAX_BYTES, groups, storable


def pairs(count: int, length: int) -> list[AnswerPair]:
    texts = {"prompt": "?", "baseline_answer": "a" * length, "candidate_answer": "b" * length}
    return [AnswerPair.model_validate({"id": str(number)} | texts) for number in range(count)]


SIZES = {
    "none": (0, 1, 0),
    "short ones": (250, 10, 3),
    "long ones": (12, 100_000, 6),
    "too long for any": (2, 10**6, 2),
}


@pytest.mark.parametrize(("count", "length", "expected"), SIZES.values(), ids=SIZES)
def test_groups_fit_into_a_request_and_lose_nothing(count: int, length: int, expected: int) -> None:
    found = list(groups(pairs(count, length)))
    assert len(found) == expected
    assert [pair for group in found for pair in group] == pairs(count, length)
    for group in found:
        assert len(group) <= PAIRS_MAX_PER_BATCH
        assert len(group) == 1 or sum(len(pair.model_dump_json().encode()) for pair in group) <= GROUP_MAX_BYTES


def test_what_no_database_keeps_is_left_out() -> None:
    assert storable("a\x00b\ud800c") == "ab?c"
