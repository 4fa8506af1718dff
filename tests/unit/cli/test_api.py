"""Votes and exports: the real api on a port, asked by a port that the played API server forwards, or at its address."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
import uvicorn
from structlog.testing import capture_logs

from finetune_operator.cli import datasets
from finetune_operator.cli.connection import connected
from finetune_operator.cli.failures import ExitCode
from finetune_operator.cli.forwarding import forwarded
from finetune_operator.cli.options import Cluster
from finetune_operator.cli.voting import shown
from finetune_operator.contract.batch_answers import BatchAnswer, BatchAnswers
from finetune_operator.contract.job_logs import LogTail
from finetune_operator.contract.training import JobIdentity
from finetune_operator.core.base_model_catalogue import CATALOGUE
from finetune_operator.kube.client import KubeClient
from finetune_operator.store import batch_answers, job_logs
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from finetune_operator.web.app import create_app
from finetune_operator.web.services import Services
from finetune_operator.web.settings import Settings
from tests.unit.cli.conftest import Ftctl
from tests.unit.cli.played_cluster import NAMESPACE, PlayedCluster, placed
from tests.unit.gateway.servers import HOST, free_port
from tests.unit.kubeconfig import kubeconfig
from tests.unit.store.ratings_database import rating, write_ratings
from tests.unit.web.conftest import ENVIRONMENT, FakeArms, ab_test, model_version
from tests.unit.web.ratings_api import WorkerThread
from tests.unit.web.rest.played_api_server import OWN_TOKEN, User
from tests.waiting import eventually

LABELS = {"app.kubernetes.io/name": "finetune-operator", "app.kubernetes.io/component": "api"}
SERVICE = {
    "metadata": {
        "name": "finetune-api",
        "namespace": NAMESPACE,
        "labels": LABELS,
    },
    "spec": {"selector": LABELS, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
}
TEST = "v1-v2"
API_PORT = 8080


def api_pod(name: str, *, ready: bool = True) -> dict[str, Any]:
    """One behind the Service."""
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": LABELS},
        "spec": {"containers": [{"name": "api", "ports": [{"name": "http", "containerPort": API_PORT}]}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


@dataclass(frozen=True)
class RunningApi:
    port: int
    directory: Path
    services: Services

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@pytest.fixture
async def api(cluster: PlayedCluster, tmp_path: Path) -> AsyncIterator[RunningApi]:
    cluster.put("abtests", ab_test())
    cluster.put("modelversions", model_version())
    cluster.put("services", SERVICE)
    cluster.put("pods", api_pod("api-starting", ready=False))
    cluster.put("pods", api_pod("api-ready"))
    url = write_ratings(tmp_path / "ratings.db", [rating(number, domain="law") for number in range(12)])
    (tmp_path / "url").write_text(f"{url}\n")
    settings = Settings.from_environment(
        ENVIRONMENT
        | {
            "FINETUNE_NAMESPACES": NAMESPACE,
            "FINETUNE_RATINGS_URL_FILE": str(tmp_path / "url"),
            "FINETUNE_DATASETS_DIRECTORY": str(tmp_path / "datasets"),
            "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
        }
    )
    engine = async_engine(parse_url(f"sqlite:///{tmp_path}/api.db"))
    await migrate(engine)
    # Its logs go to the same standard output, which is the command's meanwhile.
    async with aiohttp.ClientSession() as session:
        with capture_logs():
            kube = KubeClient(session, kopf.ConnectionInfo(server=cluster.url, token=OWN_TOKEN))
            services = Services(settings, engine, kube, FakeArms(), coin=lambda: True, worker=WorkerThread())
            port = free_port()
            config = uvicorn.Config(create_app(services), host=HOST, port=port, log_config=None, access_log=False)
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            await eventually(lambda: server.started)
            running = RunningApi(port, tmp_path, services)
            cluster.ports["api-ready", API_PORT] = port
            yield running
            server.should_exit = True
            await task
    await engine.dispose()


async def test_blind_votes_in_the_callers_name(ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster) -> None:
    ended = await ftctl("vote", TEST, stdin="a\nz\nT\ns\n")

    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    assert ended.out.count("Question") == 3
    assert "What is justice?" in ended.out
    assert "2 votes cast, 2 in all." in ended.out
    assert "A was" not in ended.out, "nobody is told whose answers they are"
    assert max(map(len, ended.lines)) <= 140
    assert set(cluster.forwarded) == {"api-ready"}
    address = f"{api.url}/v1/fine-tuning/ab-test/finetune.{TEST}/voters"
    headers = {"Authorization": "Bearer editor"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(address) as response:
        voters = (await response.json())["voters"]
    assert [(voter["evaluator"], voter["tally"]["tie"]) for voter in voters] == [
        ("system:serviceaccount:finetune:editor", 1)
    ]


async def test_a_count_of_votes_and_who_was_who(ftctl: Ftctl, api: RunningApi) -> None:
    ended = await ftctl("vote", f"test/{TEST}", "--count", "1", "--reveal", stdin="b\n")
    assert (ended.code, ended.out.count("Question")) == (ExitCode.DONE, 1)
    assert "A was plato-v2, B was tiny" in ended.out


async def test_the_end_of_the_input_is_the_end(ftctl: Ftctl, api: RunningApi) -> None:
    ended = await ftctl("vote", TEST, stdin="")
    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    assert "cast" not in ended.out


async def test_an_export_is_downloaded_whole(
    ftctl: Ftctl, api: RunningApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ended = await ftctl("export", str(out), "--format", "alpaca", "--domain", "law", user="admin")
    assert (ended.code, "12 to train, 0 held out" in ended.out) == (ExitCode.DONE, True)
    assert len((out / "train.jsonl").read_text().splitlines()) == 12
    assert sorted(path.name for path in out.iterdir()) == ["test.jsonl", "train.jsonl"]

    again = await ftctl("export", str(out), "--format", "alpaca", "--domain", "law", user="admin")
    assert again.code == ExitCode.USAGE
    assert "is there already" in again.err

    listed = json.loads((await ftctl("export", "--list", "-o", "json", user="admin")).out)
    assert [entry["format"] for entry in listed["datasets"]] == ["alpaca"]
    assert "alpaca" in (await ftctl("export", "--list", user="admin")).out

    for limit in (1, 2):
        await ftctl("export", "--limit", str(limit), user="admin")
    monkeypatch.setattr(datasets, "PAGE_LIMIT", "2")
    for arguments, formats in (((), ["chatml", "chatml", "alpaca"]), (("--format", "alpaca"), ["alpaca"])):
        listed = json.loads((await ftctl("export", "--list", *arguments, "-o", "json", user="admin")).out)
        assert [entry["format"] for entry in listed["datasets"]] == formats
    assert (await ftctl("export", "--list", "--domain", "none", user="admin")).out == ""

    pairs = ("export", "--format", "dpo", "--min-confidence-diff", "0.5")
    assert "min_rating_difference" in (await ftctl(*pairs, "--min-rating-difference", "2", user="admin")).err
    assert "differ by 2 or more" in (await ftctl(*pairs, user="admin")).err


async def test_ratings_are_counted(ftctl: Ftctl, api: RunningApi) -> None:
    ended = await ftctl("export", "--count", "--domain", "law")
    assert ended.lines[0] == "12 ratings"
    assert "by domain  law: 12" in ended.out
    assert "       12 left by domain='law'" in ended.out
    none = await ftctl("export", "--count", "--domain", "nowhere")
    assert (none.lines[0], "domain='nowhere' leaves none" in none.err) == ("0 ratings", True)


async def test_base_models_are_listed(ftctl: Ftctl, api: RunningApi) -> None:
    ended = await ftctl("base-models")
    assert ended.lines[0].split()[:2] == ["ID", "SIZE"]
    assert [line.split()[0] for line in ended.lines[1:] if "/" in line.split()[0]] == [each.id for each in CATALOGUE]
    told = json.loads((await ftctl("base-models", "-o", "json")).out)["base_models"]
    assert [each["id"] for each in told] == [each.id for each in CATALOGUE]


async def test_answers_of_a_batch_are_shown(ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster) -> None:
    none = await ftctl("answers", "plato-all")
    assert (none.code, none.out) == (ExitCode.REFUSED, "")
    assert "the api keeps no answers of batch plato-all" in " ".join(none.err.split())

    uid = cluster.objects["batchinferences", NAMESPACE, "plato-all"]["metadata"]["uid"]
    told = tuple(
        BatchAnswer(number=number, served_name=name, custom_id=f"row-{number}", prompt="Why?", answer=f"{name} knows")
        for number in (1, 2)
        for name in ("plato-v2", "tiny")
    )
    batch = JobIdentity(namespace=NAMESPACE, name="plato-all", uid=uid)
    await batch_answers.record(api.services.engine, BatchAnswers(batch=batch, answers=told), api.services.now())
    ended = await ftctl("answers", "batch/plato-all", "--limit", "1")
    assert (ended.code, ended.out.count("Why?")) == (ExitCode.DONE, 1)
    assert all(f"{name} knows" in ended.out for name in ("plato-v2", "tiny"))
    listed = json.loads((await ftctl("answers", "plato-all", "-o", "json")).out)
    assert [row["number"] for row in listed["rows"]] == [1, 2]


async def test_logs_of_pods_that_are_gone_are_those_that_the_api_keeps(
    ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster
) -> None:
    ended = await ftctl("logs", "plato-1")
    assert (ended.code, ended.out) == (ExitCode.REFUSED, "")
    assert "are gone, and their logs with them" in ended.err
    assert "The api has not heard of them either" in " ".join(ended.err.split())

    uid = cluster.objects["finetunejobs", NAMESPACE, "plato-1"]["metadata"]["uid"]
    job = JobIdentity(namespace=NAMESPACE, name="plato-1", uid=uid)
    for container, text in (("prepare", "134 rows exported"), ("trainer", "step 1\nstep 2")):
        await job_logs.record(api.services.engine, LogTail.of(job, container, text, datetime(2026, 11, 22, tzinfo=UTC)))
    ended = await ftctl("logs", "plato-1")
    assert (ended.code, ended.out) == (ExitCode.DONE, "134 rows exported\nstep 1\nstep 2\n")
    assert "container trainer, whose pod is gone: its last lines, kept by the api" in " ".join(ended.err.split())
    assert (await ftctl("logs", "plato-1", "-c", "trainer", "--tail", "1")).out == "step 2\n"


async def test_at_an_address_only_a_token_that_was_meant_for_it_is_sent(
    ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster
) -> None:
    refused = await ftctl("export", "--count", "--server", api.url)
    assert refused.code == ExitCode.REFUSED
    assert "Set FTCTL_TOKEN" in refused.err

    taken = await ftctl(
        "export", "--count", FTCTL_SERVER=api.url, FTCTL_TOKEN=ENVIRONMENT["FINETUNE_API_TOKEN"], KUBECONFIG="/nowhere"
    )
    assert (taken.code, taken.lines[0]) == (ExitCode.DONE, "12 ratings")
    assert cluster.forwarded == []


@pytest.mark.parametrize(
    "server",
    ["http://10.0.0.1", "http://api.example.org:8080/ft", "http://localhost.example.org", "http://127.0.0.1@x"],
)
@pytest.mark.parametrize("by", ["token", "service account"])
async def test_a_token_goes_unencrypted_to_this_machine_alone(
    ftctl: Ftctl, api: RunningApi, server: str, by: str
) -> None:
    told = ("--service-account", "ada") if by == "service account" else ()
    environment = {"FTCTL_TOKEN": "a"} if by == "token" else {}
    ended = await ftctl("export", "--count", "--server", server, *told, **environment)
    assert ended.code == ExitCode.USAGE
    assert "write https://" in ended.err


async def test_a_token_of_a_service_account_is_made(ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster) -> None:
    cluster.users["token-of-ada"] = User("system:serviceaccount:finetune:ada", cluster.users["editor"].rights)
    ended = await ftctl("vote", TEST, "--count", "1", "--service-account", "ada", stdin="a\n")
    assert ended.code == ExitCode.DONE
    assert any(name.endswith(":ada") for name, _, _ in cluster.requests)


async def test_a_kubeconfig_with_certificates_is_told_what_to_do(
    ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster, tmp_path: Path
) -> None:
    file = tmp_path / "certificates"
    file.write_text(kubeconfig(cluster.url).replace("token: test", "username: ada, password: secret"))
    ended = await ftctl("vote", TEST, "-n", NAMESPACE, "--api", "finetune/finetune-api", KUBECONFIG=str(file))
    assert ended.code == ExitCode.REFUSED
    assert "pass --service-account NAME" in ended.err


@pytest.mark.parametrize(
    ("arguments", "user", "code", "words"),
    [
        (("vote", "nope"), "editor", ExitCode.REFUSED, "there is no ABTest nope"),
        (("vote", TEST), "reader", ExitCode.REFUSED, "`create` on abtests/votes"),
        (("vote", TEST, "--evaluator", "bob"), "editor", ExitCode.REFUSED, "evaluator"),
        (("export", "--format", "nonsense"), "editor", ExitCode.USAGE, "format"),
        (("export", "--domain", "nothing"), "editor", ExitCode.USAGE, "nothing"),
        (("export", "--count", "--server", "ftp://x"), "editor", ExitCode.USAGE, "write http://"),
        (("export", "--count", "--server", "http://127.0.0.1:1"), "editor", ExitCode.UNAVAILABLE, "does not answer"),
        (("export", "--count", "--api", "finetune/x/y"), "editor", ExitCode.USAGE, "'x/y' is no name"),
        (("export", "--count", "--api", "nowhere"), "editor", ExitCode.REFUSED, "no Service finetune/nowhere"),
        (("export", "--count", "--api", "x/y"), "admin", ExitCode.REFUSED, "no Service x/y"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_the_api_refuses(
    ftctl: Ftctl, api: RunningApi, arguments: tuple[str, ...], user: str, code: ExitCode, words: str
) -> None:
    ended = await ftctl(*arguments, user=user)
    assert ended.code == code, ended
    assert words in ended.err


@pytest.mark.parametrize(("verb", "words"), [("get", 'pods "api-ready" is forbidden'), ("create", "HTTP 403")])
async def test_who_may_forward_no_port_is_told_which_rights_it_takes(
    ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster, verb: str, words: str
) -> None:
    cluster.users["editor"].rights.remove((verb, "pods/portforward"))
    ended = await ftctl("vote", TEST)
    told = " ".join(ended.err.split())
    assert ended.code == ExitCode.REFUSED
    assert words in told
    assert "`get` and, from Kubernetes 1.35 on, `create` on pods/portforward" in told


async def test_an_answer_that_breaks_off_looks_like_no_whole_one(
    api: RunningApi, cluster: PlayedCluster, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig(cluster.url).replace("token: test", "token: editor"))
    async with (
        connected(Cluster(kubeconfig=file, context=None, namespace=NAMESPACE)) as connection,
        forwarded(connection, (NAMESPACE, "finetune-api")) as url,
    ):
        cluster.cuts_off = True
        reader, writer = await asyncio.open_connection(HOST, int(url.rpartition(":")[2]))
        # Kept open by its server: what ends it here is the break alone.
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_no_pod_is_ready(ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster) -> None:
    await cluster.remove("pods", NAMESPACE, "api-ready")
    ended = await ftctl("vote", TEST)
    assert (ended.code, "no pod of Service finetune/finetune-api is ready" in ended.err) == (ExitCode.UNAVAILABLE, True)


async def test_a_pod_where_nothing_listens(ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster) -> None:
    cluster.ports.clear()
    ended = await ftctl("vote", TEST)
    assert ended.code == ExitCode.UNAVAILABLE
    assert "error forwarding port 8080" in ended.err


async def test_a_pod_that_is_replaced_ends_only_its_own_connections(
    api: RunningApi, cluster: PlayedCluster, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig(cluster.url).replace("token: test", "token: editor"))
    async with (
        connected(Cluster(kubeconfig=file, context=None, namespace=NAMESPACE)) as connection,
        forwarded(connection, (NAMESPACE, "finetune-api")) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        for name in ("api-ready", "api-later"):
            async with session.get(f"{url}/healthz") as response:
                assert await response.text() == "ok\n"
            assert cluster.forwarded[-1] == name
            await cluster.remove("pods", NAMESPACE, "api-ready") if name == "api-ready" else None
            cluster.put("pods", api_pod("api-later"))
            cluster.ports["api-later", API_PORT] = api.port


async def test_a_client_that_stays_does_not_keep_the_port(
    api: RunningApi, cluster: PlayedCluster, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig(cluster.url).replace("token: test", "token: editor"))
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        async with (
            connected(Cluster(kubeconfig=file, namespace=NAMESPACE)) as connection,
            forwarded(connection, (NAMESPACE, "finetune-api")) as url,
            session.get(f"{url}/healthz") as response,
        ):
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{url}/healthz")


async def test_no_api(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl("export", "--count")
    assert ended.code == ExitCode.REFUSED
    assert "--api NAMESPACE/SERVICE, or --server URL" in ended.err


async def test_several_apis(ftctl: Ftctl, api: RunningApi, cluster: PlayedCluster) -> None:
    cluster.put("services", placed(SERVICE, "second-api"))
    ended = await ftctl("export", "--count")
    assert ended.code == ExitCode.USAGE
    assert "finetune/finetune-api, finetune/second-api" in ended.err


async def test_the_dashboard_ends_its_forwarding(ftctl: Ftctl, api: RunningApi, tmp_path: Path) -> None:
    await ftctl("get")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "finetune_operator.cli.main", "dashboard", "--no-browser",
        stdout=subprocess.PIPE,
        env=os.environ
        | {"KUBECONFIG": str(tmp_path / "editor.kubeconfig"), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert process.stdout is not None
    page = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
    assert page.endswith("/fine-tuning")
    async with aiohttp.ClientSession() as session:
        async with session.get(page) as response:
            assert (response.status, "Log in" in await response.text()) == (200, True)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == ExitCode.INTERRUPTED
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(page)


@pytest.mark.parametrize("width", [120, 60])
def test_a_pair_is_text_whatever_it_says(width: int) -> None:
    from io import StringIO

    from rich.console import Console

    stream = StringIO()
    hostile = "[red]no markup[/red] \x1b[31mno escape\x1b[0m"
    pair = {"prompt": "Why?", "answers": {"a": hostile, "b": "Because."}}
    Console(file=stream, width=width, force_terminal=True).print(shown(pair, width))
    assert "[red]no markup[/red]" in stream.getvalue()
    assert "\x1b[31mno escape" not in stream.getvalue()
    side_by_side = any("no markup" in line and "Because." in line for line in stream.getvalue().splitlines())
    assert side_by_side == (width > 90)
