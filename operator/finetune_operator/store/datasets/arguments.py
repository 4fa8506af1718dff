"""The arguments of `finetune-operator dataset`; apart from what they do, so that no other process imports that."""

import argparse
from pathlib import Path
from typing import get_args

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core.dataset_records import READABLE_FORMATS, Format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dataset` and of its three commands."""
    commands = parser.add_subparsers(dest="dataset_command", required=True)
    commands.add_parser("formats", help="list the formats, with what a record of each looks like")
    add_export_arguments(
        commands.add_parser("export", help="write train.jsonl and test.jsonl into a directory", allow_abbrev=False)
    )
    stats = commands.add_parser("stats", help="count ratings by domain, task type and rating", allow_abbrev=False)
    _add_ratings_arguments(stats)


def add_export_arguments(export: argparse.ArgumentParser) -> None:
    """The arguments of `dataset export`."""
    export.add_argument("directory", type=Path, help="made where absent; must hold no dataset yet")
    export.add_argument("--format", choices=sorted(get_args(Format)), default="ChatML", help="what to write")
    source = export.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, help="read this JSONL or Parquet file instead of ratings")
    source.add_argument("--object", metavar="s3://BUCKET/KEY", help="read this object instead of ratings")
    export.add_argument("--endpoint", help="address of the S3-compatible store; AWS where absent")
    export.add_argument("--input-format", choices=READABLE_FORMATS, default="ChatML", help="what the file holds")
    defaults = DatasetConfig(source=RatingsSource())
    export.add_argument("--test-fraction", type=float, default=defaults.test_fraction)
    export.add_argument("--min-examples", type=int, default=defaults.min_examples)
    export.add_argument("--min-prompt-characters", type=int, default=defaults.min_prompt_characters)
    export.add_argument("--min-response-characters", type=int, default=defaults.min_response_characters)
    export.add_argument("--max-characters", type=int, default=defaults.max_characters)
    difference = export.add_mutually_exclusive_group()
    difference.add_argument("--min-rating-difference", type=int, help="points between the answers of a pair; else 1")
    difference.add_argument(
        "--min-confidence-diff", type=_share, help="the same as a share of the scale from 1 to 5: 0.5 are two points"
    )
    export.add_argument("--max-bytes", type=int, default=defaults.max_bytes)
    export.add_argument("--seed", type=int, default=defaults.seed)
    _add_ratings_arguments(export)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text}: write a number from 0 to 1")
    return share


def _add_ratings_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--url-file", type=Path, help=f"file with the database's URL; else it is in {DATABASE_URL_VARIABLE}"
    )
    command.add_argument("--philosopher")
    command.add_argument("--domain")
    command.add_argument("--task-type")
    command.add_argument("--min-rating", type=int, default=RatingsSource().min_rating)
    command.add_argument("--min-confidence", type=float)
    command.add_argument("--all", action="store_true", help="not only gold stars")
    command.add_argument("--limit", type=int, help="at most this many rows, the newest first")
