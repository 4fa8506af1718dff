"""The tree of everything, as text that was looked at: tests/golden/ftctl-tree-*.txt."""

from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from finetune_operator.cli.family_tree import TREE_PLURALS, Snapshot, bar, trees
from finetune_operator.cli.printing import ASCII_SIGNS, SIGNS, Signs, age, duration
from tests.golden_files import assert_golden_text
from tests.unit.cli.played_cluster import PlayedCluster, job, populate, version

NOW = datetime(2026, 11, 22, 13, tzinfo=UTC)


def snapshot() -> Snapshot:
    cluster = PlayedCluster()
    populate(cluster)
    objects = cluster.objects.items()
    return Snapshot({plural: tuple(body for key, body in objects if key[0] == plural) for plural in TREE_PLURALS})


def drawn(found: Snapshot, width: int, *, signs: Signs = SIGNS, namespaced: bool = False) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=False, color_system=None)
    for tree in trees(found, NOW, signs=signs, namespaced=namespaced):
        console.print(tree)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize("width", [160, 100, 60])
def test_the_tree_at_a_width(width: int) -> None:
    text = drawn(snapshot(), width)

    assert max(map(len, text.splitlines())) <= width
    assert_golden_text(f"ftctl-tree-{width}.txt", text)


def test_namespaces_are_named_where_there_may_be_several() -> None:
    assert drawn(snapshot(), 100, namespaced=True).splitlines()[0] == "finetune"


def test_signs_of_a_terminal_that_knows_ascii_alone() -> None:
    text = drawn(snapshot(), 100, signs=ASCII_SIGNS)
    assert "* job plato-2" in text
    assert "x job plato-3" in text


def test_a_message_can_not_speak_to_the_terminal() -> None:
    hostile = job("plato-9", "Failed", message="\x1b]0;owned\x07\x1b[2J red \u202etxet")
    hostile["metadata"] |= {"uid": "x", "creationTimestamp": "2026-11-22T12:00:00Z"}

    text = drawn(Snapshot({"finetunejobs": (hostile,)}), 100)

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "owned" in text


def test_of_many_jobs_that_have_ended_the_latest_are_shown() -> None:
    jobs = [job(f"plato-{number:03}", "Failed") for number in range(400)]
    for number, body in enumerate(jobs):
        body["metadata"] |= {
            "uid": str(number),
            "creationTimestamp": f"2026-11-22T{number // 60:02}:{number % 60:02}:00Z",
        }
    jobs[7]["status"]["phase"] = "Training"
    versions = [version("plato-v1", "Deployed"), version("plato-v2", "Archived")]
    for number, body in zip((3, 4), versions, strict=True):
        body["metadata"]["uid"] = f"v{number}"
        body["spec"]["lineage"] = {"fineTuneJob": f"plato-{number:03}", "jobUid": str(number)}

    lines = drawn(Snapshot({"finetunejobs": tuple(jobs), "modelversions": tuple(versions)}), 100).splitlines()

    assert lines[1] == "├── and 393 earlier jobs: ftctl get jobs --model plato"
    shown = [line.split("job ")[1].split()[0] for line in lines if " job " in line]
    assert shown == ["plato-003", "plato-007", *(f"plato-{number}" for number in range(395, 400))]
    assert not any("plato-v2" in line for line in lines), "it went with its job"


def test_a_version_is_not_a_child_of_another_job_of_the_same_name() -> None:
    found = snapshot()
    anew = [body | {"metadata": body["metadata"] | {"uid": "another"}} for body in found.objects["finetunejobs"]]

    lines = drawn(Snapshot({**found.objects, "finetunejobs": tuple(anew)}), 160).splitlines()

    assert next(line for line in lines if "version plato-v1" in line).startswith("├── ")


@pytest.mark.parametrize(
    ("percent", "shown"),
    [
        (0, "────────────────   0%"),
        (48, "━━━━━━━━────────  48%"),
        (100, "━━━━━━━━━━━━━━━━ 100%"),
        (140, "━━━━━━━━━━━━━━━━ 100%"),
    ],
)
def test_a_bar(percent: int, shown: str) -> None:
    assert bar(percent, SIGNS).plain == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (130, "2m10s"),
        (3599, "59m"),
        (4 * 3600 + 60, "4h1m"),
        (9 * 3600 + 60, "9h"),
        (3 * 86400, "3d"),
    ],
)
def test_durations_as_kubectl_has_them(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown


def test_an_age() -> None:
    assert age("2026-11-22T12:00:00Z", NOW) == "60m"
    assert age(None, NOW) == ""
