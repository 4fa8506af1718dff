"""What `make test` does about tests that fail: those that watch other programs get a second, visible chance."""

from pathlib import Path

import pytest

from tests import all_tiers
from tests.all_tiers import MOST_AGAIN, Group

OVERTAKEN_ONCE = """
from pathlib import Path

def test_overtaken():
    ran = Path(__file__).with_name("ran")
    again, _ = ran.exists(), ran.touch()
    assert again

def test_other():
    pass
"""
WRONG = """
import pytest

@pytest.mark.parametrize("case", range({cases}))
def test_wrong(case):
    with open(__file__ + ".runs", "a") as runs:
        runs.write("x")
    assert False
"""


@pytest.fixture(autouse=True)
def unsteady(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(all_tiers, "unsteady", named := [])
    return named


def group(directory: Path, source: str, watches: bool = True) -> Group:
    (directory / "test_sample.py").write_text(source)
    return Group("sample", ("test_sample.py",), watches)


def test_what_was_overtaken_passes_the_second_time_and_is_named(tmp_path: Path, unsteady: list[str]) -> None:
    code, output = all_tiers.run(group(tmp_path, OVERTAKEN_ONCE))

    assert code == 0
    assert "1 passed" in output
    assert [name.rpartition("::")[2] for name in unsteady] == ["test_overtaken"]


def test_what_fails_again_has_failed(tmp_path: Path, unsteady: list[str]) -> None:
    code, _ = all_tiers.run(group(tmp_path, WRONG.format(cases=1)))

    assert (code, unsteady, runs(tmp_path)) == (1, [], 2)


def test_many_failures_are_no_accident(tmp_path: Path) -> None:
    code, _ = all_tiers.run(group(tmp_path, WRONG.format(cases=MOST_AGAIN + 1)))

    assert (code, runs(tmp_path)) == (1, MOST_AGAIN + 1)


def test_what_watches_no_other_program_runs_once(tmp_path: Path) -> None:
    code, _ = all_tiers.run(group(tmp_path, OVERTAKEN_ONCE, watches=False))

    assert code == 1


def test_failures_are_named_and_what_they_logged_is_not(tmp_path: Path) -> None:
    logs = """
import logging

def test_wrong():
    logging.getLogger("sample").error("broken")
    assert False
"""
    code, output = all_tiers.run(group(tmp_path, logs, watches=False))

    assert "ERROR " in output
    assert [name.split(" - ")[0] for name in all_tiers.named_failures(Group("sample", ()), code, output)] == [
        "sample: FAILED test_sample.py::test_wrong"
    ]
    assert all_tiers.named_failures(Group("sample", ()), 0, output) == []


def test_a_group_that_could_not_run_is_named_by_its_exit_code(tmp_path: Path) -> None:
    code, output = all_tiers.run(Group("sample", ("no_such_file.py",)))

    assert all_tiers.named_failures(Group("sample", ()), code, output) == ["sample: exit code 4"]


def runs(directory: Path) -> int:
    return len((directory / "test_sample.py.runs").read_text())
