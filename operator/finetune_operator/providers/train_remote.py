"""The container that stands in the trainer's place when a provider trains: `finetune-operator train-remote CONFIG`.

It uploads the prepared dataset, creates one job at the provider, waits for it and says what came out as the trainer
would. It may be started any number of times for one FineTuneJob: it finds its uploads and its job again.

Exit codes: 0 done; 42 (EXIT_CODES of the contract) no second try will help; 143 asked to leave, the training goes on at
the provider unless nobody wants it any more; 75 another attempt is at work; 1 anything else, worth another try.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

import aiohttp

from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason, Refused
from finetune_operator.contract.places import (
    INTERNAL_TOKEN_VARIABLE,
    JOB_VARIABLE,
    PROVIDER_KEY_VARIABLE,
    TRAINER_CONTAINER,
)
from finetune_operator.contract.remote import RemoteConfig
from finetune_operator.contract.training import TrainingConfig, TrainingResult
from finetune_operator.core.endings import LOCKED_EXIT_CODE, TERMINATED_EXIT_CODE
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.providers.files import LockTaken, termination_message
from finetune_operator.providers.fine_tuning_client import FineTuningClient, Unanswered
from finetune_operator.providers.training import RemoteTraining, Surroundings, TryAgain
from finetune_operator.store.container import read_config
from finetune_operator.store.posted_log import posted_log
from finetune_operator.store.reporting import Reporter

logger = get_logger(__name__)


def main(config_file: Path, *, cancel: bool = False) -> int:
    """Train at the provider, or end that. The outcome is the termination message, the return value the exit code."""
    configure_logging()
    return asyncio.run(attempt(config_file, Surroundings(), os.environ, cancel=cancel))


async def attempt(
    config_file: Path, surroundings: Surroundings, environment: Mapping[str, str], *, cancel: bool = False
) -> int:
    """One attempt, and its exit code."""
    try:
        config = read_config(TrainingConfig, config_file)
    except Refused as error:
        return _gave_up(error.failure, surroundings)
    # What calls a training off is another container, in whose log nobody looks for the training's.
    with nullcontext() if cancel else posted_log(config, TRAINER_CONTAINER, environment):
        return await _attempted(config, surroundings, environment, cancel=cancel)


async def _attempted(
    config: TrainingConfig, surroundings: Surroundings, environment: Mapping[str, str], *, cancel: bool
) -> int:
    try:
        remote, key = _provider(config, environment)
        if cancel:
            await _called_off(config, remote, key, surroundings, environment)
            return 0
        result = await _trained(config, remote, key, surroundings, environment)
    except Refused as error:
        return _gave_up(error.failure, surroundings)
    except LockTaken as error:
        logger.warning("another attempt is at work; leaving", error=str(error))
        return LOCKED_EXIT_CODE
    except (Unanswered, TryAgain) as error:
        # Kubernetes keeps the last line of the log where there is no termination message.
        logger.error("another attempt may go better", error=str(error))
        return 1
    if result is None:
        return TERMINATED_EXIT_CODE
    logger.info("done", **result.model_dump(exclude={"dataset", "versions"}, exclude_none=True))
    _tell(result, surroundings)
    return 0


def _gave_up(failure: Failure, surroundings: Surroundings) -> int:
    logger.error("gave up", **failure.model_dump())
    _tell(failure, surroundings)
    return EXIT_CODES[failure.reason]


def _tell(outcome: TrainingResult | Failure, surroundings: Surroundings) -> None:
    surroundings.termination_log.write_bytes(termination_message(outcome))


def _provider(config: TrainingConfig, environment: Mapping[str, str]) -> tuple[RemoteConfig, str]:
    if config.remote is None:
        raise Refused.because(
            FailureReason.INVALID_CONFIG,
            "the container's config names no provider",
            "run the operator and its images from the same release",
        )
    key = environment.get(PROVIDER_KEY_VARIABLE, "").strip()
    if not key or not key.isprintable():
        raise Refused.because(
            FailureReason.PROVIDER_REFUSED,
            "the Secret that spec.openai.secretRef names holds no usable API key",
            "put the API key into that key of the Secret, as one line",
        )
    return config.remote, key


async def _called_off(
    config: TrainingConfig, remote: RemoteConfig, key: str, surroundings: Surroundings, environment: Mapping[str, str]
) -> None:
    attempt = environment.get("POD_NAME") or socket.gethostname()
    async with FineTuningClient.open(remote.base_url, key) as client, aiohttp.ClientSession() as session:
        nobody = Reporter(session, None, None)
        await RemoteTraining(config, remote, client, nobody, surroundings, attempt).call_off()


async def _trained(
    config: TrainingConfig, remote: RemoteConfig, key: str, surroundings: Surroundings, environment: Mapping[str, str]
) -> TrainingResult | None:
    """The result; None if the pod was told to leave before."""
    told_to_leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told_to_leave.set)
    attempt = environment.get("POD_NAME") or socket.gethostname()
    async with FineTuningClient.open(remote.base_url, key) as client, aiohttp.ClientSession() as session:
        reporter = Reporter(session, config.progress_url, environment.get(INTERNAL_TOKEN_VARIABLE))
        training = RemoteTraining(config, remote, client, reporter, surroundings, attempt)
        work = asyncio.create_task(training.run())
        leaving = asyncio.create_task(told_to_leave.wait())
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if work.done():
            return work.result()
        work.cancel()
        with suppress(asyncio.CancelledError, Refused, Unanswered, TryAgain):
            await work
        reason = await surroundings.unwanted(config, environment.get(JOB_VARIABLE, ""))
        if reason is None:
            logger.info("told to leave; the training goes on at the provider")
        else:
            await training.cancel(reason)
        return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
