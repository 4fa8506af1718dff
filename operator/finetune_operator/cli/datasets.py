"""`export` by the api, and `prepare-dataset` on this machine: the same rows give the same digest."""

import argparse
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.cli.api_access import ApiClient, api_at, segment
from finetune_operator.cli.failures import Failed, usage
from finetune_operator.cli.options import Api, Cluster, Format
from finetune_operator.cli.printing import note, output, print_data

DATASETS_PATH = "/v1/fine-tuning/datasets"
PAGE_LIMIT = "200"
NOT_COUNTED = ("format", "test_fraction", "min_examples", "min_rating_difference", "min_confidence_diff")
EXTRA = "pip install 'finetune-operator[datasets,operator]'"

Answer = dict[str, Any]


async def export(
    cluster: Cluster, api: Api, request: dict[str, Any], directory: Path | None, form: Format, *, count_only: bool
) -> None:
    """Have the api make a dataset of its ratings, or count what it would read. Raises `Failed`."""
    body = {name: value for name, value in request.items() if value is not None}
    async with api_at(cluster, api) as reached:
        if count_only:
            unfit = [name for name in NOT_COUNTED if body.pop(name, None) is not None]
            if unfit:
                note(f"{', '.join(unfit)}: not asked of a count")
            answer = await reached.client.ask("POST", f"{DATASETS_PATH}/statistics", body)
        else:
            answer = await reached.client.ask("POST", f"{DATASETS_PATH}/export", body)
            if directory is not None:
                await _download(reached.client, answer, directory)
    if form is not Format.TABLE:
        print_data(answer, form)
    elif count_only:
        _tell_counts(answer)
    else:
        _tell_dataset(answer, directory)


async def list_datasets(cluster: Cluster, api: Api, filters: Mapping[str, str | None], form: Format) -> None:
    """Those that the api keeps, of all pages, the newest first. Raises `Failed`."""
    from finetune_operator.cli.printing import Column, hint, table

    said = {name: value for name, value in filters.items() if value is not None} | {"limit": PAGE_LIMIT}
    async with api_at(cluster, api) as reached:
        answer = page = await reached.client.ask("GET", DATASETS_PATH, params=said)
        # An older api tells of no next page.
        while after := page.get("next"):
            page = await reached.client.ask("GET", DATASETS_PATH, params=said | {"after": after})
            answer = page | {"datasets": [*answer["datasets"], *page["datasets"]]}
    if form is not Format.TABLE:
        print_data(answer, form)
        return
    rows = [
        [
            entry["id"],
            entry["format"],
            str(entry["rows"]),
            str(entry["test_rows"]),
            entry["created_at"][:16],
            entry["created_by"],
        ]
        for entry in answer["datasets"]
    ]
    columns = [
        Column("ID"), Column("FORMAT", 1), Column("ROWS", 1, right=True), Column("TEST", 3, right=True),
        Column("CREATED", 2), Column("BY", 4),
    ]  # fmt: skip
    if rows:
        output().print(table(columns, rows, output().width))
    else:
        hint("No dataset was exported so" if len(said) > 1 else "No dataset was exported yet: ftctl export")


async def _download(client: ApiClient, answer: Answer, directory: Path) -> None:
    """Each file under another name until it is whole and is what the api says it is."""
    os.makedirs(directory, exist_ok=True)
    for name, file in ((os.path.basename(file["name"]), file) for file in answer["files"]):
        target, partial = directory / name, directory / f".{name}.partial"
        if target.exists():
            raise usage(f"{target} is there already: name another directory, or remove it")
        digest = hashlib.sha256()
        path = f"{DATASETS_PATH}/{segment(answer['id'])}/files/{segment(name)}"
        try:
            with partial.open("wb") as out:
                async for chunk in client.download(path):
                    digest.update(chunk)
                    out.write(chunk)
            if digest.hexdigest() != file["sha256"].removeprefix("sha256:"):
                raise Failed(f"{name} came broken: its SHA-256 is not {file['sha256']}; try again")
            partial.rename(target)
        except OSError as error:
            raise usage(f"{target}: {error.strerror}") from None
        finally:
            partial.unlink(missing_ok=True)


def _tell_dataset(answer: Answer, directory: Path | None) -> None:
    console = output()
    made = "made" if answer["created"] else "there already"
    console.print(f"dataset {answer['id']} {made}", highlight=False, soft_wrap=True)
    facts = [
        ("format", answer["format"]),
        ("rows", f"{answer['rows']} to train, {answer['test_rows']} held out"),
        ("left out", ", ".join(f"{count} {reason}" for reason, count in answer["dropped"].items())),
        ("path", answer["dataset_path"]),
        ("files", str(directory) if directory else ""),
    ]
    for label, value in facts:
        if value:
            console.print(f"  {label:<10} {value}", highlight=False, markup=False, soft_wrap=True)
    for warning in answer["warnings"]:
        note(warning)


def _tell_counts(answer: Answer) -> None:
    console = output()
    console.print(f"{answer['rows']} ratings", highlight=False)
    # An api of an earlier release tells neither.
    for left in answer.get("by_filter", ()):
        told = f"  {left['rows']:>9} left by {left['filter']}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    if answer.get("emptied_by"):
        note(f"{answer['emptied_by']} leaves none: loosen it")
    for label, member in (("by rating", "by_rating"), ("by domain", "by_domain"), ("by task", "by_task_type")):
        counts = ", ".join(f"{name}: {count}" for name, count in answer[member].items())
        if counts:
            console.print(f"  {label:<10} {counts}", highlight=False, markup=False, soft_wrap=True)


def prepare_dataset(arguments: Sequence[str]) -> int:
    """`finetune-operator dataset export` under the name of the pipeline's command line. Raises `Failed`."""
    try:
        from finetune_operator.store.datasets.arguments import add_export_arguments
        from finetune_operator.store.datasets.command import main
    except ImportError as error:
        raise usage(f"{error.name} is missing, which reads and writes datasets here: {EXTRA}") from None
    parser = argparse.ArgumentParser(
        prog="ftctl prepare-dataset",
        description="Make train.jsonl and test.jsonl on this machine, from a database of ratings or a file.",
        allow_abbrev=False,
    )
    parser.set_defaults(dataset_command="export")
    add_export_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        return main(options, os.environ)
    except ImportError as error:
        raise usage(f"{error.name} is missing, which reads and writes datasets here: {EXTRA}") from None
