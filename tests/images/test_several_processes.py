"""One adapter trained by two processes, each of them a node: real torchrun, gloo, and the trainer as its pod starts it.

They learn from as many examples a step as one process with twice the batch, and come to the same; whatever becomes of
either, both go on together from the last whole checkpoint.
"""

import importlib
import json
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from finetune_operator.contract.failures import EXIT_CODES
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import LoraConfig, TrainingResult
from finetune_operator.core.endings import PEERS_LOST_EXIT_CODE as EXIT_PEERS_LOST
from finetune_operator.manifests.training import training_config
from tests.builders import CONFIG, make_job
from tests.images.ml_environment import REPOSITORY
from tests.images.nodes import started
from tests.images.training import Job, progress_server

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]
STEPS, SAVE_STEPS = 40, 5
KILLED_AT, TERMINATED_AT = 12, 24
# Without dropout, whose random numbers would be others in two processes than in one.
TRAINING: dict[str, Any] = {
    "backend": "HuggingFace",
    "lora": LoraConfig(dropout=0.0),
    "max_steps": STEPS,
    "save_steps": SAVE_STEPS,
    "learning_rate": 5e-4,
    "max_seq_length": 96,
}
EXIT_LOST, EXIT_TERMINATED, EXIT_KILLED = 69, 143, 137
START_SECONDS = 400  # two processes that import Unsloth at once, on a machine that is busy


def result_of(job: Job) -> TrainingResult:
    return TrainingResult.model_validate_json(Path(job.paths.result).read_bytes())


def checkpoints_of(job: Job) -> list[Path]:
    return sorted(Path(job.paths.checkpoints).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


@pytest.fixture(scope="module")
def alone(job: MakeJob, conversations: Rows) -> Job:
    """One process, with the batch of two."""
    single = job("one-process", conversations, batch_size=8, **TRAINING)
    single.run()
    return single


@pytest.fixture(scope="module")
def together(job: MakeJob, conversations: Rows) -> Iterator[dict[str, Any]]:
    """Two nodes that nothing interrupts."""
    with progress_server() as server:
        pair = job("two-nodes", conversations, batch_size=4, progress_url=server.url, **TRAINING)
        with started(pair, "only") as nodes:
            for node in nodes:
                assert node.exit_code(START_SECONDS) == 0, node.log_file.read_text()[-3000:]
            yield {"job": pair, "nodes": nodes, "received": server.received}


def test_two_processes_come_to_what_one_with_twice_the_batch_does(alone: Job, together: dict[str, Any]) -> None:
    one, two = result_of(alone), result_of(together["job"])
    assert (two.steps, two.tokens, two.epochs) == (one.steps, one.tokens, one.epochs)
    assert two.final_loss == pytest.approx(one.final_loss, rel=0.01)
    assert two.test_loss == pytest.approx(one.test_loss, rel=0.01)
    assert two.base_test_loss == pytest.approx(one.base_test_loss, abs=1e-4)


def test_there_is_one_adapter_and_one_series_of_progress(together: dict[str, Any]) -> None:
    directory = Path(together["job"].paths.directory)
    assert [path.name for path in directory.iterdir() if "adapter" in path.name] == ["adapter"]
    trained = [point for point in together["received"] if point.attempt == together["received"][0].attempt]
    steps = [point.step for point in trained]
    # A step is told again where more of it is known; never by another process, nor after a later one.
    assert steps == sorted(steps)
    assert {point.total_steps for point in trained} == {STEPS}
    assert steps[-1] == STEPS


def test_the_first_node_alone_tells_and_saves(together: dict[str, Any]) -> None:
    first, second = together["nodes"]
    assert first.outcome()["kind"] == "TrainingResult"
    assert second.outcome() is None
    assert [len(node.lines("training")) for node in (first, second)] == [1, 1]
    assert len(first.lines("checkpoint")) == STEPS // SAVE_STEPS
    assert second.lines("checkpoint") == second.lines("step") == second.lines("done") == []


@pytest.fixture(scope="module")
def interrupted(job: MakeJob, conversations: Rows) -> dict[str, Any]:
    """The same training; the second process is killed, then the second node asked to leave, then nothing happens."""
    pair = job("two-nodes-interrupted", conversations, batch_size=4, **TRAINING)
    story: dict[str, Any] = {"job": pair}
    with started(pair, "killed") as (first, second):
        first.wait_for_step(KILLED_AT)
        os.kill(second.worker(), signal.SIGKILL)
        story["after the kill"] = (first.exit_code(60), second.exit_code(60))
    with started(pair, "terminated") as (first, second):
        first.wait_for_step(TERMINATED_AT)
        second.process.send_signal(signal.SIGTERM)
        story["after SIGTERM"] = (first.exit_code(60), second.exit_code(60))
        story["resumed after the kill"] = first.lines("training")[0]["resumed_from"]
        story["stopped at"] = [
            node.lines("asked to leave; the next attempt goes on from here") for node in (first, second)
        ]
    story["checkpoint"] = checkpoints_of(pair)[-1]
    story["files"] = sorted(path.name for path in story["checkpoint"].iterdir())
    with started(pair, "last") as (first, second):
        story["at last"] = (first.exit_code(START_SECONDS), second.exit_code(START_SECONDS))
        story["resumed after SIGTERM"] = [node.lines("training")[0]["resumed_from"] for node in (first, second)]
        story["log"] = first.log_file.read_text()[-3000:]
    return story


def test_when_a_process_is_killed_the_others_end_too(interrupted: dict[str, Any]) -> None:
    assert interrupted["after the kill"] == (EXIT_LOST, EXIT_KILLED)


def test_all_go_on_together_from_the_last_whole_checkpoint(interrupted: dict[str, Any]) -> None:
    step = int(interrupted["resumed after the kill"].removeprefix("checkpoint-"))
    assert KILLED_AT - SAVE_STEPS <= step <= KILLED_AT + SAVE_STEPS


def test_sigterm_to_one_node_stops_all_at_one_step_with_a_whole_checkpoint(interrupted: dict[str, Any]) -> None:
    assert interrupted["after SIGTERM"] == (EXIT_TERMINATED, EXIT_TERMINATED)
    ((first,), (second,)) = interrupted["stopped at"]
    assert first["step"] == second["step"] >= TERMINATED_AT
    assert interrupted["checkpoint"].name == f"checkpoint-{first['step']}"
    assert {"complete.json", "rng_state_0.pth", "rng_state_1.pth"} <= set(interrupted["files"])
    assert interrupted["resumed after SIGTERM"] == [interrupted["checkpoint"].name] * 2


def test_the_loss_is_that_of_an_uninterrupted_training(interrupted: dict[str, Any], together: dict[str, Any]) -> None:
    assert interrupted["at last"] == (0, 0), interrupted["log"]
    broken, unbroken = result_of(interrupted["job"]), result_of(together["job"])
    assert broken.steps == unbroken.steps == STEPS
    assert broken.final_loss == pytest.approx(unbroken.final_loss, abs=1e-3)
    assert broken.test_loss == pytest.approx(unbroken.test_loss, abs=1e-3)
    assert broken.tokens == unbroken.tokens


def test_a_finished_training_is_told_again_by_the_first_node_alone(together: dict[str, Any]) -> None:
    """As after a Job that was made anew, since nobody had read the result."""
    with started(together["job"], "again") as (first, second):
        assert (first.exit_code(), second.exit_code()) == (0, 0)
        assert first.outcome() == json.loads(json.dumps(first.outcome()))
        assert first.outcome()["kind"] == "TrainingResult"
        assert first.lines("node") == second.lines("node") == []


@pytest.fixture(scope="module")
def launch() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "trainer_image"))
    try:
        return importlib.import_module("launch")
    finally:
        sys.path.pop(0)


CODES: dict[str, tuple[list[int], int]] = {
    "all well": ([0, 0], 0),
    "one can't go on, whatever becomes of the others": ([69, 48, -15], 48),
    **{f"{code}, which is final": ([1, 137, code, 143, 69, 0], code) for code in EXIT_CODES.values()},
    "killed, and another that lost it": ([69, -9], 137),
    "crashed, and another that torchrun stopped for it": ([143, 1], 1),
    "aborted by NCCL, and another that lost it": ([69, -6], 134),
    "all asked to leave": ([143, -15], 143),
    "the leader found another attempt, which the others took for a loss": ([69, 75], 75),
    "only others are lost": ([69, 69], 69),
}


FAILURES: dict[str, tuple[list[tuple[int, int]], dict[int, int]]] = {
    "both at once": ([(-9, 100), (69, 100)], {0: -9, 1: 69}),
    "killed in the other's last seconds": ([(69, 101), (-9, 100)], {0: 69, 1: -9}),
    "one hangs until torchrun kills it": ([(-9, 131), (1, 100)], {1: 1}),
    "one leaves late": ([(143, 128), (1, 100)], {0: 143, 1: 1}),
}


@pytest.mark.parametrize(("failures", "expected"), FAILURES.values(), ids=FAILURES.keys())
def test_a_process_that_torchrun_killed_was_not_out_of_memory(
    launch: ModuleType, failures: list[tuple[int, int]], expected: dict[int, int]
) -> None:
    told = [
        SimpleNamespace(local_rank=rank, exitcode=code, timestamp=timestamp)
        for rank, (code, timestamp) in enumerate(failures)
    ]
    assert launch.exit_codes(told) == expected


@pytest.mark.parametrize(("codes", "expected"), CODES.values(), ids=CODES.keys())
def test_a_pod_ends_with_the_exit_code_that_says_most(launch: ModuleType, codes: list[int], expected: int) -> None:
    assert launch.exit_code_of(codes) == expected


@pytest.mark.parametrize("node", [0, 1], ids=["the first node", "another, to whom the first never came"])
def test_a_loss_counts_once_it_happens_again_and_again_without_a_checkpoint(
    launch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: int
) -> None:
    """Kubernetes makes a pod that only lost another anew without end, so that no node may say so for ever."""
    config = training_config(make_job({"nodes": 2}), CONFIG)
    paths = JobPaths.of(config, str(tmp_path))
    checkpoints = Path(paths.checkpoints)
    (checkpoints / "checkpoint-5").mkdir(parents=True)
    monkeypatch.setattr(launch, "Children", lambda: SimpleNamespace(asked_to_leave=False))
    monkeypatch.setattr(launch, "set_environment", lambda _: None)
    monkeypatch.setattr(launch, "run_together", lambda *_: EXIT_PEERS_LOST)
    arguments = Namespace(artifacts=tmp_path, node=node, nodes=2, processes_per_node=1)
    codes = [launch.launch(arguments, config) for _ in range(launch.MOST_LOSSES + 1)]
    assert codes == [EXIT_PEERS_LOST] * 4 + [1, 1]
    (checkpoints / "checkpoint-10").mkdir()
    assert launch.launch(arguments, config) == EXIT_PEERS_LOST


def test_nodes_that_lose_each_other_count_one_loss_each(launch: ModuleType, tmp_path: Path) -> None:
    paths = JobPaths("finetune", "plato", "uid", str(tmp_path))
    Path(paths.directory).mkdir(parents=True)
    rounds = [[launch.is_getting_on(paths, node) for node in range(16)] for _ in range(launch.MOST_LOSSES)]
    assert [set(answers) for answers in rounds] == [{True}] * 4 + [{False}]
