"""`finetune-operator estimate FILE`: what a FineTuneJob would take on each known device, without a cluster.

finetune-operator estimate job.yaml --base-model ~/models/llama --dataset out --prices values.yaml
finetune-operator estimate job.yaml --rows 1200 --tokens 350

The same numbers as in `status.preflight`, from the same functions. A base model of the hub is looked up there, its
weights excepted; HF_ENDPOINT and HF_TOKEN are heeded.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from finetune_operator.contract.failures import Refused
from finetune_operator.contract.preflight import Preflight, TokenLengths
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.preflight import Rows, preflight, refusal, remote_preflight
from finetune_operator.core.remote_training import CHARACTERS_PER_TOKEN
from finetune_operator.core.training_estimates import (
    UNKNOWN_REMOTE_TIME,
    Estimate,
    all_known,
    estimate_at_provider,
    estimate_of_job,
    shown_cost,
    shown_time,
)
from finetune_operator.logs import configure_logging
from finetune_operator.providers.job_file import Unusable, config_of, read_job
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.store.base_models import DEFAULT_ENDPOINT
from finetune_operator.store.hub import Trouble, Wanted, download, resolve
from finetune_operator.store.preflight import characters_in, count_tokens, shape_in

DESCRIPTIONS = ("*.json", "*.jinja")
TITLES = ("DEVICE", "MEMORY", "FITS", "TIME", "COST")
QUANTIZATION_CAVEAT = "Without an NVIDIA GPU only training.quantization none works; its time is much the same."
CAVEAT = (
    "Times are of the steps alone: loading the model, evaluations and outputs come on top. They are ranges from what "
    "was published of such trainings; once one runs, its own pace says more."
)


def main(options: argparse.Namespace, environment: Mapping[str, str] | None = None) -> int:
    """Prints what is known and a table; the exit code is 1 where nothing could be told."""
    configure_logging()
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # its lines have signed addresses in them
    environment = os.environ if environment is None else environment
    try:
        job = read_job(options.job)
        prices = _prices(options.prices)
        if remote := job.spec.base_model.source.openai:
            lines = list(_told_of_provider(job, remote.model, options, prices))
        else:
            with tempfile.TemporaryDirectory() as scratch:
                lines = list(_told(job, options, prices, _model(job, options.base_model, environment, Path(scratch))))
    except (Unusable, Trouble) as error:
        sys.stderr.write(f"finetune-operator: {error}\n")
        return 1
    except Refused as refused:
        sys.stderr.write(f"finetune-operator: {refused.failure.message}: {refused.failure.remedy}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _told(job: FineTuneJob, options: argparse.Namespace, prices: PriceBook, model: Path) -> Iterable[str]:
    config = config_of(job)
    shape = shape_in(model)
    if shape is None:
        raise Unusable(
            f"{model / 'config.json'} describes no model whose size is understood: a dense decoder of Llama's shape"
        )
    rows = _rows(config, options, model)
    found = preflight(shape, config, rows)
    yield from _facts(found, rows)
    if failure := refusal(found, config, rows):
        yield f"refused: {failure.message}: {failure.remedy}"
    yield from (f"warning: {warning}" for warning in found.warnings)
    yield ""
    own = estimate_of_job(found, job.spec.resources, job.spec.scheduling, prices)
    yield from _table([own, *all_known(found, prices)])
    if own.unknown:
        yield f"this job ({own.device}): {own.unknown}"
    if config.training.quantization != "none":
        yield QUANTIZATION_CAVEAT
    yield CAVEAT


def _told_of_provider(job: FineTuneJob, model: str, options: argparse.Namespace, prices: PriceBook) -> Iterable[str]:
    """What it bills; its machines are its own."""
    rows, characters = _characters(options)
    work = remote_preflight(config_of(job), rows, characters).remote
    if work is None:
        raise ValueError("a training at a provider has remote work")
    estimate = estimate_at_provider(model, work.tokens, prices)
    yield f"rows: {rows}"
    yield f"training: {work.steps} steps, about {work.tokens} tokens"
    yield f"cost: {shown_cost(estimate.cost, estimate.currency) if estimate.cost else f'unknown: {estimate.unknown}'}"
    yield f"time: unknown: {UNKNOWN_REMOTE_TIME}"
    yield "memory: none of the cluster's GPUs is taken"


def _facts(found: Preflight, rows: Rows) -> Iterable[str]:
    yield f"base model: {found.parameters_billion:g} billion parameters"
    yield f"GPU memory: {found.memory_gib:g} GiB, of which {found.least_memory_gib:.1f} GiB whatever the batch"
    lengths, work = found.tokens, found.work
    if lengths and work:
        how = "" if lengths.method == "Tokenizer" else ", estimated"
        yield (
            f"rows: {rows.count}, half of them up to {lengths.p50} tokens, 95 % up to {lengths.p95}{how} "
            f"({lengths.sampled_rows} looked at)"
        )
        yield f"training: {work.steps} steps, {work.tokens} tokens"


def _table(estimates: Iterable[Estimate]) -> Iterable[str]:
    """The job's own device first."""
    lines = [TITLES, *(_line(each) for each in estimates)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(TITLES))]
    for line in lines:
        yield "   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _line(estimate: Estimate) -> tuple[str, ...]:
    return (
        estimate.device,
        f"{estimate.memory_gib} GiB" if estimate.memory_gib else "",
        estimate.fits or "",
        shown_time(estimate.seconds) if estimate.seconds else "",
        shown_cost(estimate.cost, estimate.currency) if estimate.cost else "",
    )


def _characters(options: argparse.Namespace) -> tuple[int, int]:
    """Rows, and the characters of all of them."""
    if options.dataset:
        file = options.dataset / "train.jsonl"
        try:
            with file.open("rb") as lines:
                return sum(1 for _ in lines), characters_in(file)
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(f"{file}: {error}") from None
    rows, tokens = _said_size(options)
    return rows, rows * tokens * CHARACTERS_PER_TOKEN


def _said_size(options: argparse.Namespace) -> tuple[int, int]:
    """Rows, and the tokens of one. Raises `Unusable`."""
    if options.rows is None or options.tokens is None:
        raise Unusable("say what it trains on: --dataset DIRECTORY, or --rows and --tokens")
    return options.rows, options.tokens


def _rows(config: TrainingConfig, options: argparse.Namespace, model: Path) -> Rows:
    if options.dataset:
        file = options.dataset / "train.jsonl"
        try:
            with file.open("rb") as lines:
                count = sum(1 for _ in lines)
        except OSError as error:
            raise Unusable(f"{file}: {error.strerror}") from None
        return count_tokens(config, model, file, count)
    rows, tokens = _said_size(options)
    return Rows(rows, _equally_long(rows, tokens, config))


def _equally_long(rows: int, tokens: int, config: TrainingConfig) -> TokenLengths:
    kept = min(tokens, config.training.max_seq_length) * (2 if config.method == "DPO" else 1)
    return TokenLengths(
        method="Characters",
        sampled_rows=rows,
        p50=tokens,
        p95=tokens,
        max=tokens,
        over_length=rows if tokens > config.training.max_seq_length else 0,
        unlearnable=0,
        mean=kept,
        padded_mean=kept,
    )


def _model(job: FineTuneJob, given: Path | None, environment: Mapping[str, str], scratch: Path) -> Path:
    """The directory that describes the base model. Raises `Unusable`, `Refused` or `Trouble`."""
    if given:
        return given
    hub = job.spec.base_model.source.hub
    if hub is None:
        raise Unusable("the base model is on a volume of the cluster: say with --base-model where its config.json is")
    endpoint = (environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    wanted = Wanted(hub.id, hub.revision, endpoint, environment.get("HF_TOKEN") or None)
    download(wanted, resolve(wanted), scratch, DESCRIPTIONS)
    return scratch


def _prices(file: Path | None) -> PriceBook:
    """As the chart's values have them, alone or among all others. Raises `Unusable`."""
    if file is None:
        return PriceBook()
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        book = values.get("prices", values) if isinstance(values, Mapping) else values
        return PriceBook.model_validate(book)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise Unusable(f"{file} has no prices as in the chart's values: {error}") from None
