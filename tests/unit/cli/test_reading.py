"""`get`, `watch`, `status`, `logs` and `cost`, as a user and a script see them."""

import asyncio
import json
from typing import Any

import pytest
import yaml

from finetune_operator.cli.failures import ExitCode
from finetune_operator.cli.printing import Column, fitting
from tests.unit.cli.conftest import Ftctl
from tests.unit.cli.played_cluster import PlayedCluster, job, pod, running, version
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.mark.parametrize(
    ("arguments", "shown", "absent"),
    [
        (("get",), ["plato  answered by plato-v1", "job plato-2", "engine vllm-a  1/1 pods"], []),
        (("get", "jobs"), ["NAME", "plato-2", "48%", "12m"], ["BASE", "socrates"]),
        (("get", "ftj", "-o", "wide"), ["BASE", "1.42 USD", "CUDA out of memory"], []),
        (("get", "jobs", "--phase", "failed"), ["plato-3"], ["plato-1", "plato-2"]),
        (("get", "versions", "--model", "plato"), ["plato-v1", "plato-v2", "Deployed"], ["socrates"]),
        (("list-models",), ["plato-v1", "socrates-v1"], []),
        (("list-models", "plato", "--state", "Ready"), ["plato-v2"], ["plato-v1 "]),
        (("get", "tests"), ["plato-v1-v2", "78.8%", "Running"], []),
        (("get", "batches"), ["plato-all"], []),
        (("get", "job", "plato-1"), ["plato-1"], ["plato-2"]),
        (("get", "job/plato-1"), ["plato-1"], ["plato-2"]),
        (("get", "-o", "name"), ["job/plato-1", "version/plato-v1", "test/plato-v1-v2", "batch/plato-all"], []),
        (("cost",), ["unknown", "2.00 USD spent on 2 trainings", "1 of 3 unknown, and in no sum"], []),
        (("cost-summary", "--model", "nobody"), [], ["USD"]),
        (("cost", "plato-1"), ["1.42 USD"], ["plato-2"]),
        (("status", "plato-1"), ["job/plato-1 Succeeded", "published as plato-v1", "1.42 USD"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_is_shown(ftctl: Ftctl, arguments: tuple[str, ...], shown: list[str], absent: list[str]) -> None:
    ended = await ftctl(*arguments)

    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    for words in shown:
        assert words in ended.out
    for words in absent:
        assert words not in ended.out
    assert "\x1b" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "user", "code", "words"),
    [
        (("get", "foos"), "editor", ExitCode.USAGE, "'foos' is no kind: write jobs"),
        (("get", "job", "nope"), "editor", ExitCode.REFUSED, "there is no job nope in namespace finetune"),
        (("get", "job", "../secrets"), "editor", ExitCode.USAGE, "is no name of a resource"),
        (("get", "job", "a", "-A"), "editor", ExitCode.USAGE, "leave out -A"),
        (("get", "jobs", "-n", "other"), "editor", ExitCode.REFUSED, "Ask an administrator"),
        (("get", "jobs"), "nobody", ExitCode.REFUSED, "forbidden"),
        (("get",), "stranger", ExitCode.REFUSED, "does not know you: log in again"),
        (("get", "--context", "none"), "editor", ExitCode.USAGE, "no context none (there is: test)"),
        (("get", "--kubeconfig", "/nowhere"), "editor", ExitCode.USAGE, "there is no kubeconfig at /nowhere"),
        (("status", "job/"), "editor", ExitCode.USAGE, "names nothing"),
        (("status", "nope"), "editor", ExitCode.REFUSED, "there is no job nope"),
        (("status", "plato-1", "--timeout", "soon"), "editor", ExitCode.USAGE, "write a duration such as 90s"),
        (
            ("status", "plato-1", "--for", "soon"),
            "editor",
            ExitCode.USAGE,
            "is no state of a job: write one of Queued,",
        ),
        (("status", "plato-1", "--for", "Deployed"), "editor", ExitCode.USAGE, "is no state of a job"),
        (("logs", "plato-1"), "editor", ExitCode.REFUSED, "are gone"),
        (("logs", "plato-2", "-c", "nope"), "editor", ExitCode.REFUSED, "no pod of job plato-2 has a log of container"),
        (("logs", "version/plato-v1"), "editor", ExitCode.REFUSED, "only jobs and batches have logs"),
        (("watch", "-o", "yaml"), "editor", ExitCode.USAGE, "json or as lines"),
        (("evaluate", "plato-v1"), "editor", ExitCode.REFUSED, "nothing was measured of plato-v1"),
        (("evaluate", "job/plato-1"), "editor", ExitCode.USAGE, "is of another kind"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_mistake_is_told_in_a_sentence(
    ftctl: Ftctl, arguments: tuple[str, ...], user: str, code: ExitCode, words: str
) -> None:
    ended = await ftctl(*arguments, user=user)

    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert ended.err.startswith("ftctl: ")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(("phase", "code"), [("Suspended", ExitCode.DONE), ("Queued", ExitCode.TIMED_OUT)])
async def test_a_script_can_wait_for_any_state(
    ftctl: Ftctl, cluster: PlayedCluster, phase: str, code: ExitCode
) -> None:
    cluster.put("finetunejobs", job("plato-waits", phase))
    assert (await ftctl("status", "plato-waits", "--for", "Suspended", "--timeout", "1s")).code == code


async def test_an_api_server_that_is_away_is_told(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    cluster.away = True
    ended = await ftctl("get", "jobs")
    assert ended.code == ExitCode.UNAVAILABLE
    assert "does not answer" in ended.err


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("get",), 8),
        (("get", "jobs"), 3),
        (("get", "jobs", "plato-1", "plato-2"), 2),
        (("get", "jobs", "--phase", "x"), 0),
    ],
)
async def test_machines_get_lists(ftctl: Ftctl, arguments: tuple[str, ...], count: int) -> None:
    as_json = json.loads((await ftctl(*arguments, "-o", "json")).out)
    as_yaml = yaml.safe_load((await ftctl(*arguments, "-o", "yaml")).out)

    assert as_json == as_yaml
    assert as_json["kind"] == "List"
    assert len(as_json["items"]) == count


async def test_machines_get_one_object_by_its_name(ftctl: Ftctl) -> None:
    assert json.loads((await ftctl("get", "job", "plato-1", "-o", "json")).out)["metadata"]["name"] == "plato-1"
    assert json.loads((await ftctl("status", "plato-1", "-o", "json")).out)["status"]["phase"] == "Succeeded"
    told = json.loads((await ftctl("cost", "-o", "json")).out)
    assert (told["totals"], told["unknown"]) == ({"USD": "2.00"}, 1)
    assert [each["spent"] for each in told["jobs"] if each["job"] == "plato-3"] == [None]


async def test_amounts_of_two_currencies_are_not_added(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    cluster.put("finetunejobs", job("plato-4", "Succeeded", cost={"spent": "3", "currency": "EUR"}))
    out = (await ftctl("cost")).out
    assert "2.00 USD spent on 2 trainings" in out
    assert "3 EUR spent on 1 training" in out


async def test_who_may_not_list_pods_sees_the_rest(ftctl: Ftctl) -> None:
    ended = await ftctl("get", user="narrow")
    assert ended.code == ExitCode.DONE
    assert "job plato-2" in ended.out
    assert "plato-2-abcde" not in ended.out
    assert "pods are left out: you may not list them" in ended.err


async def test_all_namespaces(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    elsewhere = job("plato-7", "Training")
    elsewhere["metadata"]["namespace"] = "other"
    cluster.put("finetunejobs", elsewhere)
    assert "plato-7" not in (await ftctl("get", "jobs", user="admin")).out
    out = (await ftctl("get", "jobs", "-A", user="admin")).out
    assert "NAMESPACE" in out
    assert "plato-7" in out
    assert "plato-7" in (await ftctl("get", "-A", user="admin")).out


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("job/plato-1", ExitCode.DONE),
        ("plato-2", ExitCode.TIMED_OUT),
        ("plato-3", ExitCode.FAILED),
        ("version/plato-v1", ExitCode.DONE),
        ("version/plato-v2", ExitCode.DONE),
        ("version/socrates-v1", ExitCode.FAILED),
        ("test/plato-v1-v2", ExitCode.TIMED_OUT),
        ("batch/plato-all", ExitCode.TIMED_OUT),
    ],
)
async def test_the_exit_code_is_the_state(ftctl: Ftctl, what: str, code: ExitCode) -> None:
    assert (await ftctl("status", what)).code == code


async def test_a_state_can_be_asked_for(ftctl: Ftctl) -> None:
    assert (await ftctl("status", "version/plato-v2", "--for", "Deployed")).code == ExitCode.TIMED_OUT
    assert (await ftctl("status", "version/plato-v1", "--for", "Deployed")).code == ExitCode.DONE
    assert (await ftctl("status", "version/socrates-v1", "--for", "Deployed")).code == ExitCode.FAILED


async def test_status_waits_for_the_end(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    waiting = asyncio.create_task(ftctl("check-job-status", "plato-2", "--timeout", "1m"))
    await eventually(lambda: cluster.watches)
    await cluster.tell("finetunejobs", "finetune", "plato-2", progress={"summary": "99%"})
    await cluster.tell("finetunejobs", "finetune", "plato-2", phase="Failed", message="the node is gone")

    ended = await waiting

    assert ended.code == ExitCode.FAILED
    assert "the node is gone" in ended.out


async def test_status_waits_no_longer_than_it_is_told(ftctl: Ftctl) -> None:
    ended = await ftctl("status", "plato-2", "--timeout", "1s")
    assert ended.code == ExitCode.TIMED_OUT
    assert "job/plato-2 Training" in ended.out


async def test_what_is_deleted_meanwhile_is_not_waited_for(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    waiting = asyncio.create_task(ftctl("status", "plato-2", "--timeout", "1m"))
    await eventually(lambda: cluster.watches)
    await cluster.remove("finetunejobs", "finetune", "plato-2")
    ended = await waiting
    assert ended.code == ExitCode.REFUSED
    assert "was deleted" in ended.err


async def test_logs_of_each_container_in_turn(ftctl: Ftctl) -> None:
    ended = await ftctl("logs", "plato-2")
    assert ended.out == "134 rows exported\nstep 239 loss 0.31\nstep 240 loss 0.2992\n"
    assert "==> pod plato-2-abcde, container trainer" in ended.err
    assert (await ftctl("logs", "plato-2", "-c", "trainer", "--tail", "1")).out == "step 240 loss 0.2992\n"


async def test_logs_of_pods_that_are_gone_need_an_api(ftctl: Ftctl) -> None:
    ended = await ftctl("logs", "plato-1")
    said = " ".join(ended.err.split())
    assert (ended.code, ended.out) == (ExitCode.REFUSED, "")
    assert "the pods of job plato-1 (Succeeded) are gone, and their logs with them" in said
    assert "The api keeps their last lines, but can't be asked" in said


async def test_logs_go_on_to_the_next_pod_until_the_training_has_ended(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    following = asyncio.create_task(ftctl("logs", "-f", "plato-2", "-c", "trainer"))
    await eventually(lambda: any(path.endswith("/log") for _, _, path in cluster.requests))
    second = pod("plato-2-fghij", "plato-2", "Running", containerStatuses=[running("trainer")])
    second["metadata"]["creationTimestamp"] = "2026-11-22T13:00:00Z"
    cluster.container_logs[("plato-2-fghij", "trainer")] = [b"resumed at step 200\n"]
    cluster.put("pods", second)
    await cluster.tell("finetunejobs", "finetune", "plato-2", phase="Succeeded")

    ended = await following

    assert ended.out == "step 239 loss 0.31\nstep 240 loss 0.2992\nresumed at step 200\n"


EVALUATION: dict[str, Any] = {
    "examples": 13,
    "metrics": [{"name": "RougeL", "base": "0.06", "fineTuned": "0.15"}],
    "meanLatencySeconds": {"base": "1.5", "fineTuned": "1.75"},
}


async def test_an_evaluation_beside_the_base_model(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    cluster.put("modelversions", version("plato-v3", "Ready", status={"evaluation": EVALUATION}))
    ended = await ftctl("evaluate-model", "plato-v3")
    assert [line.split() for line in ended.lines] == [
        ["plato-v3", "against", "its", "base", "model", "(served,", "13", "examples)"],
        ["METRIC", "BASE", "FINE-TUNED", "CHANGE"],
        ["RougeL", "0.06", "0.15", "+0.09"],
        ["latency,", "s", "1.5", "1.75", "+0.25"],
    ]


async def test_an_evaluation_is_asked_for_by_the_spec(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl(
        "evaluate", "plato-v2", "--metric", "RougeL", "--max-examples", "7", "--saturation", "--timeout", "0"
    )
    assert ended.code == ExitCode.DONE
    spec = cluster.objects["modelversions", "finetune", "plato-v2"]["spec"]
    assert spec["evaluation"] == {"metrics": ["RougeL"], "maxExamples": 7, "saturation": {}}


@pytest.mark.parametrize(
    ("width", "names"),
    [(100, ["A", "B", "C"]), (18, ["A", "B"]), (10, ["A"]), (1, ["A"])],
)
def test_columns_that_have_no_room_go_by_their_rank(width: int, names: list[str]) -> None:
    columns = [Column("A"), Column("B", 1), Column("C", 2), Column("EMPTY", 3)]
    shown = fitting(columns, [["aaaa", "bbbb", "cccc", ""]], width)
    assert [columns[index].name for index in shown] == names
