"""Held-out prompts answered by the base model and by the adapter on it, and what the answers score.

Greedy and in file order, so that the same adapter gets the same scores. Only the answers' texts are compared: of a
dialogue the last one, of a preference pair the chosen one.
"""

import time
import traceback
from dataclasses import dataclass
from typing import Any

from failures import is_out_of_memory, log
from held_out import HeldOut, release_memory

from finetune_operator.contract.evaluation import EvaluationConfig, EvaluationReport, Metric, Score, Speed
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.scoring import SCORES, score

Messages = list[dict[str, str]]
ERROR_MAX_CHARACTERS = 300


@dataclass(frozen=True)
class Example:
    """A prompt as tokens, and the answer that it should get."""

    prompt: list[int]
    reference: str


@dataclass(frozen=True)
class Answers:
    """What one model said."""

    texts: list[str]
    tokens: int
    seconds: float
    latency_seconds: float
    """Summed over the answers, each waiting for the whole of its batch."""

    @property
    def speed(self) -> Speed:
        return Speed(
            mean_latency_seconds=self.latency_seconds / len(self.texts),
            seconds_per_answer=self.seconds / len(self.texts),
            tokens_per_second=self.tokens / self.seconds,
        )


def evaluate(
    config: TrainingConfig, wanted: EvaluationConfig, model: Any, tokenizer: Any, rows: list[dict[str, Any]]
) -> EvaluationReport:
    """What was asked for. Whatever goes wrong here is reported, not raised: the training is done and stays so."""
    try:
        return _evaluate(config, wanted, model, tokenizer, rows)
    except Exception as error:  # noqa: BLE001 - what else was measured must not be lost
        return failed(error)


def failed(error: Exception) -> EvaluationReport:
    """The error, told; with its traceback in the log."""
    log("the evaluation failed; the adapter is published without it", error=traceback.format_exc())
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    remedy = "lower spec.evaluation.maxNewTokens or spec.training.batchSize" if is_out_of_memory(error) else None
    message = f"the evaluation failed: {text[:ERROR_MAX_CHARACTERS]}: {remedy or 'see the log of the trainer'}"
    return EvaluationReport(error=message)


def _evaluate(
    config: TrainingConfig, wanted: EvaluationConfig, model: Any, tokenizer: Any, rows: list[dict[str, Any]]
) -> EvaluationReport:
    chosen = rows[: wanted.max_examples]
    context = model.config.max_position_embeddings
    asked = (example_of(tokenizer, row, config.method) for row in chosen)
    examples = [example for example in asked if example and len(example.prompt) + wanted.max_new_tokens <= context]
    left_out = len(chosen) - len(examples)
    if not examples:
        fact = f"none of {len(rows)} held-out rows can be answered in a context of {context} tokens"
        remedy = "lower spec.evaluation.maxNewTokens" if rows else "raise spec.dataset.testFraction or add examples"
        return EvaluationReport(left_out=left_out, error=f"{fact}: {remedy}")
    log("evaluating", examples=len(examples), left_out=left_out, metrics=wanted.metrics)
    base: dict[Metric, float] = {}
    tuned: dict[Metric, float] = {}
    speeds: tuple[Speed | None, Speed | None] = (None, None)
    if any(metric in SCORES for metric in wanted.metrics):
        answering = Answering(model, tokenizer, config.training.batch_size, wanted.max_new_tokens)
        with model.disable_adapter():
            of_base = answering.answers(examples)
        of_tuned = answering.answers(examples)
        references = [example.reference for example in examples]
        base, tuned = (score(wanted.metrics, said.texts, references) for said in (of_base, of_tuned))
        speeds = of_base.speed, of_tuned.speed
    remark = None
    if Metric.TOKEN_ACCURACY in wanted.metrics:
        accuracies = HeldOut(config, tokenizer, chosen).token_accuracies_if_possible(model)
        remark = accuracies.error
        if accuracies.base is not None and accuracies.fine_tuned is not None:
            base[Metric.TOKEN_ACCURACY], tuned[Metric.TOKEN_ACCURACY] = accuracies.base, accuracies.fine_tuned
    report = EvaluationReport(
        examples=len(examples),
        left_out=left_out,
        remark=remark,
        scores=tuple(
            Score(metric=metric, base=round(base[metric], 6), fine_tuned=round(tuned[metric], 6))
            for metric in wanted.metrics
            if metric in base
        ),
        base_speed=speeds[0],
        fine_tuned_speed=speeds[1],
    )
    log("evaluated", **report.model_dump(mode="json"))
    return report


def example_of(tokenizer: Any, row: dict[str, Any], method: str) -> Example | None:
    """The conversation up to its last answer, and that answer; None where nothing comes before it."""
    messages: Messages = row["prompt"] + row["chosen"] if method == "DPO" else row["messages"]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    if last == 0:
        return None
    encoded = tokenizer.apply_chat_template(
        messages[:last], add_generation_prompt=True, return_dict=True, tokenize=True
    )
    return Example(list(encoded["input_ids"]), messages[last]["content"].strip())


class Answering:
    """Greedy answers in batches; a batch that does not fit into memory is halved."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, max_new_tokens: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens
        configured = getattr(model.generation_config, "eos_token_id", None)
        ends = configured if isinstance(configured, list) else [configured]
        self._ends = sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})

    def answers(self, examples: list[Example]) -> Answers:
        was_training = self._model.training
        self._model.eval()
        texts: list[str] = []
        tokens, latency_seconds, started = 0, 0.0, time.monotonic()
        while len(texts) < len(examples):
            batch = examples[len(texts) : len(texts) + self._batch_size]
            batch_started = time.monotonic()
            try:
                said = self._generate(batch)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self._batch_size == 1:
                    raise
                self._batch_size = max(1, len(batch) // 2)
                release_memory()
                log("out of memory; answering fewer prompts at a time", batch_size=self._batch_size)
                continue
            latency_seconds += (time.monotonic() - batch_started) * len(batch)
            tokens += sum(map(len, said))
            texts += [text.strip() for text in self._tokenizer.batch_decode(said, skip_special_tokens=True)]
        self._model.train(was_training)
        return Answers(texts, tokens, time.monotonic() - started, latency_seconds)

    def _generate(self, batch: list[Example]) -> list[list[int]]:
        """The tokens of each answer, its end included."""
        import torch

        device = next(self._model.parameters()).device
        width, padding = max(len(example.prompt) for example in batch), self._tokenizer.pad_token_id
        # On the left: an answer continues its prompt, not a padding.
        missing = [width - len(example.prompt) for example in batch]
        ids = [[padding] * gap + example.prompt for gap, example in zip(missing, batch, strict=True)]
        mask = [[0] * gap + [1] * (width - gap) for gap in missing]
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
        with torch.no_grad(), autocast:
            output = self._model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                eos_token_id=self._ends,
                pad_token_id=padding,
            )
        return [self._until_end(answer) for answer in output[:, width:].tolist()]

    def _until_end(self, answer: list[int]) -> list[int]:
        """Without what fills the batch after it."""
        ends = [index for index, token in enumerate(answer) if token in self._ends]
        return answer[: ends[0] + 1] if ends else answer
