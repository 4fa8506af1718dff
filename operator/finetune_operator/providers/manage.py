"""What is at the provider, by hand: `finetune-operator remote ...`, with the API key in the environment.

For what outlives its FineTuneJob: a job whose node died with it, a model that nobody asks any more.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from decimal import Decimal

from pydantic import BaseModel

from finetune_operator.contract.failures import Refused
from finetune_operator.contract.places import PROVIDER_KEY_VARIABLE
from finetune_operator.core.remote_training import cost, estimated_tokens
from finetune_operator.kube.errors import KubeError
from finetune_operator.providers.cluster import strays
from finetune_operator.providers.fine_tuning_client import FineTuningClient, Unanswered


class Estimate(BaseModel):
    """What a training is likely to cost, in the currency of the price; null where that is not given."""

    tokens: int
    cost: Decimal | None


def main(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> int:
    """Prints what the provider says, or on standard error what is wrong."""
    if options.remote_command == "estimate":
        characters = sum(len(line) for line in options.rows.open(encoding="utf-8"))
        tokens = estimated_tokens(characters, options.epochs)
        _say(Estimate(tokens=tokens, cost=cost(tokens, options.price_per_million_tokens)))
        return 0
    key = environment.get(PROVIDER_KEY_VARIABLE, "")
    if not key:
        sys.stderr.write(f"finetune-operator: put the provider's API key into {PROVIDER_KEY_VARIABLE}\n")
        return 2
    try:
        asyncio.run(_ask(options, key))
    except Refused as error:
        sys.stderr.write(f"finetune-operator: {error.failure.message}: {error.failure.remedy}\n")
        return 1
    except (Unanswered, KubeError) as error:
        sys.stderr.write(f"finetune-operator: {error}\n")
        return 1
    return 0


async def _ask(options: argparse.Namespace, key: str) -> None:
    async with FineTuningClient.open(options.base_url, key) as client:
        match options.remote_command:
            case "jobs":
                async for job in client.jobs():
                    _say(job)
            case "strays":
                async for stray in strays(client.jobs()):
                    _say(stray)
            case "status":
                _say(await client.job(options.job))
            case "cancel":
                _say(await client.cancel_job(options.job))
            case "delete-model":
                await client.delete_model(options.model)
                sys.stdout.write(f"deleted {options.model}\n")


def _say(answer: BaseModel) -> None:
    sys.stdout.write(answer.model_dump_json(exclude_none=True) + "\n")
