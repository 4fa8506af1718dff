"""The command that lists a job's directory."""

import json
from pathlib import Path

import pytest

from finetune_operator.__main__ import main


def test_files_are_listed_with_type_and_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("adapter/adapter_config.json", 3), ("train.log", 5), ("lock", 1), (".merged/config.json", 1)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "Modelfile").symlink_to("/etc/hostname")

    assert main(["artifacts", str(tmp_path)]) == 0

    assert json.loads(capsys.readouterr().out) == [
        {"name": "adapter_config.json", "type": "Adapter", "sizeBytes": 3, "path": "adapter/adapter_config.json"},
        {"name": "train.log", "type": "Log", "sizeBytes": 5, "path": "train.log"},
    ]


def test_a_directory_that_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["artifacts", str(tmp_path / "none")]) == 1

    assert "is no directory: name one like /artifacts/" in capsys.readouterr().err
