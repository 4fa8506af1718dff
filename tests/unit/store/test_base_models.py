"""The fetch container as a pod runs it, against a hub on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune_operator.contract.base_models import FetchedModel, HubModel
from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, VolumeSource
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.preflight import Preflight
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from finetune_operator.store import base_models
from tests.unit.store.hub_server import Hub, Repository, serving
from tests.unit.store.small_models import CHAT_ML, byte_level_tokenizer, conversation, write_rows
from tests.waiting import eventually

MODEL = "Qwen/Qwen3-tiny"
FIRST, SECOND = "1" * 40, "2" * 40
TOKEN, OTHER_TOKEN = "hf_secret", "hf_other"
FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "model-00001-of-00002.safetensors": os.urandom(300_000),
    "model-00002-of-00002.safetensors": os.urandom(400_000),
    "model.safetensors.index.json": b"{}",
    "tokenizer.json": b"{}",
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
}
UNWANTED = {
    "pytorch_model.bin": b"cos\nsystem\n(S'true'\ntR.",
    "modeling_qwen.py": b"raise SystemExit",
    "original/consolidated.safetensors": b"the same once more",
    "consolidated.safetensors": b"the same once more",
    "README.md": b"# Qwen",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {FIRST: FILES | UNWANTED, SECOND: FILES | {"config.json": b'{"model_type": "newer"}'}}
    with serving(Hub({MODEL: Repository({"main": FIRST, "v2": SECOND}, files)})) as hub:
        yield hub


@dataclass
class Pod:
    """A pod's volumes; `fetch` is one run of the container."""

    root: Path
    hub: Hub
    waits: list[float] = field(default_factory=list)

    @property
    def surroundings(self) -> base_models.Surroundings:
        return base_models.Surroundings(
            self.root / "models",
            self.root / "artifacts",
            self.root / "termination-log",
            waits_seconds=(1.0, 2.0),
            wait=self.waits.append,
        )

    def fetch(
        self,
        revision: str = "main",
        *,
        model: str = MODEL,
        job: str | None = None,
        token: str | None = None,
        gpu_type: str | None = None,
    ) -> int:
        environment = {"HF_ENDPOINT": self.hub.url} | ({"HF_TOKEN": token} if token else {})
        config = self._config(job, gpu_type) if job else None
        return base_models.main(model, revision, config, self.surroundings, environment)

    def _config(self, uid: str, gpu_type: str | None = None) -> Path:
        """Of a job whose rows are prepared."""
        config = TrainingConfig(
            job=JobIdentity(namespace="ns", name="plato", uid=uid),
            model="plato",
            method="SFT",
            backend="Unsloth",
            base_model_name="qwen",
            base_model_path="/models/hub",
            base_model_hub=HubModel(id=MODEL, revision="main"),
            dataset=DatasetConfig(source=VolumeSource(path="data.jsonl")),
            lora=LoraConfig(),
            training=TrainingParameters(quantization="none"),
            gpu_type=gpu_type,
        )
        paths = JobPaths.of(config, str(self.root / "artifacts"))
        Path(paths.dataset).mkdir(parents=True, exist_ok=True)
        write_rows(Path(paths.train_rows), [conversation("a question", "an answer")] * 10)
        Path(paths.dataset_report).write_text(DatasetReport(rows=10, test_rows=0, digest="").model_dump_json())
        file = self.root / f"{uid}.json"
        file.write_text(config.model_dump_json(by_alias=True))
        return file

    @property
    def repository(self) -> Repository:
        return self.hub.repositories[MODEL]

    def remembered(self, job: str) -> FetchedModel:
        paths = JobPaths("ns", "plato", job, str(self.root / "artifacts"))
        return FetchedModel.model_validate_json(Path(paths.base_model).read_bytes())

    def directory(self, commit: str = FIRST) -> Path:
        return self.root / "models" / "hub" / MODEL / commit

    def files(self, commit: str = FIRST) -> dict[str, bytes]:
        root = self.directory(commit)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    @property
    def message(self) -> str:
        return (self.root / "termination-log").read_text()

    @property
    def failure(self) -> Failure:
        return Failure.model_validate_json(self.message)


@pytest.fixture
def pod(tmp_path: Path, hub: Hub) -> Pod:
    (tmp_path / "models").mkdir()
    return Pod(tmp_path, hub)


def test_a_model_becomes_a_directory_of_weights_tokenizer_and_template_and_nothing_that_runs(pod: Pod) -> None:
    assert pod.fetch() == 0
    assert pod.files() == FILES
    assert {path.name for path in pod.directory().parent.iterdir()} == {FIRST, f".{FIRST}.lock"}


@pytest.mark.parametrize(("revision", "commit"), [("main", FIRST), ("v2", SECOND), (SECOND, SECOND)])
def test_a_revision_is_a_branch_a_tag_or_a_commit(pod: Pod, revision: str, commit: str) -> None:
    assert pod.fetch(revision) == 0
    assert pod.directory(commit).is_dir()


def test_a_job_keeps_the_commit_of_its_first_fetch(pod: Pod) -> None:
    pod.fetch(job="one")
    pod.repository.revisions["main"] = SECOND
    pod.fetch(job="one")
    pod.fetch(job="two")
    assert pod.remembered("one") == FetchedModel(id=MODEL, commit=FIRST)
    assert pod.remembered("two") == FetchedModel(id=MODEL, commit=SECOND)
    assert pod.files(SECOND)["config.json"] == b'{"model_type": "newer"}'


@pytest.mark.parametrize("job", [None, "one"], ids=["an engine, by the commit", "a job, by a branch"])
def test_a_second_run_asks_nobody(pod: Pod, job: str | None) -> None:
    revision = "main" if job else FIRST
    pod.fetch(revision, job=job)
    pod.hub.requests.clear()
    assert pod.fetch(revision, job=job) == 0
    assert pod.hub.requests == []


def test_weights_that_somebody_deleted_come_back_as_the_commit_that_they_were(pod: Pod) -> None:
    pod.fetch(job="one")
    pod.repository.revisions["main"] = SECOND
    shutil.rmtree(pod.directory())
    assert pod.fetch(job="one") == 0
    assert pod.files() == FILES


def test_two_pods_at_once_download_once(pod: Pod) -> None:
    pod.hub.hold = "model-00002-of-00002.safetensors"
    with ThreadPoolExecutor(2) as pods:
        first = pods.submit(pod.fetch)
        assert pod.hub.held.wait(30)
        second = pods.submit(pod.fetch)
        pod.hub.release.set()
        assert (first.result(60), second.result(60)) == (0, 0)
    assert pod.hub.downloads() == sorted(FILES)
    assert pod.files() == FILES


async def test_a_killed_attempt_leaves_nothing_that_looks_whole_and_its_finished_files(pod: Pod) -> None:
    held = "model-00002-of-00002.safetensors"
    pod.hub.hold = held
    container = start_container(pod)
    assert pod.hub.held.wait(60)
    partial = pod.directory().with_name(f".{FIRST}.partial")
    # A file counts once its record is there, which the hub's library writes after it.
    records = partial / ".cache" / "huggingface" / "download"
    await eventually(lambda: {path.stem for path in records.glob("*.metadata")} >= FILES.keys() - {held})
    container.send_signal(signal.SIGKILL)
    container.wait(30)
    assert not pod.directory().exists()
    pod.hub.hold = None
    pod.hub.release.set()
    pod.hub.requests.clear()
    assert pod.fetch() == 0
    assert pod.hub.downloads() == [held]
    assert pod.files() == FILES


def start_container(pod: Pod) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _CONTAINER, str(pod.root), MODEL, pod.hub.url])


_CONTAINER = """
import sys
from pathlib import Path
from finetune_operator.store import base_models
root = Path(sys.argv[1])
surroundings = base_models.Surroundings(root / "models", root / "artifacts", root / "termination-log")
sys.exit(base_models.main(sys.argv[2], "main", None, surroundings, {"HF_ENDPOINT": sys.argv[3]}))
"""


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors"])
def test_a_file_that_arrives_damaged_is_downloaded_again(pod: Pod, name: str) -> None:
    pod.hub.damaged = name
    assert pod.fetch() == 0
    assert pod.hub.downloads().count(name) == 2
    assert pod.waits == [1.0]
    assert pod.files() == FILES


@dataclass(frozen=True)
class Hopeless:
    """A wish that no second try will fulfil, and what the user is told."""

    title: str
    reason: FailureReason
    says: tuple[str, ...]
    model: str = MODEL
    revision: str = "main"
    token: str | None = None
    gated: bool = False
    without: str = ""


NOT_FOUND, UNAVAILABLE = FailureReason.BASE_MODEL_NOT_FOUND, FailureReason.BASE_MODEL_UNAVAILABLE
HOPELESS = [
    Hopeless("an unknown model", NOT_FOUND, ("no model Qwen/Qwen9", "hub.id", "tokenSecretRef"), model="Qwen/Qwen9"),
    Hopeless("an id that the hub can't have", NOT_FOUND, ("hub.id",), model="Qwen/Qwen--3"),
    Hopeless("an unknown branch", NOT_FOUND, ("no revision nightly", "hub.revision"), revision="nightly"),
    Hopeless("an unknown commit", NOT_FOUND, ("no revision 3333", "hub.revision"), revision="3" * 40),
    Hopeless("a gated model without a token", UNAVAILABLE, ("is gated", "no token", "accept its terms"), gated=True),
    Hopeless("a gated model, another's token", UNAVAILABLE, ("is gated", "no access"), gated=True, token=OTHER_TOKEN),
    Hopeless("a token that does not count", UNAVAILABLE, ("(401)", "valid token"), model="a/b", token=OTHER_TOKEN),
    Hopeless("pickles only", NOT_FOUND, ("no weights in safetensors", "source.volume"), without=".safetensors"),
    Hopeless("an adapter", NOT_FOUND, ("no config.json",), without="config.json"),
]


@pytest.mark.parametrize("case", HOPELESS, ids=lambda case: case.title)
def test_what_only_the_user_can_change_ends_the_job_and_says_so(pod: Pod, case: Hopeless) -> None:
    pod.repository.gated, pod.repository.token = case.gated, TOKEN if case.gated else None
    if case.without:
        kept = {name: content for name, content in (FILES | UNWANTED).items() if not name.endswith(case.without)}
        pod.repository.files[FIRST] = {name: content for name, content in kept.items() if "consolidated" not in name}
    assert pod.fetch(case.revision, model=case.model, token=case.token) == EXIT_CODES[case.reason]
    assert pod.failure.reason is case.reason
    text = f"{pod.failure.message}: {pod.failure.remedy}"
    assert [word for word in case.says if word not in text] == []
    assert pod.waits == []
    assert not any(path.is_dir() for path in (pod.root / "models").glob("hub/*/*/[0-9]*"))


def test_a_private_model_is_found_with_its_token_which_is_told_to_nobody(
    pod: Pod, capfd: pytest.CaptureFixture[str]
) -> None:
    pod.repository.token = TOKEN
    assert pod.fetch() == EXIT_CODES[NOT_FOUND]
    assert pod.fetch(token=TOKEN, job="one") == 0
    written = [path.read_bytes() for path in pod.root.rglob("*") if path.is_file()]
    output = capfd.readouterr()
    assert TOKEN not in output.out + output.err
    assert not any(TOKEN.encode() in content for content in written)


def test_no_token_is_sent_where_none_is_given(pod: Pod) -> None:
    pod.fetch()
    assert pod.hub.tokens == {None}


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_down_is_asked_again_and_then_left_to_kubernetes(pod: Pod, status: int) -> None:
    pod.hub.error = status
    assert pod.fetch() == base_models.EXIT_TROUBLE
    assert pod.waits == [1.0, 2.0]
    assert pod.hub.url in pod.message
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(pod.message)
    pod.hub.error = None
    assert pod.fetch() == 0


def test_a_network_that_is_down_is_no_failure_for_good(pod: Pod, tmp_path: Path) -> None:
    pod.hub.url = "http://127.0.0.1:9"
    assert pod.fetch() == base_models.EXIT_TROUBLE
    assert "can't be reached" in pod.message


def test_a_volume_that_is_too_small_is_told_before_the_download(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(pod.root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert pod.fetch() == EXIT_CODES[UNAVAILABLE]
    assert "too small" in pod.failure.message
    assert pod.hub.downloads() == []


def test_a_config_of_another_release_is_refused(pod: Pod) -> None:
    config = pod.root / "training.json"
    config.write_text("{}")
    code = base_models.main(MODEL, "main", config, pod.surroundings, {"HF_ENDPOINT": pod.hub.url})
    assert code == EXIT_CODES[FailureReason.INVALID_CONFIG]
    assert pod.hub.requests == []


LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip


def test_a_job_is_told_what_its_model_makes_of_its_rows(pod: Pod) -> None:
    """Here both are, and not before: `prepare` comes first, so that an empty dataset downloads nothing."""
    files = {
        "config.json": json.dumps(LLAMA_8B),
        "tokenizer.json": byte_level_tokenizer(),
        "chat_template.jinja": CHAT_ML,
    }
    pod.repository.files[FIRST] |= {name: text.encode() for name, text in files.items()}
    for _ in ("the first attempt", "another one"):
        assert pod.fetch(job="one", gpu_type="NVIDIA-L4") == 0
        found = Preflight.model_validate_json(pod.message)
        assert (found.parameters_billion, found.gpu_memory_gib) == (8.03, 24)
        assert found.tokens is not None
        assert (found.tokens.method, found.tokens.sampled_rows) == ("Tokenizer", 10)
        assert found.work is not None
        assert found.work.steps == 9


def test_what_can_not_fit_is_not_downloaded(pod: Pod) -> None:
    pod.repository.files[FIRST] |= {"config.json": json.dumps(LLAMA_8B).encode()}
    assert pod.fetch(job="one", gpu_type="NVIDIA-A2-8GB") == EXIT_CODES[FailureReason.OUT_OF_MEMORY]
    assert "NVIDIA-A2-8GB has 8 GiB" in pod.failure.message
    assert not list((pod.root / "models").rglob("*.safetensors"))
    assert not pod.directory().exists()
