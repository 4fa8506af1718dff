"""The evaluator's process: a config in, a report in the termination message, an exit code that Kubernetes acts upon."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.failures import EXIT_CODES, TRY_AGAIN_EXIT_CODE, Failure, FailureReason, Refused
from finetune_operator.contract.places import ENGINE_API_KEY_VARIABLE, TERMINATION_MESSAGE_FILE
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
from finetune_operator.evaluator.engine import Engine, EngineRefused, EngineUnavailable, Patience
from finetune_operator.evaluator.measure import measure
from finetune_operator.evaluator.questions import read_questions
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store.container import read_config

KEEP_ALIVE_SECONDS = 2.0
"""vLLM closes a connection that has been idle for five; one that it is just closing fails the next request."""
MESSAGE_MAX_CHARACTERS = 600
"""With its remedy it fits into a termination message, whatever the alphabet."""

logger = get_logger(__name__)


def main(
    config_file: Path,
    termination_log: Path = Path(TERMINATION_MESSAGE_FILE),
    environment: Mapping[str, str] | None = None,
    patience: Patience | None = None,
) -> int:
    """Measure once; nothing is kept, so that another attempt begins anew. The return value is the exit code."""
    configure_logging()
    environment = os.environ if environment is None else environment
    try:
        config = read_config(ServedEvaluationConfig, config_file)
        report = asyncio.run(evaluate(config, environment, patience or Patience()))
    except Refused as refused:
        return _give_up(refused.failure, termination_log)
    except EngineRefused as error:
        remedy = "change spec.evaluation or spec.serving so that the engine can do this"
        return _give_up(
            Failure(reason=FailureReason.ENGINE_REFUSED, message=str(error), remedy=remedy), termination_log
        )
    except EngineUnavailable as error:
        remedy = "see why the engine does not answer: the ModelVersion's condition Loaded and the engine's log"
        return _give_up(
            Failure(reason=FailureReason.ENGINE_UNAVAILABLE, message=str(error), remedy=remedy), termination_log
        )
    logger.info("evaluated", **report.model_dump(mode="json"))
    termination_log.write_text(report.model_dump_json(by_alias=True, exclude_none=True))
    return 0


async def evaluate(
    config: ServedEvaluationConfig, environment: Mapping[str, str], patience: Patience
) -> EvaluationReport:
    """Everything that was asked for. Raises `Refused`, `EngineRefused` and `EngineUnavailable`."""
    questions = read_questions(config, environment)
    connector = aiohttp.TCPConnector(limit=config.concurrency, keepalive_timeout=KEEP_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector) as session:
        engine = Engine(session, config.engine_url, environment.get(ENGINE_API_KEY_VARIABLE, ""), patience)
        return await measure(config, engine, questions)


def _give_up(failure: Failure, termination_log: Path) -> int:
    logger.error("not evaluated", reason=failure.reason, message=failure.message, remedy=failure.remedy)
    short = failure.model_copy(update={"message": failure.message[:MESSAGE_MAX_CHARACTERS]})
    termination_log.write_text(short.model_dump_json(by_alias=True))
    return EXIT_CODES.get(failure.reason, TRY_AGAIN_EXIT_CODE)
