"""What is mounted where a batch inference reads."""

from pathlib import Path

import pytest

from finetune_operator.evaluator import batch_requests
from tests.unit.evaluator.batches import ANSWERS, write_rows


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted at `/datasets`."""
    monkeypatch.setattr(batch_requests, "DATASETS_ROOT", str(tmp_path))
    write_rows(tmp_path, *({"prompt": question} for question in ANSWERS))
