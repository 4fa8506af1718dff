"""vLLM as the server image starts it: adapters or merged weights, hot load, and everything the guard refuses."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.adapters import ADAPTER_DIGEST_HEADER, Adapter, AdapterList, AdapterManifest
from finetune_operator.contract.artifacts import MergedWeights, Output, WeightsRefused
from finetune_operator.contract.evaluation import EvaluationReport, Metric
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
from finetune_operator.contract.training import LoraConfig, TrainingResult
from finetune_operator.core.artifacts import MANIFEST_NAME
from finetune_operator.evaluator.app import main as evaluate
from tests.images.ml_environment import REPOSITORY
from tests.images.training import BASE_MODEL, Job, environment_of_images

KEY = "an-engine-key"
READY_TIMEOUT_SECONDS = 300
LONG = 450
"""Tokens of an answer that takes seconds."""
QUESTION = [{"role": "user", "content": "You are arrogant"}]


def manifest_of(directory: Path) -> AdapterManifest:
    return AdapterManifest.model_validate_json((directory / MANIFEST_NAME).read_bytes())


@dataclass
class Server:
    """A running vLLM and what it said."""

    port: int
    process: subprocess.Popen[bytes]
    log_file: Path
    model_infos: Path
    models_when_ready: list[str]

    def call(
        self, path: str, body: object = None, *, key: str | None = KEY, digest: str | None = None
    ) -> tuple[int, str]:
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        headers |= {ADAPTER_DIGEST_HEADER: digest} if digest else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def models(self) -> list[str]:
        return [model["id"] for model in json.loads(self.call("/v1/models")[1])["data"]]

    def load(self, name: str, path: Path | str, digest: str | None) -> tuple[int, dict[str, Any]]:
        status, text = self.call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, digest=digest)
        return status, {} if status == 200 else json.loads(text)["error"]

    @contextmanager
    def stream(self, tokens: int) -> Iterator[http.client.HTTPResponse]:
        """An answer of so many tokens, whose first event has come; the connection is closed in the end."""
        body = {"model": "plato-v1", "messages": QUESTION, "stream": True, "max_tokens": tokens, "ignore_eos": True}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            assert response.status == 200
            assert response.readline().startswith(b"data: {")
            yield response

    def metric(self, name: str) -> float:
        """Summed up over its labels."""
        lines = self.call("/metrics", key=None)[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def answer(self, model: str) -> str:
        body = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 40}
        status, text = self.call("/v1/chat/completions", body)
        assert status == 200, text
        return str(json.loads(text)["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def inspected(ml_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image's build finds out about model classes, each marked as from there."""
    root = tmp_path_factory.mktemp("inspected")
    environment = environment_of_images() | {"VLLM_CACHE_ROOT": str(root)}
    program = REPOSITORY / "server_image" / "inspect_models.py"
    subprocess.run([str(ml_python), str(program)], env=environment, check=True, capture_output=True)
    for file in (root / "modelinfos").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | {"by": "the build"}))
    return root / "modelinfos"


@pytest.fixture(scope="module")
def server(
    ml_python: Path,
    base_model: Path,
    artifacts: Path,
    trained: Job,
    inspected: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Started with a good adapter and one whose digest is not the expected one."""
    directory = tmp_path_factory.mktemp("server")
    good = Adapter(name="plato-v1", path=str(trained.adapter), digest=manifest_of(trained.adapter).digest)
    wrong = good.model_copy(update={"name": "plato-v0", "digest": "sha256:0"})
    adapters = AdapterList(base_model_name=BASE_MODEL, max_lora_rank=16, adapters=(wrong, good))
    (directory / "adapters.json").write_text(adapters.model_dump_json(by_alias=True))
    options = ["--adapters", str(directory / "adapters.json"), "--artifacts", str(artifacts), "--"]
    options += ["--model", str(base_model), "--served-model-name", BASE_MODEL]
    options += ["--enable-lora", "--max-loras", "4", "--max-lora-rank", "16"]
    with running(ml_python, directory, inspected, options) as started:
        yield started


@contextmanager
def running(python: Path, directory: Path, inspected: Path, options: list[str]) -> Iterator[Server]:
    """A server from its readiness on; it logs to the directory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), str(REPOSITORY / "server_image" / "serve.py"), *options, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--max-model-len", "512", "--enforce-eager", "--shutdown-timeout", "20"]
    log_file = directory / "log"
    with log_file.open("wb") as log:
        environment = environment_of_images() | {"VLLM_API_KEY": KEY}
        environment |= {"VLLM_CACHE_ROOT": str(directory / "cache"), "FINETUNE_MODEL_INFOS": str(inspected)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    started = Server(port, process, log_file, directory / "cache" / "modelinfos", [])
    try:
        wait_until_healthy(started)
        started.models_when_ready = started.models()
        yield started
    finally:
        process.terminate()
        process.wait(60)


def wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        try:
            if server.call("/health", key=None)[0] == 200:
                return
        except OSError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{error}:\n{server.log_file.read_text()[-4000:]}")
        time.sleep(0.05)


@pytest.fixture
def copy_of(artifacts: Path, trained: Job, tmp_path: Path) -> Callable[[], Path]:
    """An adapter directory below the root that a test may spoil."""

    def copy() -> Path:
        target = artifacts / "spoilt" / tmp_path.name
        shutil.copytree(trained.adapter, target)
        return target

    return copy


def test_a_healthy_server_has_its_adapters_and_not_the_refused_one(server: Server) -> None:
    assert server.models_when_ready == [BASE_MODEL, "plato-v1"]
    refused = next(line for line in server.log_file.read_text().splitlines() if "adapter refused" in line)
    assert json.loads(refused)["adapter"] == "plato-v0"
    assert json.loads(refused)["reason"] == "DigestMismatch"


def test_what_the_build_found_out_about_the_model_is_not_asked_again(server: Server) -> None:
    """vLLM would have written it anew, without the mark."""
    found = json.loads((server.model_infos / "vllm-model_executor-models-llama-LlamaForCausalLM.json").read_text())
    assert found["by"] == "the build"


def test_an_adapter_answers_otherwise_than_its_base_model(server: Server) -> None:
    assert server.answer("plato-v1") != server.answer(BASE_MODEL)


def test_a_second_adapter_is_loaded_while_running(server: Server, preferred: Job) -> None:
    status, error = server.load("plato-v2", preferred.adapter, manifest_of(preferred.adapter).digest)

    assert (status, error) == (200, {})
    assert "plato-v2" in server.models()
    assert server.answer("plato-v2")
    assert server.call("/v1/unload_lora_adapter", {"lora_name": "plato-v2"})[0] == 200


def test_an_evaluator_measures_of_the_served_version_what_its_trainer_measured(
    server: Server, trained: Job, tmp_path: Path
) -> None:
    """vLLM's answers and next tokens against those of Transformers, for the same adapter and the same held-out rows."""
    trainer, wanted = TrainingResult.model_validate(trained.outcome()).evaluation, trained.config.evaluation
    assert trainer is not None
    assert wanted is not None
    config = ServedEvaluationConfig(
        engine_url=f"http://127.0.0.1:{server.port}",
        base_model_name=BASE_MODEL,
        served_name="plato-v1",
        metrics=wanted.metrics,
        max_examples=wanted.max_examples,
        max_new_tokens=wanted.max_new_tokens,
        concurrency=4,
        rows_path=str(trained.paths.test_rows),
    )
    (tmp_path / "evaluation.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))

    code = evaluate(tmp_path / "evaluation.json", tmp_path / "said", {"VLLM_API_KEY": KEY})

    report = EvaluationReport.model_validate_json((tmp_path / "said").read_bytes())
    assert (code, report.remark) == (0, None)
    assert (report.examples, report.left_out) == (trainer.examples, trainer.left_out)
    expected = {score.metric: (score.base, score.fine_tuned) for score in trainer.scores}
    measured = {score.metric: (score.base, score.fine_tuned) for score in report.scores}
    print(*(f"{metric}: trainer {expected[metric]}, served {measured[metric]}" for metric in expected), sep="\n")
    assert measured.keys() == set(Metric)
    for metric, values in expected.items():
        # A token that two libraries round otherwise changes the rest of its answer, but not what follows the right one.
        tolerance = 0.02 if metric is Metric.TOKEN_ACCURACY else 0.1
        assert measured[metric] == pytest.approx(values, abs=tolerance), metric
    for speed in (report.base_speed, report.fine_tuned_speed):
        assert speed is not None
        assert speed.mean_seconds_to_first_token is not None
        assert speed.p95_latency_seconds is not None
        assert 0 < speed.mean_seconds_to_first_token < speed.mean_latency_seconds <= speed.p95_latency_seconds
        assert speed.seconds_per_answer < speed.mean_latency_seconds
    # Outside a container only control groups of version 1 tell what is taken at their root.
    status, told = server.call("/v1/engine/memory")
    assert (report.fine_tuned_memory is not None) is (status == 200), told
    if report.fine_tuned_memory:
        assert report.fine_tuned_memory.size_bytes > 0


def add_pickle(directory: Path) -> None:
    (directory / "adapter_model.bin").write_bytes(b"\x80")


def change_weights(directory: Path) -> None:
    with (directory / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")


def add_link(directory: Path) -> None:
    (directory / "notes.txt").symlink_to("/etc/passwd")


def rewrite_manifest(**changes: Any) -> Callable[[Path], None]:
    def rewrite(directory: Path) -> None:
        manifest = manifest_of(directory).model_copy(update=changes)
        (directory / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True))

    return rewrite


def remove_manifest(directory: Path) -> None:
    (directory / MANIFEST_NAME).unlink()


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle": (add_pickle, "ForbiddenFile"),
    "a link": (add_link, "ForbiddenFile"),
    "changed weights": (change_weights, "DigestMismatch"),
    "another base model": (rewrite_manifest(base_model_name="other"), "WrongBaseModel"),
    "no manifest": (remove_manifest, "ManifestMissing"),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_adapter_is_refused(
    server: Server, copy_of: Callable[[], Path], spoil: Callable[[Path], None], reason: str
) -> None:
    directory = copy_of()
    digest = manifest_of(directory).digest
    spoil(directory)

    status, error = server.load("spoilt", directory, digest)

    assert status == 422
    assert error["type"] == reason
    assert error["message"]
    assert "spoilt" not in server.models()


@pytest.mark.parametrize("path", ["/etc", "relative/adapter", "{root}/../{name}", "{root}/link-out"])
def test_a_path_outside_the_volume_is_refused(server: Server, artifacts: Path, trained: Job, path: str) -> None:
    link = artifacts / "link-out"
    if not link.is_symlink():
        link.symlink_to("/etc")

    status, error = server.load("outside", path.format(root=artifacts, name="elsewhere"), "sha256:0")

    assert (status, error["type"]) == (422, "OutsideRoot")


def test_a_larger_rank_is_refused(server: Server, job: Callable[..., Job], conversations: list[dict[str, Any]]) -> None:
    large = job("large-rank", conversations, lora=LoraConfig(r=32), max_steps=1)
    large.run()

    status, error = server.load("large", large.adapter, manifest_of(large.adapter).digest)

    assert (status, error["type"]) == (422, "RankTooLarge")


def test_a_load_without_digest_is_refused(server: Server, trained: Job) -> None:
    status, error = server.load("nameless", trained.adapter, None)

    assert (status, error["type"]) == (422, "DigestMissing")


class TestMergedWeights:
    """A server that has them and nothing else."""

    @pytest.fixture(scope="class")
    def merged_job(self, job: Callable[..., Job], conversations: list[dict[str, Any]]) -> Job:
        done = job("served-merged", conversations, epochs=2, outputs=(Output.MERGED_WEIGHTS,))
        done.run()
        return done

    @pytest.fixture(scope="class")
    def merged(self, merged_job: Job) -> MergedWeights:
        result = TrainingResult.model_validate(merged_job.outcome())
        return MergedWeights(
            name="plato-v1",
            path=str(merged_job.paths.merged),
            digest=str(result.merged_digest),
            base_model_name=BASE_MODEL,
            adapter_digest=str(result.adapter_digest),
        )

    @staticmethod
    def options(directory: Path, artifacts: Path, merged: MergedWeights) -> list[str]:
        (directory / "merged.json").write_text(merged.model_dump_json(by_alias=True))
        options = ["--merged", str(directory / "merged.json"), "--artifacts", str(artifacts)]
        return [*options, "--termination-message", str(directory / "said"), "--"]

    def test_it_answers_by_the_versions_name_alone_and_takes_no_adapters(
        self,
        ml_python: Path,
        artifacts: Path,
        merged: MergedWeights,
        merged_job: Job,
        inspected: Path,
        tmp_path: Path,
    ) -> None:
        with running(ml_python, tmp_path, inspected, self.options(tmp_path, artifacts, merged)) as server:
            (listed,) = json.loads(server.call("/v1/models")[1])["data"]
            assert (listed["id"], listed["root"], listed["parent"]) == ("plato-v1", merged.path, None)
            assert server.answer("plato-v1")
            body = {"model": BASE_MODEL, "prompt": "Hello", "max_tokens": 1}
            assert server.call("/v1/completions", body)[0] == 404
            status, error = server.load("more", merged_job.adapter, manifest_of(merged_job.adapter).digest)
            assert (status, error["type"]) == (404, "NotServed")
            assert server.call("/v1/models", key=None)[0] == 401
            assert not (tmp_path / "said").exists()

    def test_other_weights_than_those_that_are_meant_are_not_served(
        self, ml_python: Path, artifacts: Path, merged: MergedWeights, tmp_path: Path
    ) -> None:
        wrong = merged.model_copy(update={"digest": "sha256:" + "0" * 64})
        program = str(REPOSITORY / "server_image" / "serve.py")
        command = [str(ml_python), program, *self.options(tmp_path, artifacts, wrong)]
        environment = environment_of_images() | {"VLLM_API_KEY": KEY}
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
        said = WeightsRefused.model_validate_json((tmp_path / "said").read_bytes())
        assert (done.returncode, said.reason) == (49, "DigestMismatch")
        assert f"digest is {merged.digest}, expected was {wrong.digest}" in said.message


OPEN = {"/health": 200, "/metrics": 200, "/version": 200, "/v1/models": 401, "/tokenize": 401, "/v1/completions": 401}
OPEN |= {"/v1/engine/memory": 401}


@pytest.mark.parametrize(("path", "status"), OPEN.items())
@pytest.mark.parametrize("key", [None, "another-key"], ids=["no key", "wrong key"])
def test_only_health_and_metrics_are_open(server: Server, path: str, status: int, key: str | None) -> None:
    assert server.call(path, key=key)[0] == status


@pytest.mark.parametrize(
    "path", ["/adapters", "/invocations", "/v1/load_lora_adapter/", "//v1/load_lora_adapter", "/docs"]
)
def test_what_the_product_does_not_use_is_not_served(server: Server, path: str) -> None:
    assert server.call(path, {"name": "x", "src": "/etc"})[0] == 404


def test_a_client_that_goes_away_ends_the_work_for_it(server: Server) -> None:
    before = server.metric("vllm:generation_tokens_total")
    with server.stream(LONG):
        assert server.metric("vllm:num_requests_running") == 1
    deadline = time.monotonic() + 30
    while server.metric("vllm:num_requests_running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 0 < server.metric("vllm:generation_tokens_total") - before < LONG


def test_sigterm_ends_it_once_streams_have_come_to_their_end(server: Server) -> None:
    with server.stream(LONG) as response:
        server.process.send_signal(signal.SIGTERM)
        events = [line for line in response.read().splitlines() if line.startswith(b"data: ")]
    assert events[-1] == b"data: [DONE]"
    assert json.loads(events[-2].removeprefix(b"data: "))["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(60) == 0
