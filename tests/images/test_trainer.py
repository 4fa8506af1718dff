"""The trainer on a tiny model, really training: outcome, progress, resuming, and every way to give up."""

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.adapters import AdapterManifest
from finetune_operator.contract.base_models import HubModel
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import hub_snapshots
from finetune_operator.contract.training import LoraConfig, TrainingResult
from finetune_operator.core.artifacts import MANIFEST_NAME, adapter_digest, is_allowed
from finetune_operator.store import base_models
from tests.images.training import TOKEN, Job, progress_server
from tests.unit.store.hub_server import Hub, Repository, serving

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]
EXIT_TERMINATED, EXIT_LOCKED = 143, 75
COMMIT = "c" * 40
LONG = {"epochs": 200, "learning_rate": 2e-4, "save_steps": 5}
"""Long enough to be interrupted on any machine."""


def result_of(job: Job) -> TrainingResult:
    return TrainingResult.model_validate(job.outcome())


def test_sft_lowers_the_held_out_loss(trained: Job) -> None:
    result = result_of(trained)

    assert result.test_loss is not None
    assert result.base_test_loss is not None
    assert result.test_loss < result.base_test_loss - 0.2
    assert result.final_loss is not None
    assert result.best_loss is not None
    assert result.best_loss <= result.final_loss < result.base_test_loss
    assert result.epochs == 8
    assert result.dataset.digest == "sha256:dataset"
    assert result.versions["unsloth"]


def test_dpo_prefers_the_chosen_answers_of_held_out_pairs(preferred: Job) -> None:
    result = result_of(preferred)

    assert result.base_test_loss == pytest.approx(math.log(2))
    assert result.test_loss is not None
    assert result.test_loss < 0.5


@pytest.mark.parametrize("backend", ["Unsloth", "HuggingFace"])
def test_recomputing_activations_changes_no_loss_and_so_do_the_backends(
    job: MakeJob, conversations: Rows, trained: Job, backend: str
) -> None:
    """Against Unsloth without gradient checkpointing."""
    same = job(f"recomputed-{backend}", conversations, backend=backend, epochs=8, gradient_checkpointing=True)
    same.run()

    assert result_of(same).test_loss == pytest.approx(result_of(trained).test_loss, rel=1e-3)


def test_the_same_holds_for_preferences(job: MakeJob, preferences: Rows, preferred: Job) -> None:
    options = {"method": "DPO", "learning_rate": 5e-4, "epochs": 3, "gradient_checkpointing": True}
    same = job("preferred-recomputed", preferences, **options)
    same.run()

    assert result_of(same).test_loss == pytest.approx(result_of(preferred).test_loss, rel=1e-2)


def test_the_adapter_is_published_whole_and_alone(trained: Job) -> None:
    manifest = AdapterManifest.model_validate_json((trained.adapter / MANIFEST_NAME).read_bytes())
    names = {path.name for path in trained.adapter.iterdir()}

    assert names == {file.name for file in manifest.files} | {MANIFEST_NAME}
    assert all(map(is_allowed, names))
    assert adapter_digest(manifest.files) == manifest.digest == result_of(trained).adapter_digest
    assert manifest.rank == 16
    left = {path.name for path in Path(trained.paths.directory).iterdir()}
    assert left == {"adapter", "artifacts.json", "dataset", "lock", "result.json", "train.log"}


def test_the_result_on_the_volume_is_the_termination_message(trained: Job) -> None:
    assert json.loads(Path(trained.paths.result).read_text()) == trained.outcome()


def test_a_second_start_repeats_the_outcome(trained: Job) -> None:
    before = trained.outcome()

    attempt = trained.run()

    assert trained.outcome() == before
    assert attempt.lines("training") == []


def test_progress_is_posted_from_the_first_step_to_the_last(job: MakeJob, conversations: Rows) -> None:
    with progress_server() as api:
        reported = job("reported", conversations, progress_url=api.url)
        reported.run()

    steps = [progress.step for progress in api.received]
    assert api.tokens == {f"Bearer {TOKEN}"}
    assert steps == sorted(steps)
    assert steps[0] == 0
    last = api.received[-1]
    assert (last.step, last.percent, last.eta_seconds) == (last.total_steps, 100, 0)
    assert last.loss is not None
    assert last.best_loss is not None
    assert last.total_epochs == 3
    assert len({progress.attempt for progress in api.received}) == 1


def test_progress_tells_of_tokens_gradients_and_checkpoints(job: MakeJob, conversations: Rows) -> None:
    with progress_server() as api:
        measured = job("measured", conversations, progress_url=api.url, epochs=2, save_steps=3)
        measured.run()

    first, last = api.received[0], api.received[-1]
    assert (first.tokens, first.checkpoint_step, first.grad_norm) == (None, None, None)
    assert last.tokens == result_of(measured).tokens
    assert last.tokens_per_second is not None
    assert last.tokens_per_second > 0
    assert last.grad_norm is not None
    assert last.grad_norm > 0
    assert last.checkpoint_step is not None
    assert last.checkpoint_step >= last.total_steps - 3
    assert last.checkpoint_time is not None
    assert first.time <= last.checkpoint_time <= last.time
    assert last.gpu_memory_bytes is None


def test_an_api_that_is_away_delays_nothing_and_gets_the_series_when_it_is_back(
    job: MakeJob, conversations: Rows
) -> None:
    with progress_server() as api:
        port, url = api.port, api.url
    away = job("api-away", conversations, progress_url=url, **LONG)

    attempt = away.start()
    attempt.wait_for("progress can't be reported; the training goes on")
    step_while_away = attempt.wait_for("checkpoint")["step"]
    with progress_server(port) as api:
        attempt.wait_for("progress is reported again", timeout_seconds=60)

    steps = [point.step for point in api.received]
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert any(0 < step < step_while_away for step in steps)
    assert attempt.signal(signal.SIGTERM) == EXIT_TERMINATED


def test_without_an_api_the_training_succeeds(job: MakeJob, conversations: Rows) -> None:
    with progress_server() as api:
        url = api.url
    alone = job("no-api", conversations, progress_url=url, epochs=1)

    alone.run()

    assert result_of(alone).steps > 0


@pytest.mark.parametrize("method", ["SFT", "DPO"])
def test_a_killed_training_goes_on_from_its_checkpoint(
    job: MakeJob, conversations: Rows, preferences: Rows, method: str
) -> None:
    rows = conversations if method == "SFT" else preferences
    options = {"method": method, "learning_rate": 5e-4, "epochs": 4, "save_steps": 20}
    unbroken = job(f"unbroken-{method}".lower(), rows, **options)
    broken = job(f"broken-{method}".lower(), rows, **options)

    unbroken.run()
    first = broken.start()
    first.wait_for("checkpoint")
    assert first.signal(signal.SIGKILL) == -signal.SIGKILL
    second = broken.run()

    assert second.lines("training")[0]["resumed_from"].startswith("checkpoint-")
    assert result_of(broken).steps == result_of(unbroken).steps
    assert result_of(broken).test_loss == pytest.approx(result_of(unbroken).test_loss, abs=1e-3)


def test_a_torn_checkpoint_is_not_taken(job: MakeJob, conversations: Rows) -> None:
    torn = job("torn", conversations, epochs=1)
    checkpoint = Path(torn.paths.checkpoints) / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"global_step"')

    attempt = torn.run()

    assert attempt.lines("training")[0]["resumed_from"] is None


def test_sigterm_saves_a_checkpoint_and_asks_for_another_try(job: MakeJob, conversations: Rows) -> None:
    asked = job("asked-to-leave", conversations, **(LONG | {"save_steps": 100_000}))

    attempt = asked.start()
    attempt.wait_for("step")
    assert attempt.signal(signal.SIGTERM) == EXIT_TERMINATED
    step = attempt.lines("checkpoint")[-1]["step"]
    following = asked.start()

    assert following.wait_for("training")["resumed_from"] == f"checkpoint-{step}"
    assert following.signal(signal.SIGTERM) == EXIT_TERMINATED


def test_sigterm_before_the_training_ends_at_once(job: MakeJob, conversations: Rows) -> None:
    attempt = job("early", conversations).start()
    attempt.wait_for("attempt")

    assert attempt.signal(signal.SIGTERM) == EXIT_TERMINATED


def test_a_second_pod_leaves_while_the_first_trains(job: MakeJob, conversations: Rows) -> None:
    doubled = job("doubled", conversations, **LONG)
    first = doubled.start()
    first.wait_for("step")

    second = doubled.start("--lock-wait-seconds", "0")

    assert second.exit_code() == EXIT_LOCKED
    assert second.lines("another attempt is training; leaving")[0]["holder"]
    assert first.process.poll() is None
    assert first.signal(signal.SIGTERM) == EXIT_TERMINATED


def test_a_second_pod_waits_for_the_first_and_repeats_its_outcome(job: MakeJob, conversations: Rows) -> None:
    doubled = job("doubled-and-waiting", conversations, epochs=2)
    first = doubled.start()
    first.wait_for("training")
    second = doubled.start()

    first.expect(0)
    second.expect(0)

    assert second.lines("an earlier attempt is done; its result stands")
    assert result_of(doubled).adapter_digest


def break_line(job: Job) -> None:
    with Path(job.paths.train_rows).open("a") as file:
        file.write('{"messages": [{"role": "user"}]}\n')


def remove_report(job: Job) -> None:
    Path(job.paths.dataset_report).unlink()


GIVEN_UP: dict[str, tuple[dict[str, Any], Callable[[Job], None] | None, FailureReason, str, str]] = {
    "quantization without a GPU": (
        {"quantization": "4bit"},
        None,
        FailureReason.INVALID_CONFIG,
        "4bit",
        "quantization: none",
    ),
    "layers that the model lacks": (
        {"lora": LoraConfig(target_modules=("no_such_layer",))},
        None,
        FailureReason.INVALID_CONFIG,
        "no_such_layer",
        "targetModules",
    ),
    "a line that is no record": ({}, break_line, FailureReason.DATASET_INVALID, "line", "SFT"),
    "a dataset that was not finished": ({}, remove_report, FailureReason.DATASET_INVALID, "report.json", "prepare"),
    "prompts longer than the context": (
        {"max_seq_length": 4},
        None,
        FailureReason.DATASET_INVALID,
        "4 tokens",
        "maxSeqLength",
    ),
}


@pytest.mark.parametrize(("options", "damage", "reason", "fact", "remedy"), GIVEN_UP.values(), ids=GIVEN_UP.keys())
def test_what_no_second_try_mends_has_a_reason_and_a_remedy(
    job: MakeJob,
    conversations: Rows,
    options: dict[str, Any],
    damage: Callable[[Job], None] | None,
    reason: FailureReason,
    fact: str,
    remedy: str,
    request: pytest.FixtureRequest,
) -> None:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.callspec.id)
    wrong = job(name, conversations, **options)
    if damage:
        damage(wrong)

    wrong.start().expect(EXIT_CODES[reason])

    failure = Failure.model_validate(wrong.outcome())
    assert failure.reason is reason
    assert fact in failure.message
    assert remedy in failure.remedy


def test_a_base_model_that_is_not_there_is_named(job: MakeJob, conversations: Rows, tmp_path: Path) -> None:
    lost = job("no-base-model", conversations)
    lost.config = lost.config.model_copy(update={"base_model_path": str(tmp_path / "nowhere")})

    lost.start().expect(EXIT_CODES[FailureReason.BASE_MODEL_NOT_FOUND])

    assert "nowhere" in Failure.model_validate(lost.outcome()).message


def test_a_model_of_the_hub_is_trained_on_at_the_commit_that_was_fetched(
    job: MakeJob, conversations: Rows, base_model: Path, tmp_path: Path
) -> None:
    of_hub = job("of-hub", conversations, max_steps=2)
    hub_model = HubModel(id="tiny/llama", revision="main")
    snapshots = {"base_model_hub": hub_model, "base_model_path": hub_snapshots(hub_model.id, str(tmp_path))}
    of_hub.config = of_hub.config.model_copy(update=snapshots)
    config_file = tmp_path / "training.json"
    config_file.write_text(of_hub.config.model_dump_json(by_alias=True))
    surroundings = base_models.Surroundings(tmp_path, of_hub.artifacts, tmp_path / "termination-log")
    files = {path.name: path.read_bytes() for path in base_model.iterdir()}
    with serving(Hub({hub_model.id: Repository({"main": COMMIT}, {COMMIT: files})})) as hub:
        environment = {"HF_ENDPOINT": hub.url}
        assert base_models.main(hub_model.id, hub_model.revision, config_file, surroundings, environment) == 0

    of_hub.run()

    assert result_of(of_hub).base_model_commit == COMMIT


def test_a_model_of_the_hub_that_nobody_fetched_is_a_mix_of_releases(job: MakeJob, conversations: Rows) -> None:
    unfetched = job("unfetched", conversations)
    hub_model = HubModel(id="tiny/llama", revision="main")
    unfetched.config = unfetched.config.model_copy(update={"base_model_hub": hub_model})

    unfetched.start().expect(EXIT_CODES[FailureReason.INVALID_CONFIG])

    assert "base-model.json" in Failure.model_validate(unfetched.outcome()).message
