"""Nothing here touches the host's own clusters: each test has a cache of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache root of this test alone."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("FINETUNE_CACHE", str(directory))
    return directory
