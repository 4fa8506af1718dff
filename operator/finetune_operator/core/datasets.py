"""What becomes a training row: quality rules, pairs, the order, the split and the digest.

Pure, and the specification of what `store.datasets` does with more rows than fit into memory. Rows are ordered by their
content, so that the same data gives the same files whatever they come from and in whatever order.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from pydantic.alias_generators import to_camel

from finetune_operator.contract.dataset import DatasetConfig, ObjectSource, RatingsSource, StoredSource, VolumeSource
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.core.dataset_records import Record

RECOMMENDED_EXAMPLES = 500
GOOD_EXAMPLES = 1_000
BEST_EXAMPLES = 5_000
RATING_STEPS = 4
Source = RatingsSource | VolumeSource | ObjectSource | StoredSource
FILTERS = (
    ("philosopher", None),
    ("domain", None),
    ("task_type", None),
    ("min_rating", 1),
    ("min_confidence", None),
    ("gold_star_only", False),
    ("limit", None),
)
"""Of ratings, with the value of each that leaves out none."""
# What `str.strip` removes; written out, since SQL must remove the same.
WHITESPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)


_NEARER_PAIRS = "lower dataset.minRatingDifference or dataset.minConfidenceDiff, whichever is set"


class DropReason(StrEnum):
    """Why a row is left out."""

    SHORT_PROMPT = "ShortPrompt"
    SHORT_RESPONSE = "ShortResponse"
    LOW_RATING = "LowRating"
    DUPLICATE = "Duplicate"
    NO_PAIR = "NoPair"
    OVER_LENGTH = "OverLength"
    INVALID_TEXT = "InvalidText"


def quality(record: Record, config: DatasetConfig) -> DropReason | None:
    """Whether a row is worth training on; an empty text never is."""
    if len(record.prompt.strip(WHITESPACE)) < max(1, config.min_prompt_characters):
        return DropReason.SHORT_PROMPT
    if len(record.response.strip(WHITESPACE)) < max(1, config.min_response_characters):
        return DropReason.SHORT_RESPONSE
    if len(record.prompt) + len(record.response) > config.max_characters:
        return DropReason.OVER_LENGTH
    return None


def rating_difference(points: int | None, share: float | None) -> int:
    """How many points apart the answers of a pair must be: as said, or as a share of the scale from 1 to 5, of which
    0.5 are two points. Answers of the same rating are never a pair.
    """
    if points is not None:
        return points
    # 0.75 is three points also where it came as a sum that has a trace more.
    return max(1, math.ceil(round((share or 0.0) * RATING_STEPS, 9)))


class RatedAnswer(NamedTuple):
    """One answer to a prompt and the mean of its ratings."""

    response: str
    rating: float


def best_pair(answers: Sequence[RatedAnswer], min_rating_difference: int) -> tuple[str, str] | None:
    """The best answer against the worst, if they are far enough apart; equal ratings are told apart by their text."""
    if not answers:
        return None
    best = max(answers, key=lambda answer: (answer.rating, answer.response))
    worst = min(answers, key=lambda answer: (answer.rating, answer.response))
    if best.rating - worst.rating < min_rating_difference:
        return None
    return best.response, worst.response


def prompt_key(prompt: str, seed: int) -> bytes:
    """By which a prompt goes to one part, with all its rows, and stands in it: 16 hexadecimal digits."""
    return hashlib.md5(f"{seed}:{prompt.strip(WHITESPACE)}".encode(), usedforsecurity=False).hexdigest()[:16].encode()


def held_out_count(prompts: int, test_fraction: float) -> int:
    """How many prompts are the test part: a fixed share, at least one and not all where there are two or more."""
    if test_fraction <= 0 or prompts < 2:
        return 0
    return min(max(round(test_fraction * prompts), 1), prompts - 1)


class Dataset(NamedTuple):
    """Both parts, line by line."""

    train: tuple[bytes, ...]
    test: tuple[bytes, ...]


def arranged(rows: Iterable[tuple[str, bytes]], test_fraction: float, seed: int) -> Dataset:
    """What a dataset's files hold, given the prompt and line of each row: each line once, sorted from high to low by
    the prompt's key and then the line, the last prompts held out. `store.datasets` does the same on disk.
    """
    ordered = sorted({(prompt_key(prompt, seed), line) for prompt, line in rows}, reverse=True)
    keys = sorted({key for key, _ in ordered})
    held_out = set(keys[: held_out_count(len(keys), test_fraction)])
    return Dataset(
        tuple(line for key, line in ordered if key not in held_out),
        tuple(line for key, line in ordered if key in held_out),
    )


class Digest:
    """sha256 over the lines of both parts, one after the other, and then how many rows each has:
    `(cat train.jsonl test.jsonl; echo 90 10) | sha256sum`.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, lines: bytes) -> None:
        self._hash.update(lines)

    def close(self, rows: int, test_rows: int) -> str:
        self._hash.update(f"{rows} {test_rows}\n".encode())
        return f"sha256:{self._hash.hexdigest()}"


class FilterCount(NamedTuple):
    """How many rows are left when this filter has been added to those before it."""

    filter: str
    rows: int


def emptied_by(counts: Sequence[FilterCount]) -> Failure:
    """Which filter took the last row. `counts` starts with the whole table and ends with no rows."""
    previous = FilterCount("the table ml_analysis_rating", 0)
    for count in counts:
        if count.rows == 0:
            break
        previous = count
    else:
        raise ValueError("no filter emptied the dataset")
    if count is counts[0]:
        message = "the table ml_analysis_rating has no rows"
        remedy = "collect ratings first, or point ratings.secretRef at the database that has them"
    else:
        message = f"{count.filter} leaves none of the {previous.rows} rows that the filters before it leave"
        remedy = f"relax {count.filter} in spec.dataset.ratings"
    return Failure(reason=FailureReason.DATASET_EMPTY, message=message, remedy=remedy)


def size_failure(kept: int, dropped: Mapping[str, int], config: DatasetConfig, method: str) -> Failure | None:
    """Whether enough rows are left; the message counts what was dropped and why."""
    total = kept + sum(dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()) if count)
    if kept == 0 and method == "DPO" and dropped.get(DropReason.NO_PAIR):
        return Failure(
            reason=FailureReason.DATASET_EMPTY,
            message=f"no prompt has two answers whose ratings differ by {config.min_rating_difference} or more "
            f"({total} ratings read; dropped: {reasons})",
            remedy=f"rate several answers to the same prompt, or {_NEARER_PAIRS}",
        )
    if total == 0:
        return Failure(
            reason=FailureReason.DATASET_EMPTY,
            message="the dataset has no rows",
            remedy=_more_rows(config.source),
        )
    if kept < config.min_examples or kept == 0:
        return Failure(
            reason=FailureReason.DATASET_TOO_SMALL,
            message=f"{kept} of {total} rows are left, dataset.minExamples is {config.min_examples}"
            + (f"; dropped: {reasons}" if reasons else ""),
            remedy=_remedy_for(dropped, config.source),
        )
    return None


def size_warnings(kept: int) -> tuple[str, ...]:
    """What the number of examples is good for."""
    if kept >= BEST_EXAMPLES:
        return ()
    if kept >= GOOD_EXAMPLES:
        return (f"{kept} examples are good; {BEST_EXAMPLES} or more are best",)
    if kept >= RECOMMENDED_EXAMPLES:
        return (f"{kept} examples are enough; {GOOD_EXAMPLES} or more are good, {BEST_EXAMPLES} best",)
    return (f"{kept} examples; {RECOMMENDED_EXAMPLES} or more are recommended",)


def _more_rows(source: Source) -> str:
    """Where rows come from, by the field that says so."""
    match source:
        case RatingsSource():
            used = [name for name, loosest in FILTERS if getattr(source, name) != loosest]
            fields = [f"dataset.ratings.{to_camel(name)}" for name in used]
            return f"rate more answers, or relax {' or '.join(fields)}" if fields else "rate more answers"
        case VolumeSource(path=path):
            return f"add rows to {path}, or point dataset.volume.path at a file with more"
        case ObjectSource(url=url):
            return f"add rows to {url}, or point dataset.s3.url at a file with more"
        case StoredSource():
            return "upload a file with more rows, and name it in dataset.stored.path"


def _remedy_for(dropped: Mapping[str, int], source: Source) -> str:
    remedies = {
        DropReason.SHORT_PROMPT: "lower dataset.minPromptCharacters",
        DropReason.SHORT_RESPONSE: "lower dataset.minResponseCharacters",
        DropReason.LOW_RATING: "lower dataset.ratings.minRating",
        DropReason.DUPLICATE: "remove what makes the rows equal",
        DropReason.NO_PAIR: _NEARER_PAIRS,
        DropReason.OVER_LENGTH: "raise dataset.maxCharacters",
        DropReason.INVALID_TEXT: "store the texts as UTF-8",
    }
    largest = max(dropped, key=lambda reason: dropped[reason], default=None)
    hint = f", or {remedies[DropReason(largest)]}" if largest is not None and dropped[largest] else ""
    return f"{_more_rows(source)}, or lower dataset.minExamples{hint}"
