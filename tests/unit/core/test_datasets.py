"""Which rows are taken, how they are split, and what is said when too few are left."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.dataset import DatasetConfig, ObjectSource, RatingsSource, StoredSource, VolumeSource
from finetune_operator.contract.failures import FailureReason
from finetune_operator.core import datasets
from finetune_operator.core.dataset_records import question_and_answer
from finetune_operator.core.datasets import DropReason, FilterCount, RatedAnswer

CONFIG = DatasetConfig(source=RatingsSource())


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        ("Why is that so?", "Because it could not be otherwise.", None),
        ("Why?", "Because it could not be otherwise.", DropReason.SHORT_PROMPT),
        ("Why is that so?", "Because.", DropReason.SHORT_RESPONSE),
        ("   Why?          ", "Because it could not be otherwise.", DropReason.SHORT_PROMPT),
    ],
)
def test_quality(prompt: str, response: str, expected: DropReason | None) -> None:
    assert datasets.quality(question_and_answer(prompt, response), CONFIG) == expected


def test_an_empty_text_is_never_trained_on() -> None:
    lenient = CONFIG.model_copy(update={"min_prompt_characters": 0, "min_response_characters": 0})
    assert datasets.quality(question_and_answer("a", "b"), lenient) is None
    assert datasets.quality(question_and_answer("a", " "), lenient) == DropReason.SHORT_RESPONSE


@pytest.mark.parametrize(
    ("answers", "difference", "expected"),
    [
        ([], 1, None),
        ([("a", 5)], 1, None),
        ([("a", 3), ("b", 3)], 1, None),
        ([("a", 5), ("b", 3), ("c", 1)], 1, ("a", "c")),
        ([("a", 4), ("b", 2.5)], 2, None),
        ([("b", 5), ("a", 5), ("d", 1), ("c", 1)], 4, ("b", "c")),
    ],
)
def test_a_pair_is_the_best_answer_against_the_worst(
    answers: list[tuple[str, float]], difference: int, expected: tuple[str, str] | None
) -> None:
    rated = [RatedAnswer(*answer) for answer in answers]
    assert datasets.best_pair(rated, difference) == expected
    assert datasets.best_pair(rated[::-1], difference) == expected


@pytest.mark.parametrize(
    ("points", "share", "expected"),
    [
        (None, None, 1),
        (3, None, 3),
        (None, 0.0, 1),
        (None, 0.25, 1),
        (None, 0.26, 2),
        (None, 0.5, 2),
        (None, 0.75, 3),
        (None, 1.0, 4),
    ],
)
def test_a_difference_is_points_or_a_share_of_the_scale(points: int | None, share: float | None, expected: int) -> None:
    assert datasets.rating_difference(points, share) == expected


ROWS = st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=60)


@given(ROWS, st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_the_split_keeps_each_row_once_and_each_prompt_together(
    rows: list[tuple[str, bytes]], fraction: float, seed: int
) -> None:
    made = datasets.arranged(rows, fraction, seed)
    assert made == datasets.arranged(reversed([*rows, *rows]), fraction, seed)
    keys = {datasets.prompt_key(prompt, seed): line for prompt, line in rows}
    assert len(made.train) + len(made.test) == len({(datasets.prompt_key(prompt, seed), line) for prompt, line in rows})
    held_out = datasets.held_out_count(len(keys), fraction)
    if fraction > 0 and len(keys) >= 2:
        assert 1 <= held_out < len(keys)
        assert abs(held_out - fraction * len(keys)) <= 1
        assert made.train
        assert made.test
    else:
        assert not made.test


@given(st.lists(st.integers(0, 50), max_size=100), st.floats(0, 1))
def test_no_prompt_falls_into_both_parts(numbers: list[int], fraction: float) -> None:
    made = datasets.arranged(((str(n), f"{n} {k}".encode()) for k, n in enumerate(numbers)), fraction, 42)
    assert not {line.split()[0] for line in made.train} & {line.split()[0] for line in made.test}


def test_another_seed_holds_out_other_prompts() -> None:
    def chosen(seed: int) -> tuple[bytes, ...]:
        return datasets.arranged(((str(n), str(n).encode()) for n in range(100)), 0.2, seed).test

    assert len(chosen(1)) == 20
    assert set(chosen(1)) != set(chosen(2))


def test_white_space_around_a_prompt_does_not_make_it_another() -> None:
    assert all(
        datasets.prompt_key(f"{space}a{space}", 1) == datasets.prompt_key("a", 1) for space in datasets.WHITESPACE
    )
    assert set(datasets.WHITESPACE) == {chr(code) for code in range(0x110000) if chr(code).isspace()}


def test_the_digest_can_be_had_from_the_files_by_other_means() -> None:
    digest = datasets.Digest()
    digest.add(b"a\nb\n")
    digest.add(b"c\n")
    assert (
        digest.close(2, 1) == f"sha256:{hashlib.sha256(bytes('a|b|c|2 1|'.replace('|', chr(10)), 'ascii')).hexdigest()}"
    )


@pytest.mark.parametrize(
    ("counts", "message", "remedy"),
    [
        ([("the table", 0)], "has no rows", "collect ratings"),
        (
            [("the table", 9), ("domain='ethics'", 0), ("minRating=4", 0)],
            "domain='ethics' leaves none of the 9 rows",
            "relax domain='ethics'",
        ),
        (
            [("the table", 9), ("domain='ethics'", 3), ("minRating=4", 0)],
            "minRating=4 leaves none of the 3 rows",
            "relax minRating=4",
        ),
    ],
)
def test_the_filter_that_emptied_the_dataset_is_named(counts: list[tuple[str, int]], message: str, remedy: str) -> None:
    failure = datasets.emptied_by([FilterCount(*count) for count in counts])
    assert failure.reason == FailureReason.DATASET_EMPTY
    assert message in failure.message
    assert remedy in failure.remedy


def test_too_few_rows_count_what_was_dropped() -> None:
    config = CONFIG.model_copy(update={"min_examples": 50})
    dropped = {"ShortResponse": 30, "Duplicate": 2}
    failure = datasets.size_failure(8, dropped, config, "SFT")
    assert failure is not None
    assert failure.reason == FailureReason.DATASET_TOO_SMALL
    assert failure.message == "8 of 40 rows are left, dataset.minExamples is 50; dropped: 2 Duplicate, 30 ShortResponse"
    assert "minResponseCharacters" in failure.remedy
    assert datasets.size_failure(50, dropped, config, "SFT") is None


RATINGS = RatingsSource(min_rating=1, gold_star_only=False)
SOURCES: dict[str, tuple[RatingsSource | VolumeSource | ObjectSource | StoredSource, str]] = {
    "ratings, all of them": (RATINGS, "rate more answers"),
    "ratings by default": (
        RatingsSource(),
        "rate more answers, or relax dataset.ratings.minRating or dataset.ratings.goldStarOnly",
    ),
    "ratings of somebody": (
        RATINGS.model_copy(update={"philosopher": "ada", "task_type": "qa", "limit": 9}),
        "rate more answers, or relax dataset.ratings.philosopher or dataset.ratings.taskType or dataset.ratings.limit",
    ),
    "a file on a volume": (
        VolumeSource(path="chats/rows.jsonl"),
        "add rows to chats/rows.jsonl, or point dataset.volume.path at a file with more",
    ),
    "an object": (
        ObjectSource(url="s3://chats/rows.jsonl"),
        "add rows to s3://chats/rows.jsonl, or point dataset.s3.url at a file with more",
    ),
    "an uploaded file": (
        StoredSource(path="file-0/data.jsonl"),
        "upload a file with more rows, and name it in dataset.stored.path",
    ),
}


@pytest.mark.parametrize(("source", "remedy"), SOURCES.values(), ids=SOURCES)
def test_the_remedy_names_the_source_that_is_used(
    source: RatingsSource | VolumeSource | ObjectSource | StoredSource, remedy: str
) -> None:
    config = CONFIG.model_copy(update={"source": source, "min_examples": 50})
    nothing = datasets.size_failure(0, {}, config, "SFT")
    few = datasets.size_failure(8, {"Duplicate": 2}, config, "SFT")
    assert nothing is not None
    assert few is not None
    assert nothing.remedy == remedy
    assert few.remedy == f"{remedy}, or lower dataset.minExamples, or remove what makes the rows equal"


def test_dpo_without_pairs_says_so() -> None:
    failure = datasets.size_failure(0, {"NoPair": 12}, CONFIG, "DPO")
    assert failure is not None
    assert failure.reason == FailureReason.DATASET_EMPTY
    assert "no prompt has two answers" in failure.message
    assert "12 NoPair" in failure.message


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (499, "499 examples; 500 or more are recommended"),
        (500, "1000 or more are good, 5000 best"),
        (1000, "are good; 5000 or more are best"),
        (5000, None),
    ],
)
def test_what_a_number_of_examples_is_good_for_is_a_warning(kept: int, expected: str | None) -> None:
    assert expected is None or expected in datasets.size_warnings(kept)[0]
    assert bool(datasets.size_warnings(kept)) == bool(expected)
