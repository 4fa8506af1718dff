"""The command line: what is refused is refused with a remedy, and nothing is left behind."""

import fcntl
from pathlib import Path

import pytest

from local_cluster.__main__ import main

VERBS = [
    ["kubeconfig"],
    ["audit-log"],
    ["status"],
    ["down"],
    ["base-image"],
    ["image", "--tag", "localhost/x:1", "--file", "Dockerfile", "--context", "."],
]


@pytest.mark.parametrize("arguments", VERBS, ids=[verb[0] for verb in VERBS])
def test_a_cluster_that_was_never_up_is_refused(
    cache: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == 1
    assert "run `python3 -m local_cluster up --name default` first" in capsys.readouterr().err
    assert not (cache / "clusters" / "default").exists()


@pytest.mark.parametrize("name", ["../escape", "Upper", "", "a" * 41])
def test_a_bad_name_is_refused(cache: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["up", "--name", name]) == 1
    assert "lower-case letters, digits and dashes" in capsys.readouterr().err


def test_a_full_cluster_is_not_a_control_plane_only_one(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = cache / "clusters" / "one"
    directory.mkdir(parents=True)
    (directory / "cluster.json").write_text('{"control_plane_only": false, "port": 26443}')
    assert main(["up", "--name", "one", "--control-plane-only"]) == 1
    assert "choose another --name" in capsys.readouterr().err


def test_down_is_refused_while_an_image_is_built(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = cache / "clusters" / "one"
    directory.mkdir(parents=True)
    (directory / "cluster.json").write_text('{"control_plane_only": false, "port": 26443}')
    with (directory / ".build-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["down", "--name", "one", "--purge"]) == 1
    assert "an image build is running" in capsys.readouterr().err
    assert (directory / "cluster.json").exists()
