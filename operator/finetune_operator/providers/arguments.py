"""Command line of `finetune-operator remote`; apart from what it does, which other processes must not import."""

import argparse
from decimal import Decimal
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `finetune-operator remote`."""
    parser.add_argument("--base-url", default="https://api.openai.com/v1", help="the API, up to and with its version")
    commands = parser.add_subparsers(dest="remote_command", required=True)
    commands.add_parser("jobs", help="list the jobs at the provider, one JSON object a line")
    commands.add_parser(
        "strays", help="list the unfinished jobs of FineTuneJobs that the cluster (KUBECONFIG) no longer wants"
    )
    for name, what, argument in (
        ("status", "show one job", "job"),
        ("cancel", "cancel one job", "job"),
        ("delete-model", "delete a fine-tuned model", "model"),
    ):
        commands.add_parser(name, help=what).add_argument(argument)
    estimate = commands.add_parser("estimate", help="tokens and cost of training on a JSONL file; asks nobody")
    estimate.add_argument("rows", type=Path)
    estimate.add_argument("--epochs", type=float, default=3)
    estimate.add_argument(
        "--price-per-million-tokens", type=Decimal, help="the provider's price for training this model"
    )
