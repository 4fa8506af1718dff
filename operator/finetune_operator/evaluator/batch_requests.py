"""What a batch inference asks: made once from its dataset, so that every attempt asks the same in the same order."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import cast

from finetune_operator.contract.batch_inference import BatchInferenceConfig
from finetune_operator.contract.dataset import ObjectSource, RatingsSource, StoredSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import DATASETS_ROOT
from finetune_operator.core.batch_inference import (
    EXPECTED_PROMPT,
    PROMPTS,
    Prompt,
    Request,
    parse_prompt,
    read_request,
    request_line,
)
from finetune_operator.core.dataset_records import Example
from finetune_operator.store import durable
from finetune_operator.store.datasets.export import Export
from finetune_operator.store.datasets.files import Rows, inside, records, rows

PROMPT_ROWS = Rows(PROMPTS, EXPECTED_PROMPT, parse_prompt)


def write_requests(config: BatchInferenceConfig, file: Path, environment: Mapping[str, str]) -> None:
    """All requests; the file has its name once it is whole. Raises `Refused` for what only the user can change."""
    temporary = file.with_name(f".{file.name}.tmp")
    with tempfile.TemporaryDirectory(prefix="requests-") as work, temporary.open("wb") as out:
        found = 0
        for request in islice(_requests(config, environment, Path(work)), config.limit):
            out.write(request_line(request))
            found += 1
    if not found:
        raise Refused.because(
            FailureReason.DATASET_EMPTY,
            "the dataset has no row that asks anything",
            "name another dataset in a new BatchInference",
        )
    durable.sync(temporary)
    temporary.rename(file)
    durable.sync(file.parent)


def count_requests(file: Path) -> int:
    """How many there are."""
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def read_requests(file: Path) -> Iterator[Request]:
    """Those that `write_requests` has written, in their order."""
    with file.open("rb") as lines:
        for index, line in enumerate(lines):
            yield read_request(line, index)


def _requests(config: BatchInferenceConfig, environment: Mapping[str, str], work: Path) -> Iterator[Request]:
    known: set[str] = set()
    for index, (number, prompt) in enumerate(_prompts(config, environment, work)):
        custom_id = prompt.custom_id or f"row-{number}"
        if custom_id in known:
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"row {number} has the custom_id {custom_id!r}, which another row has, too",
                "give each row a custom_id of its own, or none",
            )
        known.add(custom_id)
        yield Request(index, custom_id, prompt.messages)


def _prompts(config: BatchInferenceConfig, environment: Mapping[str, str], work: Path) -> Iterator[tuple[int, Prompt]]:
    """Each row and its number in its file, from 1; those of a database are numbered as they come."""
    dataset = config.dataset
    source = dataset.source
    if isinstance(source, RatingsSource):
        yield from _rated(config, environment, work)
        return
    if isinstance(source, ObjectSource):
        # Only whoever reads from a store pays for its client.
        from finetune_operator.store.datasets.objects import fetch

        file, name = fetch(source, environment, work, dataset.max_bytes), source.url
    elif isinstance(source, StoredSource):
        from finetune_operator.store.datasets.stored import fetch_stored

        file, name = fetch_stored(source, environment, work, dataset.max_bytes), source.path
    else:
        file, name = inside(Path(DATASETS_ROOT), source.path), source.path
    if config.prompts_alone:
        yield from rows(file, name, PROMPT_ROWS, work)
        return
    for number, record in records(file, name, dataset.format, work):
        yield number, _asked(cast(Example, record))


def _rated(config: BatchInferenceConfig, environment: Mapping[str, str], work: Path) -> Iterator[tuple[int, Prompt]]:
    """Once each, however many of its answers were rated."""
    Export(config.dataset, "ChatML", Path(DATASETS_ROOT), environment, work).write()
    known: set[bytes] = set()
    for _, record in records(work / "train.jsonl", "the ratings", "ChatML", work):
        prompt = _asked(cast(Example, record))
        digest = hashlib.sha256(repr(prompt.messages).encode(errors="backslashreplace")).digest()[:16]
        if digest not in known:
            known.add(digest)
            yield len(known), prompt


def _asked(record: Example) -> Prompt:
    """Without the answer that it ends with."""
    return Prompt(record.messages[:-1])
