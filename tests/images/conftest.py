"""The images' programs as ordinary processes on this machine, with a base model that is trained for these tests."""

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.conversations import load_conversations
from finetune_operator.contract.evaluation import EvaluationConfig, Metric
from tests.images.base_model import ensure_base_model
from tests.images.ml_environment import ensure_axolotl_python, ensure_python
from tests.images.training import BASE_MODEL, Job, TrainerHost, make_job

MINIMUM_PROMPT, MINIMUM_RESPONSE = 10, 20
FINE_TUNED_TOPIC = "emotion"
EVERY_METRIC = EvaluationConfig(metrics=tuple(Metric), max_examples=12, max_new_tokens=48)


def messages(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


@pytest.fixture(scope="session", autouse=True)
def _room_for_the_killed() -> Iterator[None]:
    """The programs' temporary directory: a process that a test kills leaves its files there."""
    # Looked up now, so that it is theirs alone and not pytest's, too.
    tempfile.gettempdir()
    with (
        tempfile.TemporaryDirectory(prefix="images-", ignore_cleanup_errors=True) as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", directory)
        yield


@pytest.fixture(scope="session")
def ml_python() -> Path:
    return ensure_python()


@pytest.fixture(scope="session")
def axolotl_python() -> Path:
    return ensure_axolotl_python()


@pytest.fixture(scope="session")
def base_model(ml_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training on everything but the topic that the tests fine-tune on."""
    rows = [item for item in load_conversations() if item.topic != FINE_TUNED_TOPIC]
    lines = (json.dumps({"messages": messages(row.prompt, row.response)}) + "\n" for row in rows)
    model = ensure_base_model(ml_python, "".join(lines).encode())
    # A copy, since a test may damage what it trains on.
    return shutil.copytree(model, tmp_path_factory.mktemp("models") / BASE_MODEL)


@pytest.fixture(scope="session")
def conversations() -> list[dict[str, Any]]:
    """SFT rows of the topic."""
    return [
        {"messages": messages(item.prompt, item.response)}
        for item in load_conversations()
        if item.topic == FINE_TUNED_TOPIC
        and len(item.prompt) >= MINIMUM_PROMPT
        and len(item.response) >= MINIMUM_RESPONSE
    ]


@pytest.fixture(scope="session")
def preferences(conversations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """DPO rows by a rule that a tiny model can learn: the longest answer to a question beats the others."""
    answers: dict[str, list[dict[str, str]]] = defaultdict(list)
    questions = {}
    for question, answer in (row["messages"] for row in conversations):
        questions[question["content"]] = question
        answers[question["content"]].append(answer)
    pairs = []
    for text, question in questions.items():
        *others, longest = sorted(answers[text], key=lambda answer: len(answer["content"]))
        pairs += [{"prompt": [question], "chosen": [longest], "rejected": [other]} for other in others]
    return pairs


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="session")
def trainer_host(ml_python: Path) -> Iterator[TrainerHost]:
    host = TrainerHost(ml_python)
    yield host
    host.close()


@pytest.fixture(scope="session")
def job(ml_python: Path, base_model: Path, artifacts: Path, trainer_host: TrainerHost) -> Iterator[Callable[..., Job]]:
    """Makes jobs, and ends what they started.

    Their attempts are forks of one process, except where a test wants the program from its start, and with plain
    Transformers, which Unsloth would have changed.
    """
    made: list[Job] = []

    def make(name: str, rows: list[dict[str, Any]], *, from_start: bool = False, **options: Any) -> Job:
        host = None if from_start or options.get("backend") == "HuggingFace" else trainer_host
        made.append(make_job(ml_python, base_model, artifacts, name, rows, host=host, **options))
        return made[-1]

    yield make
    for each in made:
        each.kill_all()


@pytest.fixture(scope="session")
def trained(job: Callable[..., Job], conversations: list[dict[str, Any]]) -> Job:
    """A job that was trained to its end, for the tests that look at what it left."""
    done = job("trained", conversations, epochs=8, evaluation=EVERY_METRIC, from_start=True)
    done.run()
    return done


@pytest.fixture(scope="session")
def preferred(job: Callable[..., Job], preferences: list[dict[str, Any]]) -> Job:
    """The same for DPO."""
    done = job("preferred", preferences, method="DPO", learning_rate=5e-4, epochs=3, evaluation=EVERY_METRIC)
    done.run()
    return done
