"""The evaluator's process: a config in, a report in the termination message, an exit code that Kubernetes acts upon."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.places import ENGINE_API_KEY_VARIABLE, TERMINATION_MESSAGE_FILE
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
from finetune_operator.evaluator.engine import Engine, Patience
from finetune_operator.evaluator.measure import measure
from finetune_operator.evaluator.process import KEEP_ALIVE_SECONDS, Remedies, told
from finetune_operator.evaluator.questions import read_questions
from finetune_operator.logs import configure_logging
from finetune_operator.store.container import read_config

REMEDIES = Remedies(
    refused="change spec.evaluation or spec.serving so that the engine can do this",
    unavailable="see why the engine does not answer: the ModelVersion's condition Loaded and the engine's log",
)


def main(
    config_file: Path,
    termination_log: Path = Path(TERMINATION_MESSAGE_FILE),
    environment: Mapping[str, str] | None = None,
    patience: Patience | None = None,
) -> int:
    """Measure once; nothing is kept, so that another attempt begins anew. The return value is the exit code."""
    configure_logging()
    surroundings = os.environ if environment is None else environment

    def work() -> EvaluationReport:
        config = read_config(ServedEvaluationConfig, config_file)
        return asyncio.run(evaluate(config, surroundings, patience or Patience()))

    return told(work, termination_log, REMEDIES)


async def evaluate(
    config: ServedEvaluationConfig, environment: Mapping[str, str], patience: Patience
) -> EvaluationReport:
    """Everything that was asked for. Raises `Refused`, `EngineRefused` and `EngineUnavailable`."""
    questions = read_questions(config, environment)
    at_once = max(config.concurrency, config.saturation.max_concurrency if config.saturation else 0)
    # One more, by which the engine's memory is asked: no answer waits for it, nor it for an answer.
    connector = aiohttp.TCPConnector(limit=at_once + 1, keepalive_timeout=KEEP_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector) as session:
        key = environment.get(ENGINE_API_KEY_VARIABLE, "")
        engine = Engine(session, config.engine_url, key, patience)
        base_engine = Engine(session, config.base_engine_url, key, patience) if config.base_engine_url else None
        return await measure(config, engine, questions, base_engine)
