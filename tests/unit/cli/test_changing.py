"""Commands that change or make something: what reaches the API server, and what is refused before it does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.cli.failures import ExitCode
from tests.unit.cli.conftest import Ftctl
from tests.unit.cli.played_cluster import PlayedCluster, job, version

pytestmark = pytest.mark.usefixtures("cluster")

HUB = ("submit", "--base-model", "Qwen/Qwen3-0.6B")
QWEN = {"name": "qwen3-0.6b", "source": {"hub": {"id": "Qwen/Qwen3-0.6B"}}}
GPU = {"limits": {"nvidia.com/gpu": 1}}
VOLUME = {"name": "tiny", "source": {"volume": {"claimName": "models", "path": "a/tiny"}}}


def spec_of(cluster: PlayedCluster, plural: str, name: str) -> Any:
    return cluster.objects[plural, "finetune", name]["spec"]


@pytest.mark.parametrize(
    ("arguments", "name", "before", "after"),
    [
        (("cancel", "--yes"), "plato-2", {}, {"cancel": True}),
        (("suspend",), "plato-2", {}, {"suspend": True}),
        (("resume",), "plato-2", {"suspend": True}, {"suspend": False}),
    ],
)
async def test_a_job_is_changed(
    ftctl: Ftctl, cluster: PlayedCluster, arguments: tuple[str, ...], name: str, before: Any, after: Any
) -> None:
    spec_of(cluster, "finetunejobs", name).update(before)
    for given in (name, f"job/{name}"):
        ended = await ftctl(arguments[0], given, *arguments[1:])
        assert (ended.code, ended.err) == (ExitCode.DONE, "")
    found = spec_of(cluster, "finetunejobs", name)
    assert {key: found[key] for key in after} == after
    assert len(cluster.writes()) == 1, "asking again changes nothing"
    assert cluster.managers == {"system:serviceaccount:finetune:editor (ftctl)"}


async def test_who_may_not_ask_for_their_own_name_changes_without_it(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    cluster.says_who = False
    ended = await ftctl("suspend", "plato-2")
    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    assert cluster.managers == {"ftctl"}


async def test_a_batch_is_suspended_and_resumed(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    for verb, suspended in (("suspend", True), ("resume", False)):
        for _ in range(2):
            ended = await ftctl(verb, "batch/plato-all")
            assert (ended.code, ended.err) == (ExitCode.DONE, "")
        assert spec_of(cluster, "batchinferences", "plato-all")["suspend"] is suspended
    assert len(cluster.writes()) == 2, "asking again changes nothing"


async def test_a_test_is_ended(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    for given in ("test/plato-v1-v2", "abtest/plato-v1-v2"):
        ended = await ftctl("cancel", given, "job/plato-2", "--yes")
        assert (ended.code, ended.err) == (ExitCode.DONE, "")
        assert ended.out == "test/plato-v1-v2 is being cancelled\njob/plato-2 is being cancelled\n"
    assert spec_of(cluster, "abtests", "plato-v1-v2")["cancel"] is True
    assert len(cluster.writes()) == 2, "asking again changes nothing"


async def test_a_test_with_its_verdict_is_not_ended(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    body = cluster.objects["abtests", "finetune", "plato-v1-v2"]
    cluster.put("abtests", body | {"status": body["status"] | {"verdict": "Won"}})
    ended = await ftctl("cancel", "test/plato-v1-v2", "--yes")
    assert ended.code == ExitCode.FAILED
    assert "test plato-v1-v2 has ended (Won) and can't be cancelled" in ended.err


@pytest.mark.parametrize(
    ("arguments", "name"), [(("plato-3",), r"plato-[0-9a-f]{6}"), (("job/plato-3", "--name", "again"), "again")]
)
async def test_a_training_is_repeated(
    ftctl: Ftctl, cluster: PlayedCluster, arguments: tuple[str, ...], name: str
) -> None:
    before = set(cluster.names("finetunejobs"))
    earlier = spec_of(cluster, "finetunejobs", "plato-3")
    earlier |= {"cancel": True, "suspend": True, "training": {"epochs": 7}}
    ended = await ftctl("retry", *arguments)
    assert ended.code == ExitCode.DONE, ended.err
    (made,) = set(cluster.names("finetunejobs")) - before
    assert re.fullmatch(name, made)
    assert ended.out == f"job/{made} made\n"
    kept = {field: value for field, value in earlier.items() if field not in ("cancel", "suspend")}
    assert spec_of(cluster, "finetunejobs", made) == kept


async def test_what_is_no_training_is_not_repeated(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    for given, code, told in (
        ("version/plato-v2", ExitCode.USAGE, "name one of finetunejobs"),
        ("plato-9", ExitCode.REFUSED, "there is no job plato-9"),
    ):
        ended = await ftctl("retry", given)
        assert ended.code == code
        assert told in ended.err
    assert cluster.writes() == []


async def test_what_can_not_be_cancelled_is_said(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl("cancel", "version/plato-v2", "--yes")
    assert ended.code == ExitCode.USAGE
    assert "version/plato-v2 can't be cancelled: name jobs, or tests and batches as test/NAME" in ended.err


async def test_a_batch_is_ended(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    for _ in range(2):
        ended = await ftctl("cancel", "batch/plato-all", "--yes")
        assert (ended.code, ended.out) == (ExitCode.DONE, "batch/plato-all is being cancelled\n"), ended.err
    assert spec_of(cluster, "batchinferences", "plato-all")["cancel"] is True
    assert len(cluster.writes()) == 1, "asking again changes nothing"
    assert "batch plato-all is being cancelled" in (await ftctl("resume", "batch/plato-all")).err


async def test_several_are_cancelled_or_none(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl("cancel", "--yes", "plato-2", "plato-1")
    assert ended.code == ExitCode.FAILED
    assert "job plato-1 has ended (Succeeded) and can't be cancelled" in ended.err
    assert cluster.writes() == []


@pytest.mark.parametrize(
    "arguments", [("cancel", "plato-2"), ("promote", "plato-v2"), ("rollback", "plato", "--to", "plato-v2")]
)
async def test_what_is_not_undone_easily_is_asked(
    ftctl: Ftctl, cluster: PlayedCluster, arguments: tuple[str, ...]
) -> None:
    ended = await ftctl(*arguments)
    assert ended.code == ExitCode.USAGE
    assert "Nobody can be asked here: pass --yes" in ended.err
    assert cluster.writes() == []


async def test_rbac_is_the_one_who_refuses(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    for arguments in (("cancel", "--yes", "plato-2"), (*HUB, "--name"), ("promote", "--yes", "plato-v2")):
        ended = await ftctl(*(HUB if "submit" in arguments else arguments), user="reader")
        assert ended.code == ExitCode.REFUSED, arguments
        assert "Ask an administrator" in ended.err
    assert len(cluster.names("finetunejobs")) == 3


async def test_serve_loads_it_and_changes_nothing_for_others(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    before = cluster.objects["modelversions", "finetune", "plato-v2"]["spec"]
    ended = await ftctl("serve", "plato-v2", "--notes", "to be tried", "--max-model-len", "512")
    assert ended.code == ExitCode.DONE
    assert ended.lines == ["version/plato-v2 is being served"]
    spec = cluster.objects["modelversions", "finetune", "plato-v2"]["spec"]
    serving = (before.get("serving") or {}) | {"maxModelLen": 512}
    assert spec == before | {"serving": serving, "notes": "to be tried"}


async def test_a_promotion_pins_first_and_unpins_the_others(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    cluster.put("modelversions", version("plato-v1", "Deployed", spec={"state": "Deployed"}))
    ended = await ftctl("promote", "plato-v2", "--yes", "--notes", "better", "--gpu-memory-utilization", "0.80")
    assert (ended.code, ended.out) == (ExitCode.DONE, "version/plato-v2 answers plato once it is loaded\n")
    pinned = spec_of(cluster, "modelversions", "plato-v2")
    assert (pinned["state"], pinned["notes"]) == ("Deployed", "better")
    assert pinned["serving"]["gpuMemoryUtilization"] == "0.8"
    assert "state" not in spec_of(cluster, "modelversions", "plato-v1")
    assert [path.rsplit("/", 1)[1] for _, _, path in cluster.writes()] == ["plato-v2", "plato-v1"]


def two_versions(cluster: PlayedCluster) -> None:
    history = [{"time": "2026-11-22T12:10:00Z", "state": "Deployed", "why": "won", "previous": "plato-v1"}]
    status = {"promotedAt": "2026-11-22T12:10:00.000000Z", "history": history}
    cluster.put("modelversions", version("plato-v2", "Deployed", status=status))


@pytest.mark.parametrize("what", ["plato", "plato-v2", "version/plato-v2"])
async def test_a_rollback_is_to_the_version_before(ftctl: Ftctl, cluster: PlayedCluster, what: str) -> None:
    two_versions(cluster)
    ended = await ftctl("rollback-model", what, "--yes")
    assert (ended.code, ended.out) == (ExitCode.DONE, "version/plato-v1 answers plato once it is loaded\n")
    assert spec_of(cluster, "modelversions", "plato-v1")["state"] == "Deployed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("rollback", "plato-v1", "--yes"), ExitCode.FAILED, "plato-v1 is not the live version of plato (plato-v2 is)"),
        (("rollback", "plato", "--to", "plato-v9", "--yes"), ExitCode.REFUSED, "plato has no version plato-v9"),
        (("rollback", "kant", "--yes"), ExitCode.REFUSED, "there is no model or version kant"),
        (("promote", "kant-v1", "--yes"), ExitCode.REFUSED, "there is no version kant-v1"),
        (("promote", "plato-v1", "--max-model-len", "x", "--yes"), ExitCode.USAGE, "--max-model-len"),
        (("promote", "plato-v1", "--gpu-memory-utilization", "x", "--yes"), ExitCode.USAGE, "'x' is no number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_version_that_can_not_be_taken(
    ftctl: Ftctl, cluster: PlayedCluster, arguments: tuple[str, ...], code: ExitCode, words: str
) -> None:
    two_versions(cluster)
    ended = await ftctl(*arguments)
    assert ended.code == code
    assert words in ended.err
    assert cluster.writes() == []


@pytest.mark.parametrize(
    ("flags", "spec"),
    [
        ((), {"model": "qwen3-0-6b", "baseModel": QWEN, "resources": GPU}),
        (
            ("--model", "plato", "--quantization", "none", "--epochs", "1", "--learning-rate", "2e-4", "--lora-r", "8"),
            {
                "model": "plato",
                "baseModel": QWEN,
                "training": {"quantization": "none", "epochs": 1, "learningRate": "2e-4"},
                "lora": {"r": 8},
            },
        ),
        (
            ("--domain", "ethics", "--philosopher", "plato", "--min-rating", "5", "--gpus", "2", "--serve"),
            {
                "model": "qwen3-0-6b",
                "baseModel": QWEN,
                "dataset": {"ratings": {"domain": "ethics", "philosopher": "plato", "minRating": 5}},
                "resources": {"limits": {"nvidia.com/gpu": 2}},
                "serving": {},
            },
        ),
        (
            ("--gpu-type", "NVIDIA-L4", "--cpus", "4"),
            {
                "model": "qwen3-0-6b",
                "baseModel": QWEN,
                "scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}},
                "resources": GPU | {"requests": {"cpu": "4"}},
            },
        ),
        (
            ("--dataset", "volume://sets/a.jsonl", "--format", "Alpaca", "--method", "DPO", "--suspended"),
            {
                "model": "qwen3-0-6b",
                "baseModel": QWEN,
                "method": "DPO",
                "dataset": {"format": "Alpaca", "volume": {"claimName": "sets", "path": "a.jsonl"}},
                "resources": GPU,
                "suspend": True,
            },
        ),
        (
            ("--dataset", "s3://bucket/a.jsonl", "--method", "DPO", "--min-confidence-diff", "0.5"),
            {
                "model": "qwen3-0-6b",
                "baseModel": QWEN,
                "method": "DPO",
                "dataset": {"s3": {"url": "s3://bucket/a.jsonl"}, "minConfidenceDiff": "0.5"},
                "resources": GPU,
            },
        ),
        (
            ("--dataset", "s3://bucket/a.jsonl", "--set", "training.packing=true", "--set", "spec.outputs=[GgufQ8]"),
            {
                "model": "qwen3-0-6b",
                "baseModel": QWEN,
                "dataset": {"s3": {"url": "s3://bucket/a.jsonl"}},
                "resources": GPU,
                "training": {"packing": True},
                "outputs": ["GgufQ8"],
            },
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_flags_are_a_manifest(ftctl: Ftctl, cluster: PlayedCluster, flags: tuple[str, ...], spec: Any) -> None:
    ended = await ftctl("submit", "mine", "--base-model", "Qwen/Qwen3-0.6B", *flags)
    assert (ended.code, ended.out, ended.err) == (ExitCode.DONE, "job/mine made\n", "")
    assert spec_of(cluster, "finetunejobs", "mine") == spec


@pytest.mark.parametrize("dry_run", ["client", "server"])
async def test_a_dry_run_makes_nothing(ftctl: Ftctl, cluster: PlayedCluster, dry_run: str) -> None:
    ended = await ftctl(*HUB, "mine", "--dry-run", dry_run, "-o", "json")
    assert json.loads(ended.out)["spec"]["baseModel"] == QWEN
    assert "mine" not in cluster.names("finetunejobs")
    assert bool(cluster.requests) == (dry_run == "server")


async def test_what_was_made_is_printed_for_scripts(ftctl: Ftctl) -> None:
    assert (await ftctl(*HUB, "one", "-o", "name")).out == "job/one\n"
    assert yaml.safe_load((await ftctl(*HUB, "two", "-o", "yaml")).out)["metadata"]["uid"]
    made_up = (await ftctl(*HUB, "-o", "name")).out
    assert made_up.startswith("job/qwen3-0-6b-")
    assert len(made_up) == len("job/qwen3-0-6b-123456\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("submit",), ExitCode.USAGE, "what is to be trained? Pass --base-model"),
        (("submit", "--base-model", "Qwen"), ExitCode.USAGE, "write <owner>/<name>[@<revision>]"),
        (("submit", "--base-model", "volume://models"), ExitCode.USAGE, "write volume://<claim>/<path>"),
        ((*HUB, "--dataset", "/data/x"), ExitCode.USAGE, "write volume://<claim>/<path>, s3://<bucket>/<key>, or <id>"),
        (
            (*HUB, "--dataset", "s3://bucket/x", "--domain", "a"),
            ExitCode.USAGE,
            "--domain choose ratings, which --dataset",
        ),
        ((*HUB, "--gpus", "0"), ExitCode.USAGE, "need a GPU: add --quantization none"),
        (
            (*HUB, "--quantization", "none", "--gpu-type", "NVIDIA-L4"),
            ExitCode.USAGE,
            "--gpu-type is of a GPU, and none is asked for: add --gpus 1",
        ),
        ((*HUB, "--epochs", "0"), ExitCode.USAGE, "spec.training.epochs: 0 is too small: at least 1"),
        ((*HUB, "--learning-rate", "fast"), ExitCode.USAGE, "spec.training.learningRate"),
        ((*HUB, "--method", "sft"), ExitCode.USAGE, '"sft" is none of SFT, DPO'),
        ((*HUB, "--set", "training.packing"), ExitCode.USAGE, "write PATH=VALUE"),
        ((*HUB, "--set", "training.paking=true"), ExitCode.USAGE, "did you mean packing?"),
        ((*HUB, "--set", "model.x=1"), ExitCode.USAGE, "model is no mapping"),
        ((*HUB, "UPPER"), ExitCode.USAGE, "'UPPER' is no name"),
        ((*HUB, "plato-1"), ExitCode.FAILED, "already exists"),
        ((*HUB, "-f", "x.yaml"), ExitCode.USAGE, "--filename says it all"),
        (("submit", "-f", "/nowhere.yaml"), ExitCode.USAGE, "/nowhere.yaml: No such file"),
        (("submit", "--dry-run", "maybe"), ExitCode.USAGE, "maybe"),
        (("register-model", "plato", "--base-model", "volume://m/a", "--uri", "ftp://x"), ExitCode.USAGE, "artifact"),
        (("setup-ab-test", "plato"), ExitCode.USAGE, "'plato' is no version"),
        (("setup-ab-test", "plato-v1", "--baseline", "plato-v1"), ExitCode.USAGE, "must be different versions"),
        (("setup-ab-test", "plato-v1", "--weights", "60,40"), ExitCode.USAGE, "write accuracy,latency,cost"),
        (("setup-ab-test", "plato-v1", "--weights", "60,40,20"), ExitCode.USAGE, "sum to 120: make them sum to 100"),
        (("setup-ab-test", "plato-v1", "--prompts-file", "/nowhere"), ExitCode.USAGE, "/nowhere"),
        (("create-ollama-script", "plato-v1"), ExitCode.USAGE, "pass --architecture"),
        (
            ("create-ollama-script", "plato-v1", "--architecture", "Qwen3ForCausalLM"),
            ExitCode.FAILED,
            "takes no adapter",
        ),
        (("nonsense",), ExitCode.USAGE, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_mistake_reaches_no_cluster(
    ftctl: Ftctl, cluster: PlayedCluster, arguments: tuple[str, ...], code: ExitCode, words: str
) -> None:
    before = dict(cluster.objects)
    ended = await ftctl(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in " ".join(ended.err.split())
    assert cluster.objects == before


async def test_files_are_taken_whole_or_not_at_all(ftctl: Ftctl, cluster: PlayedCluster, tmp_path: Path) -> None:
    good, bad = job("fresh-1", "x"), job("fresh-2", "x")
    for body in (good, bad):
        del body["status"], body["metadata"]["namespace"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "openai"}}
    file = tmp_path / "jobs.yaml"

    bad["spec"]["lora"] = {"r": 0}
    file.write_text(yaml.safe_dump_all([secret, good, bad]))
    ended = await ftctl("submit", "-f", str(file))
    assert ended.code == ExitCode.USAGE
    assert "spec.lora.r: 0 is too small: at least 1" in ended.err
    assert cluster.writes() == []

    del bad["spec"]["lora"]
    file.write_text(yaml.safe_dump_all([secret, good, bad]))
    ended = await ftctl("submit", "-f", str(file))
    assert ended.out == "job/fresh-1 made\njob/fresh-2 made\n"
    assert "1 of other kinds are left to `kubectl apply -f`" in ended.err

    ended = await ftctl("submit", "-f", "-", stdin=yaml.safe_dump(good | {"metadata": {"name": "fresh-3"}}))
    assert ended.out == "job/fresh-3 made\n"


async def test_a_file_of_another_namespace_is_not_put_here(ftctl: Ftctl, tmp_path: Path) -> None:
    body = job("fresh-1", "x")
    del body["status"]
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(body))
    ended = await ftctl("submit", "-f", str(file), "-n", "other")
    assert ended.code == ExitCode.USAGE
    assert "says namespace finetune, and -n other" in ended.err


async def test_a_providers_training(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    arguments = ("--base-model", "gpt-4.1-mini", "--secret", "openai", "--suffix", "ada", "--epochs", "2")
    ended = await ftctl(
        "create-openai-job", "mine", *arguments, "--learning-rate-multiplier", "0.5", "--model", "plato"
    )
    assert (ended.code, ended.out) == (ExitCode.DONE, "job/mine made\n")
    assert spec_of(cluster, "finetunejobs", "mine") == {
        "model": "plato",
        "baseModel": {"name": "gpt-4.1-mini", "source": {"openai": {"model": "gpt-4.1-mini"}}},
        "backend": "OpenAI",
        "training": {"epochs": 2},
        "openai": {
            "secretRef": {"name": "openai", "key": "api-key"},
            "suffix": "ada",
            "learningRateMultiplier": "0.5",
        },
    }


async def test_a_test(ftctl: Ftctl, cluster: PlayedCluster, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is virtue?\n\nWhat is time?\n")
    ended = await ftctl(
        "setup-ab-test", "plato-v2", "--name", "duel", "--baseline", "plato-v1", "--prompt", "Who are you?",
        "--prompts-file", str(prompts), "--candidate-percent", "20", "--max-votes", "50", "--on-win", "Notify",
        "--min-effect", "0.1", "--weights", "70,20,10",
    )  # fmt: skip
    assert (ended.code, ended.out) == (ExitCode.DONE, "test/duel made\n")
    assert spec_of(cluster, "abtests", "duel") == {
        "model": "plato",
        "baseline": {"modelVersion": "plato-v1"},
        "candidate": {"modelVersion": "plato-v2"},
        "prompts": ["Who are you?", "What is virtue?", "What is time?"],
        "traffic": {"candidatePercent": 20},
        "decision": {
            "maxVotes": 50,
            "minEffect": "0.1",
            "weights": {"accuracy": 70, "latency": 20, "cost": 10},
        },
        "onWin": "Notify",
    }


async def test_a_test_that_users_decide(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl(
        "setup-ab-test", "plato-v2", "--name", "duel", "--candidate-percent", "20", "--accuracy-from", "References"
    )
    assert ended.code == ExitCode.DONE, ended.err
    assert spec_of(cluster, "abtests", "duel")["decision"] == {"weights": {"accuracyFrom": "References"}}


async def test_an_adapter_gets_the_next_number(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    digest = "sha256:" + "a" * 64
    ended = await ftctl(
        "register-model", "plato", "--base-model", "volume://models/a/tiny", "--uri", "volume://artifacts/x/adapter",
        "--digest", digest, "--notes", "of a notebook", "--serve",
    )  # fmt: skip
    assert (ended.code, ended.out) == (ExitCode.DONE, "version/plato-v3 made\n")
    assert spec_of(cluster, "modelversions", "plato-v3") == {
        "model": "plato",
        "version": 3,
        "baseModel": VOLUME,
        "artifact": {"uri": "volume://artifacts/x/adapter", "digest": digest},
        "serving": {},
        "notes": "of a notebook",
    }
