"""TensorBoard, MLflow and Weights & Biases get the series of a real training; none of them can end it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_operator.contract.tracking import MLflowConfig, TrackingConfig, WandBConfig
from finetune_operator.contract.training import TrainingResult
from tests.images.mlflow_server import mlflow_server
from tests.images.training import Job

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]
SECRET = "a-key-that-must-not-be-told-0123456789ab"  # noqa: S105 - of a test


def test_tensorboard_files_lie_beside_the_adapter(job: MakeJob, conversations: Rows) -> None:
    drawn = job("tensorboard", conversations, epochs=2, report_to=TrackingConfig(tensor_board=True))
    attempt = drawn.run()

    (file,) = Path(drawn.paths.tensorboard).glob("events.out.tfevents.*")
    content = file.read_bytes()
    assert attempt.lines("reports to a tracker")[0]["tracker"] == "TensorBoard"
    assert content.count(b"train/loss") == len(attempt.lines("step")) > 10
    assert b"train/grad_norm" in content


def test_mlflow_gets_one_run_for_all_attempts_at_a_job(job: MakeJob, conversations: Rows) -> None:
    with mlflow_server(token=SECRET) as server:
        config = MLflowConfig(tracking_uri=server.url, experiment="plato")
        tracked = job("mlflow", conversations, epochs=2, save_steps=4, report_to=TrackingConfig(mlflow=config))
        tracked.environment["MLFLOW_TRACKING_TOKEN"] = SECRET
        first = tracked.start()
        first.wait_for("checkpoint")
        first.process.kill()
        first.exit_code(60)
        second = tracked.run()

    assert server.experiments == ["plato"]
    (run,) = server.runs.values()
    assert run["run_name"] == "mlflow"
    assert server.refused == 0
    steps = {step for name, step in server.metrics if name == "loss"}
    assert max(steps) == TrainingResult.model_validate(tracked.outcome()).steps
    assert steps >= {entry["step"] for entry in second.lines("step")}
    assert run["status"] == "FINISHED"
    for attempt in (first, second):
        assert SECRET not in attempt.log_file.read_text()


def test_weights_and_biases_gets_the_series(job: MakeJob, conversations: Rows, tmp_path: Path) -> None:
    """Offline: the client writes what it would send."""
    tracked = job("wandb", conversations, epochs=1, report_to=TrackingConfig(wandb=WandBConfig(project="plato")))
    tracked.environment |= {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_API_KEY": SECRET}
    attempt = tracked.run()

    assert [entry["tracker"] for entry in attempt.lines("reports to a tracker")] == ["WandB"]
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert file.stem == f"run-{tracked.config.job.uid}"
    assert content.count(b"train/loss") >= len(attempt.lines("step"))
    assert SECRET.encode() not in content
    assert SECRET not in attempt.log_file.read_text()


def test_a_tracker_that_is_away_is_left_out_and_the_training_goes_on(job: MakeJob, conversations: Rows) -> None:
    with mlflow_server() as server:
        url = server.url
    config = MLflowConfig(tracking_uri=url, experiment="plato")
    alone = job("tracker-away", conversations, epochs=1, report_to=TrackingConfig(mlflow=config))
    alone.environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    attempt = alone.run()

    (failed,) = attempt.lines("a tracker failed and is left out; the training goes on")
    assert failed["tracker"] == "MLflow"
    assert TrainingResult.model_validate(alone.outcome()).steps == len(attempt.lines("step"))
