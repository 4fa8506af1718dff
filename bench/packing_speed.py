"""Tokens per second of a packed training against an unpacked one, on rows whose lengths are skewed.

As conversations are: most are short, a few fill the context. Both make one pass over the same rows, with the same batch
size; unpacked, each batch is padded to its longest row. Counted are real tokens, padding is not.
"""

import random
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from bench.report import Figure, NotMeasurable, Report
from bench.trainings import Training, Trainings, conversation, in_turn, listed, median, trainings
from demo.conversations import load_conversations
from finetune_operator.contract.training import TrainingResult

PAIRS = 3
ROWS = 1200
CONTEXT_TOKENS = 512
BATCH_SIZE = 8
SEED = 20261121
MEDIAN_CHARACTERS, SIGMA, MOST_CHARACTERS = 120, 1.1, 2400
GOAL_RATIO = 1.5


@dataclass(frozen=True)
class Run:
    """One training; `tokens` without padding."""

    training: Training
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.training.wall_seconds


@dataclass(frozen=True)
class Pair:
    """Both variants, one after the other."""

    packed: Run
    unpacked: Run

    @property
    def ratio(self) -> float:
        return self.packed.tokens_per_second / self.unpacked.tokens_per_second

    @property
    def cpu_ratio(self) -> float:
        """The same of tokens per CPU second, which other processes on the machine disturb less."""
        packed = self.packed.tokens / self.packed.training.cpu_seconds
        return packed / (self.unpacked.tokens / self.unpacked.training.cpu_seconds)


def measure() -> Report:
    """The median over the pairs; raises NotMeasurable where the two did not see the same tokens."""
    rows = skewed_rows()
    with trainings() as place:
        pairs = [_pair(place, rows, number) for number in range(PAIRS)]
    return _report(rows, pairs)


def skewed_rows() -> list[dict[str, Any]]:
    """Answers of log-normal length, put together of as many sentences as they need; the same at each run."""
    chance = random.Random(SEED)  # noqa: S311 - lengths, no secrets
    known = load_conversations()
    sentences = cycle(row.response for row in known)
    rows = []
    for number in range(ROWS):
        wanted = min(MOST_CHARACTERS, round(chance.lognormvariate(0, SIGMA) * MEDIAN_CHARACTERS))
        answer = next(sentences)
        while len(answer) < wanted:
            answer += " " + next(sentences)
        # Numbered, since equal rows would all be held out together.
        rows.append(conversation(f"{number}: {known[number % len(known)].prompt}", answer[: max(20, wanted)]))
    return rows


def _pair(place: Trainings, rows: list[dict[str, Any]], number: int) -> Pair:
    runs = {kind: _train(place, rows, kind, number) for kind in in_turn(("packed", "unpacked"), number)}
    pair = Pair(**runs)
    if abs(pair.packed.tokens - pair.unpacked.tokens) > 0.01 * pair.unpacked.tokens:
        raise NotMeasurable(f"{pair.packed.tokens} tokens packed and {pair.unpacked.tokens} unpacked are not the same")
    return pair


def _train(place: Trainings, rows: list[dict[str, Any]], kind: str, number: int) -> Run:
    job = place.job(
        f"{kind}-{number}",
        rows,
        epochs=1,
        packing=kind == "packed",
        max_seq_length=CONTEXT_TOKENS,
        batch_size=BATCH_SIZE,
        save_steps=10_000,
    )
    training = place.train(job)
    tokens = TrainingResult.model_validate(job.outcome()).tokens
    if not tokens:
        raise NotMeasurable(f"{job.name} did not count its tokens")
    return Run(training, tokens)


def _report(rows: list[dict[str, Any]], pairs: list[Pair]) -> Report:
    ratio = median(pair.ratio for pair in pairs)
    how = f"median of {len(pairs)} pairs in turn, one pass over {len(rows)} rows, batches of {BATCH_SIZE}, one core"
    steps = pairs[0].packed.training.steps, pairs[0].unpacked.training.steps
    return Report(
        (
            Figure("tokens/s packed", f"{median(pair.packed.tokens_per_second for pair in pairs):.0f}", how),
            Figure("tokens/s unpacked", f"{median(pair.unpacked.tokens_per_second for pair in pairs):.0f}", how),
            Figure(
                "ratio of tokens/s",
                f"{ratio:.2f}",
                "median of the pairs' ratios; padding is not counted",
                f">= {GOAL_RATIO}",
                ratio >= GOAL_RATIO,
            ),
            Figure(
                "ratio of tokens per CPU second",
                f"{median(pair.cpu_ratio for pair in pairs):.2f}",
                "the same; other processes disturb it less",
            ),
        ),
        (
            f"pairs: {listed((pair.ratio for pair in pairs), 2)}",
            f"{pairs[0].packed.tokens} tokens in {steps[0]} steps packed and {steps[1]} unpacked, context "
            f"{CONTEXT_TOKENS}; characters of an answer: median {MEDIAN_CHARACTERS}, log-normal with sigma {SIGMA}, at "
            f"most {MOST_CHARACTERS}",
        ),
    )
