"""Trackers of experiments beside the product's own series: TensorBoard, MLflow, Weights & Biases.

They are other people's servers and libraries: one that fails is left out from then on, and the training goes on. Keys
come in the environment from a Secret and stay there.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attempt import Termination
from failures import log
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import TrainingConfig

# Of the libraries; whoever runs the trainer may set them otherwise. A server that is away costs a minute at most.
DEFAULTS: Mapping[str, str] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_SILENT": "true",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_DIR": tempfile.gettempdir(),
}
LAST_WORDS_SECONDS = 30.0
LAST_WORDS_SECONDS_WHEN_ASKED_TO_LEAVE = 5.0  # a pod has a minute for that, most of which is the checkpoint's


class Tracker(TrainerCallback):
    """One of Transformers' reporting callbacks, whose failure is not the training's.

    `made` is told of the run once it exists; `finish` sends what is left of it.
    """

    def __init__(
        self,
        name: str,
        termination: Termination,
        make: Callable[[], TrainerCallback],
        made: Callable[[], None] = lambda: None,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._termination = name, termination
        self._make, self._made, self._finish = make, made, finish
        self._callback: TrainerCallback | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        def begin() -> None:
            self._callback = self._make()
            self._callback.on_train_begin(args, state, control, **kwargs)
            self._made()
            log("reports to a tracker", tracker=self._name)

        self._guarded(begin)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if callback := self._callback:
            self._guarded(lambda: callback.on_log(args, state, control, **kwargs))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """In a thread: with its server away a library may try for hours to send the rest."""
        callback = self._callback
        if callback is None:
            return

        def end() -> None:
            callback.on_train_end(args, state, control, **kwargs)
            self._finish()

        thread = threading.Thread(target=lambda: self._guarded(end), name=self._name, daemon=True)
        thread.start()
        hurries = self._termination.requested
        thread.join(LAST_WORDS_SECONDS_WHEN_ASKED_TO_LEAVE if hurries else LAST_WORDS_SECONDS)
        if thread.is_alive():
            log("a tracker did not take all in time; the training is not held up", tracker=self._name)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises
            self._callback = None
            reason = f"{type(error).__name__}: {error}"[:500]
            log("a tracker failed and is left out; the training goes on", tracker=self._name, error=reason)


def make_trackers(config: TrainingConfig, paths: JobPaths, termination: Termination) -> list[Tracker]:
    """Those that the job names."""
    wanted = config.report_to
    if wanted is None:
        return []
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    trackers = []
    if wanted.tensor_board:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(paths.tensorboard)
        trackers.append(Tracker("TensorBoard", termination, _tensorboard))
    if wanted.mlflow:
        os.environ["MLFLOW_TRACKING_URI"] = wanted.mlflow.tracking_uri
        os.environ["MLFLOW_EXPERIMENT_NAME"] = wanted.mlflow.experiment
        trackers.append(_mlflow(Path(paths.mlflow_run), termination))
    if wanted.wandb:
        os.environ["WANDB_PROJECT"] = wanted.wandb.project
        os.environ |= {"WANDB_RUN_ID": config.job.uid, "WANDB_RESUME": "allow"}
        optional = {"WANDB_ENTITY": wanted.wandb.entity, "WANDB_BASE_URL": wanted.wandb.base_url}
        os.environ |= {name: value for name, value in optional.items() if value}
        trackers.append(Tracker("WandB", termination, _wandb, finish=_finish_wandb))
    return trackers


def _tensorboard() -> TrainerCallback:
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback()


def _mlflow(run_file: Path, termination: Termination) -> Tracker:
    """The run's id is kept on the volume, so that the next attempt continues it."""

    def make() -> TrainerCallback:
        from transformers.integrations import MLflowCallback

        if run_file.exists():
            os.environ["MLFLOW_RUN_ID"] = run_file.read_text()
        return MLflowCallback()

    def made() -> None:
        import mlflow

        if run := mlflow.active_run():
            run_file.write_text(run.info.run_id)

    def finish() -> None:
        """MLflow's idea of the active run is the training thread's own, so that its callback ends nothing here."""
        import mlflow

        mlflow.flush_async_logging()
        mlflow.MlflowClient().set_terminated(run_file.read_text())

    return Tracker("MLflow", termination, make, made, finish)


def _wandb() -> TrainerCallback:
    from transformers.integrations import WandbCallback

    return WandbCallback()


def _finish_wandb() -> None:
    import wandb

    wandb.finish()
