"""`ask` and `answers`: a batch of flags, what its models said, and the script that copies its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from finetune_operator.cli.batch_answers import shown
from finetune_operator.cli.failures import ExitCode
from finetune_operator.cli.kinds import BATCH as BATCH_KIND
from tests.builders import NOON, batch_object
from tests.unit.cli.conftest import Ftctl
from tests.unit.cli.played_cluster import NAMESPACE, PlayedCluster, pod, running
from tests.unit.cli.test_named import run_script

pytestmark = pytest.mark.usefixtures("cluster")

DIGEST = "0" * 32
BATCH = {"name": "batch"}
LITTLE: dict[str, Any] = {"modelVersion": "plato-v2", "dataset": {"ratings": {}}}
SPECS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "as little as possible": ((), {}),
    "beside the base model": (("--compare-with", "base"), {"compareWith": {"base": True}}),
    "beside a version": (("--compare-with", "plato-v1"), {"compareWith": {"modelVersion": "plato-v1"}}),
    "some ratings": (
        ("--domain", "ethics", "--ratings-claim", "ratings"),
        {"dataset": {"ratings": {"domain": "ethics", "claimName": "ratings"}}},
    ),
    "a file": (
        ("--dataset", "volume://data/q.jsonl", "--format", "alpaca"),
        {"dataset": {"volume": {"claimName": "data", "path": "q.jsonl"}, "format": "Alpaca"}},
    ),
    "an exported dataset": (
        ("--dataset", f"chatml-{DIGEST}/train.jsonl"),
        {"dataset": {"stored": {"path": f"chatml-{DIGEST}/train.jsonl"}, "format": "ChatML"}},
    ),
    "an exported dataset of pairs": (
        ("--dataset", f"dpo-{DIGEST}/train.jsonl"),
        {"dataset": {"stored": {"path": f"dpo-{DIGEST}/train.jsonl"}}},
    ),
    "how it is asked": (
        ("--limit", "20", "--max-tokens", "64", "--temperature", "0.7", "--concurrency", "32", "--suspended"),
        {
            "limit": 20,
            "parameters": {"maxTokens": 64, "temperature": "0.7"},
            "maxConcurrentRequests": 32,
            "suspend": True,
        },
    ),
    "any other field": (("--set", "activeDeadlineSeconds=60"), {"activeDeadlineSeconds": 60}),
}


@pytest.mark.parametrize(("flags", "expected"), SPECS.values(), ids=SPECS)
async def test_a_batch_is_made_of_flags(
    ftctl: Ftctl, cluster: PlayedCluster, flags: tuple[str, ...], expected: dict[str, Any]
) -> None:
    ended = await ftctl("ask", "plato-v2", "sums", *flags)
    assert (ended.code, ended.out) == (ExitCode.DONE, "batch/sums made\n"), ended.err
    assert cluster.objects["batchinferences", NAMESPACE, "sums"]["spec"] == LITTLE | expected


async def test_a_vote_makes_the_test_too(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl("ask", "plato-v2", "duel", "--compare-with", "plato-v1", "--vote")
    assert ended.out == "test/duel made\nbatch/duel made\n", ended.err
    assert cluster.objects["batchinferences", NAMESPACE, "duel"]["spec"]["abTest"] == {"name": "duel"}
    test = cluster.objects["abtests", NAMESPACE, "duel"]["spec"]
    assert (test["baseline"], test["candidate"]) == ({"modelVersion": "plato-v1"}, {"modelVersion": "plato-v2"})


async def test_a_dry_run_prints_it(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl("ask", "plato-v2", "sums", "--dry-run", "client", "-o", "yaml")
    assert yaml.safe_load(ended.out)["spec"] == LITTLE
    assert cluster.writes() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ask", "plato"), "'plato' is no version"),
        (("ask", "plato-v2", "--vote"), "add --compare-with base"),
        (("ask", "plato-v2", "--format", "alpaca"), "--format is of the rows of --dataset"),
        (("ask", "plato-v2", "--dataset", "s3://a/b", "--format", "dpo"), "write one of Prompts, ChatML"),
        (("ask", "plato-v2", "--dataset", "s3://abc/b", "--domain", "a"), "--domain choose ratings"),
        (("ask", "plato-v2", "--dataset", "/etc/passwd"), "write volume://<claim>/<path>"),
        (("ask", "plato-v2", "--limit", "0"), "spec.limit: 0 is too small"),
        (("ask", "plato-v2", "--compare-with", "plato-v2"), "compareWith must be another version"),
        (("answers", "job/plato-1"), "is of another kind"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_mistake_reaches_no_cluster(
    ftctl: Ftctl, cluster: PlayedCluster, arguments: tuple[str, ...], words: str
) -> None:
    ended = await ftctl(*arguments)
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert words in " ".join(ended.err.split())
    assert cluster.writes() == []


async def test_the_script_copies_what_is_on_the_volume(ftctl: Ftctl, cluster: PlayedCluster, tmp_path: Path) -> None:
    body = cluster.objects["batchinferences", NAMESPACE, "plato-all"]
    early = await ftctl("answers", "plato-all", "--script", "-")
    assert (early.code, early.out) == (ExitCode.REFUSED, "")
    assert "batch plato-all (Running) has no files yet" in early.err
    directory = "volume://results/finetune/batches/uid"
    cluster.put("batchinferences", body | {"status": body["status"] | {"directory": directory}})
    ended = await ftctl("answers", "batch/plato-all", "--script", "-", "--image", "tar")
    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    assert (await ftctl("answers", "plato-all", "--script", str(tmp_path / "copy.sh"), "--image", "tar")).out == ""
    assert (tmp_path / "copy.sh").read_text() == ended.out

    calls = run_script(tmp_path, ended.out)

    pod = json.loads((tmp_path / "calls.pod").read_text())
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "results", "readOnly": True}
    assert pod["spec"]["containers"][0]["image"] == "tar"
    assert "kubectl --namespace finetune cp files-plato-all:/artifacts/finetune/batches/uid mine" in calls
    assert calls[-1].startswith("kubectl --namespace finetune delete pod files-plato-all")


async def test_the_log_is_that_of_its_pod(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    none = await ftctl("logs", "batch/plato-all")
    assert (none.code, none.out) == (ExitCode.REFUSED, "")
    assert "batch plato-all (Running) has no log yet" in none.err
    body = pod("asking-1", "none", "Running", containerStatuses=[running("batch")])
    labels = {"finetune.dev/batch": "plato-all"}
    cluster.put("pods", body | {"metadata": body["metadata"] | {"labels": labels}, "spec": {"containers": [BATCH]}})
    cluster.container_logs["asking-1", "batch"] = [b"asking 12 rows\n"]
    assert (await ftctl("logs", "batch/plato-all")).out == "asking 12 rows\n"


ROW = {
    "number": 1,
    "custom_id": "row-1",
    "prompt": "What is courage?\x1b[2J",
    "answers": [
        {"served_name": "plato-v2", "answer": "a virtue", "error": None, "shortened": True},
        {"served_name": "tiny", "answer": None, "error": "too long", "shortened": False},
    ],
}


@pytest.mark.parametrize(("width", "side_by_side"), [(60, False), (120, True)])
def test_answers_are_shown_beside_each_other_where_there_is_room(width: int, side_by_side: bool) -> None:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(shown(ROW, width))
    text = captured.get()
    assert any("a virtue [...]" in line and "too long" in line for line in text.splitlines()) is side_by_side
    assert all(word in text for word in ("What is courage?", "plato-v2", "tiny", "too long"))
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("cost", "shown"),
    [({"spent": "2.5", "currency": "USD"}, "2.5 USD"), ({"unknown": "no price"}, "unknown"), (None, "")],
    ids=["known", "unknown", "not yet"],
)
def test_a_row_has_what_the_batch_cost(cost: dict[str, str] | None, shown: str) -> None:
    row = BATCH_KIND.row(batch_object(status={"phase": "Succeeded"} | ({"cost": cost} if cost else {})), NOON)
    assert dict(zip((column.name for column in BATCH_KIND.columns), row, strict=True))["COST"] == shown
