"""Base model and version asked the same questions, one model after the other, and what their answers score."""

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from finetune_operator.contract.evaluation import (
    DomainScore,
    EngineMemory,
    EvaluationReport,
    Metric,
    Saturation,
    Score,
    Speed,
)
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.served_evaluation import SaturationConfig, ServedEvaluationConfig
from finetune_operator.core.scoring import SCORES, score
from finetune_operator.evaluator.engine import Answer, Engine, Prompt, Sampling
from finetune_operator.evaluator.memory import Peak
from finetune_operator.evaluator.process import for_each
from finetune_operator.evaluator.questions import Question, Questions
from finetune_operator.evaluator.saturation import Highest, held_load, saturated
from finetune_operator.logs import get_logger

S = TypeVar("S")
T = TypeVar("T")
WARM_UP: list[dict[str, str]] = [{"role": "user", "content": "Hello"}]
SCORE_DIGITS = 6
PREFIXES_AT_ONCE = 64
DOMAINS_MAX = 10
DOMAIN_MAX_CHARACTERS = 32
"""So many of such length fit into a termination message beside everything else."""
ELSEWHERE = (
    "was asked of another engine, since this version's has its merged weights alone: latencies and rates are those of "
    "two engines, and costs are not compared"
)
NO_TOKENS = "TokenAccuracy was not measured: this engine does not tell the tokens of its answers"

logger = get_logger(__name__)


@dataclass(frozen=True)
class Pass:
    """What one model said, and how long all of it took."""

    answers: list[Answer]
    seconds: float

    @property
    def texts(self) -> list[str]:
        return [answer.text.strip() for answer in self.answers]

    @property
    def speed(self) -> Speed:
        latencies = sorted(answer.seconds for answer in self.answers)
        count = len(latencies)
        return Speed(
            mean_latency_seconds=sum(latencies) / count,
            seconds_per_answer=self.seconds / count,
            tokens_per_second=sum(answer.tokens for answer in self.answers) / self.seconds,
            p95_latency_seconds=latencies[math.ceil(0.95 * count) - 1],
            mean_seconds_to_first_token=sum(answer.seconds_to_first_token for answer in self.answers) / count,
        )


@dataclass(frozen=True)
class Model:
    """One of the two that are compared; of `tokens_as` its engine tells the tokens of a conversation."""

    name: str
    engine: Engine
    tokens_as: str


async def measure(
    config: ServedEvaluationConfig, engine: Engine, read: Questions, base_engine: Engine | None = None
) -> EvaluationReport:
    """Everything that was asked for; the base model is asked at the `base_engine`, where that is another one.

    Raises `Refused`, `EngineRefused` and `EngineUnavailable`.
    """
    asking = Asking(config, engine, base_engine)
    questions = await asking.fitting(read.questions)
    left_out = read.left_out + len(read.questions) - len(questions)
    logger.info("evaluating", questions=len(questions), left_out=left_out, metrics=config.metrics)
    base = await asking.answers(asking.base, questions)
    tuned = await asking.answers(asking.tuned, questions)
    references = [question.reference for question in questions]
    asked_for = [metric for metric in config.metrics if metric in SCORES]
    of_base, of_tuned = (score(asked_for, each.texts, references) for each in (base, tuned))
    remarks = [f"{config.base_model_name} {ELSEWHERE}"] if base_engine else []
    if Metric.TOKEN_ACCURACY in config.metrics:
        accuracies = [await asking.token_accuracy(model, questions) for model in asking.models]
        if accuracies[0] is None or accuracies[1] is None:
            remarks.append(NO_TOKENS)
        else:
            of_base[Metric.TOKEN_ACCURACY], of_tuned[Metric.TOKEN_ACCURACY] = accuracies[0], accuracies[1]
    highest: list[Highest] = []
    if config.saturation:
        highest = [await asking.saturation(model, questions, config.saturation) for model in asking.models]
        remarks += [
            f"{model.name} was not saturated by {found.load.concurrency} requests at once: "
            "raise saturation.maxConcurrency"
            for model, found in zip(asking.models, highest, strict=True)
            if not found.is_limit
        ]
    return EvaluationReport(
        examples=len(questions),
        left_out=left_out,
        remark="; ".join(remarks) or None,
        scores=tuple(
            Score(
                metric=metric,
                base=round(of_base[metric], SCORE_DIGITS),
                fine_tuned=round(of_tuned[metric], SCORE_DIGITS),
            )
            for metric in config.metrics
            if metric in of_base
        ),
        domains=tuple(_by_domain(asked_for, questions, base.texts, tuned.texts)),
        base_speed=base.speed,
        fine_tuned_speed=tuned.speed,
        base_saturation=highest[0].load if highest else None,
        fine_tuned_saturation=highest[1].load if highest else None,
        base_memory=asking.memory(asking.base),
        fine_tuned_memory=asking.memory(asking.tuned),
    )


def _by_domain(
    metrics: Sequence[Metric], questions: Sequence[Question], of_base: Sequence[str], of_tuned: Sequence[str]
) -> Iterator[DomainScore]:
    """The first metric within each domain, those with the most questions first."""
    if not metrics:
        return
    metric = metrics[0]
    counted = Counter(question.domain for question in questions if question.domain)
    for domain, examples in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:DOMAINS_MAX]:
        own = [index for index, question in enumerate(questions) if question.domain == domain]
        references = [questions[index].reference for index in own]
        base, tuned = (SCORES[metric]([texts[index] for index in own], references) for texts in (of_base, of_tuned))
        yield DomainScore(
            domain=domain[:DOMAIN_MAX_CHARACTERS],
            examples=examples,
            metric=metric,
            base=round(base, SCORE_DIGITS),
            fine_tuned=round(tuned, SCORE_DIGITS),
        )


class Asking:
    """Bounded concurrency over an engine's answers; both models get the questions in the same order."""

    def __init__(self, config: ServedEvaluationConfig, engine: Engine, base_engine: Engine | None) -> None:
        base, served = config.base_model_name, config.served_name
        self.base = Model(base, base_engine or engine, base)
        # An adapter has the tokenizer of its base model; of merged weights the engine knows no other name.
        self.tuned = Model(served, engine, served if base_engine else base)
        self.models = (self.base, self.tuned)
        self._tokenizing = self.models if base_engine else (self.base,)
        self._concurrency = config.concurrency
        self._max_new_tokens = config.max_new_tokens
        self._sampling = Sampling(config.max_new_tokens)
        self._peaks = {model: Peak() for model in self.models}

    async def fitting(self, questions: Sequence[Question]) -> list[Question]:
        """Those that leave each engine room for the longest answer. Raises `Refused` where none does."""
        for model in self._tokenizing:
            questions = await self._fitting(model, questions)
        return list(questions)

    async def _fitting(self, model: Model, questions: Sequence[Question]) -> list[Question]:
        prompts = await self._each(questions, lambda each: model.engine.prompt(model.tokens_as, each.asked))
        pairs = list(zip(questions, prompts, strict=True))
        fitting = [each for each, prompt in pairs if len(prompt.tokens) + self._max_new_tokens <= prompt.context]
        if not fitting:
            raise Refused.because(
                FailureReason.DATASET_EMPTY,
                f"none of {len(pairs)} questions leaves room for {self._max_new_tokens} tokens of an answer "
                f"in the engine's context of {pairs[0][1].context}",
                "lower spec.evaluation.maxNewTokens, or raise spec.serving.maxModelLen",
            )
        return fitting

    async def answers(self, model: Model, questions: Sequence[Question]) -> Pass:
        """The first answer of a model, for which an engine may have to make things ready, is not timed."""
        await model.engine.answer(model.name, WARM_UP, Sampling(1))
        async with self._peaks[model].watching(model.engine):
            started = time.monotonic()
            answers = await self._each(
                questions, lambda each: model.engine.answer(model.name, each.asked, self._sampling)
            )
            return Pass(answers, time.monotonic() - started)

    async def saturation(self, model: Model, questions: Sequence[Question], wanted: SaturationConfig) -> Highest:
        """How much of this model the engine answers at most."""

        async def load(at_once: int) -> Saturation:
            return await held_load(model.engine, model.name, questions, self._sampling, at_once, wanted.step_seconds)

        async with self._peaks[model].watching(model.engine):
            return await saturated(load, wanted.max_concurrency)

    def memory(self, model: Model) -> EngineMemory | None:
        """The most that the engine took while the model was asked."""
        return self._peaks[model].memory

    async def token_accuracy(self, model: Model, questions: Sequence[Question]) -> float | None:
        """Share of the assistant's tokens that the model ranks first given all before them, as trainers count it."""
        counts = await self._each(questions, lambda each: self._hits(model, each))
        known = [count for count in counts if count is not None]
        hits, tokens = sum(hit for hit, _ in known), sum(count for _, count in known)
        return hits / tokens if len(known) == len(counts) and tokens else None

    async def _hits(self, model: Model, question: Question) -> tuple[int, int] | None:
        """(tokens that rank first, tokens) of the answers of one conversation."""
        messages = list(question.messages)
        engine, tokens_as = model.engine, model.tokens_as
        whole = await engine.prompt(tokens_as, messages, answered=True)
        if len(whole.tokens) >= whole.context:
            return 0, 0
        learned: set[int] = set()
        for index, message in enumerate(messages):
            if message["role"] == "assistant" and index > 0:
                before = await engine.prompt(tokens_as, messages[:index])
                after = await engine.prompt(tokens_as, messages[: index + 1], answered=True)
                learned |= set(range(_common(whole, before), _common(whole, after)))
        positions = sorted(learned - {0})
        hits = 0
        for start in range(0, len(positions), PREFIXES_AT_ONCE):
            some = positions[start : start + PREFIXES_AT_ONCE]
            said = await engine.next_tokens(model.name, [whole.tokens[:position] for position in some])
            if said is None:
                return None
            hits += sum(token == whole.tokens[position] for token, position in zip(said, some, strict=True))
        return hits, len(positions)

    async def _each(self, items: Sequence[S], ask: Callable[[S], Awaitable[T]]) -> list[T]:
        """All of them, `concurrency` at a time; the first failure ends the others."""
        found: dict[int, T] = {}

        async def one(item: tuple[int, S]) -> None:
            found[item[0]] = await ask(item[1])

        await for_each(enumerate(items), self._concurrency, one)
        return [found[index] for index in range(len(items))]


def _common(first: Prompt, second: Prompt) -> int:
    """Length of the common beginning: a template may end a prompt with more than its answer continues."""
    length = 0
    for left, right in zip(first.tokens, second.tokens, strict=False):
        if left != right:
            break
        length += 1
    return length
