"""Manifests as reviewed text: `tests/golden/*.yaml`, written anew by `UPDATE_GOLDEN=1 pytest tests/unit/manifests`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parent / "golden"


def assert_golden(name: str, manifests: Iterable[Mapping[str, Any]]) -> None:
    """The manifests are those of the file; a rewritten file fails once, so that nobody updates by accident."""
    path = GOLDEN / f"{name}.yaml"
    wanted = list(manifests)
    if os.environ.get("UPDATE_GOLDEN"):
        text = yaml.dump_all(wanted, Dumper=_Dumper, sort_keys=False, width=120)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            pytest.fail(f"{path} was written: review it and run the test again")
    assert path.exists(), f"{path} is missing: run with UPDATE_GOLDEN=1 and review it"
    assert list(yaml.safe_load_all(path.read_text())) == wanted


def assert_golden_text(name: str, wanted: str) -> None:
    """The same for a file that is no manifest."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") and not (path.exists() and path.read_text() == wanted):
        path.write_text(wanted)
        pytest.fail(f"{path} was written: review it and run the test again")
    assert path.exists(), f"{path} is missing: run with UPDATE_GOLDEN=1 and review it"
    assert path.read_text() == wanted


class _Dumper(yaml.SafeDumper):
    """Repeats what is shared, since anchors are hard to review."""

    def ignore_aliases(self, data: object) -> bool:
        return True
