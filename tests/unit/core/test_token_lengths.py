"""Percentiles, cuts and padding of rows by their lengths."""

from finetune_operator.core.token_lengths import RowTokens, token_lengths


def conversation(length: int, prompt: int = 1) -> RowTokens:
    return RowTokens((length,), prompt)


def test_percentiles_are_lengths_of_rows() -> None:
    found = token_lengths([conversation(length) for length in range(1, 101)], 1000, 1, "Tokenizer")
    assert found is not None
    assert (found.p50, found.p95, found.max, found.over_length) == (50, 95, 100, 0)


def test_what_is_cut_is_not_trained_on() -> None:
    rows = [conversation(50), conversation(200, prompt=60), conversation(300, prompt=100)]
    found = token_lengths(rows, 100, 1, "Tokenizer")
    assert found is not None
    assert (found.over_length, found.unlearnable) == (2, 1)
    assert (found.mean, found.max) == ((50 + 100) / 2, 300)


def test_rows_without_an_answer_leave_nothing() -> None:
    found = token_lengths([conversation(200, prompt=100)], 100, 4, "Tokenizer")
    assert found is not None
    assert (found.unlearnable, found.mean, found.padded_mean) == (1, 0.0, 0.0)


def test_every_row_of_a_batch_is_as_long_as_its_longest() -> None:
    rows = [conversation(10), conversation(30), conversation(20), conversation(20)]
    found = token_lengths(rows, 1000, 2, "Tokenizer")
    assert found is not None
    assert (found.mean, found.padded_mean) == (20.0, (30 + 30 + 20 + 20) / 4)


def test_both_answers_of_a_pair_are_trained_on() -> None:
    found = token_lengths([RowTokens((10, 30), 5)], 1000, 4, "Tokenizer")
    assert found is not None
    assert (found.max, found.mean, found.padded_mean) == (30, 40.0, 60.0)


def test_no_rows_have_no_lengths() -> None:
    assert token_lengths([], 100, 4, "Tokenizer") is None
