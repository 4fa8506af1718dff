"""`spec.training` and `spec.reportTo` as the trainer reads them: numbers instead of decimal strings, TRL's names."""

import re

from finetune_operator.contract.tracking import MLflowConfig, TrackingConfig, WandBConfig
from finetune_operator.contract.training import EarlyStopping, TrainingParameters
from finetune_operator.manifests.common import Manifest, secret_variable
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.training import LrScheduler, Training

# The libraries' own variables, filled by secretKeyRef.
MLFLOW_TOKEN_VARIABLE = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 - the variable's name, not a secret
WANDB_KEY_VARIABLE = "WANDB_API_KEY"


def training_parameters(training: Training) -> TrainingParameters:
    stopping = training.early_stopping
    return TrainingParameters(
        epochs=training.epochs,
        max_steps=training.max_steps,
        batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=float(training.learning_rate),
        warmup_steps=training.warmup_steps,
        warmup_ratio=_number(training.warmup_ratio),
        lr_scheduler=scheduler_name(training.lr_scheduler),
        optimizer=training.optimizer,
        weight_decay=float(training.weight_decay),
        max_grad_norm=float(training.max_grad_norm),
        neftune_noise_alpha=_number(training.neftune_noise_alpha),
        max_seq_length=training.max_seq_length,
        packing=training.packing,
        quantization=training.quantization,
        gradient_checkpointing=training.gradient_checkpointing,
        save_steps=training.save_steps,
        eval_steps=training.eval_steps,
        early_stopping=(
            EarlyStopping(patience=stopping.patience, min_delta=float(stopping.min_delta)) if stopping else None
        ),
        dpo_beta=float(training.dpo_beta),
        arguments=training.arguments,
        seed=training.seed,
    )


def scheduler_name(scheduler: LrScheduler) -> str:
    """Transformers' name: `CosineWithRestarts` is `cosine_with_restarts`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", scheduler.value).lower()


def tracking_config(job: FineTuneJob) -> TrackingConfig | None:
    """What the trainer is told of the trackers: anything but their keys."""
    wanted = job.spec.report_to
    if wanted is None:
        return None
    mlflow, wandb = wanted.mlflow, wanted.wandb
    return TrackingConfig(
        tensor_board=wanted.tensor_board,
        mlflow=(
            MLflowConfig(tracking_uri=mlflow.tracking_uri, experiment=mlflow.experiment or job.spec.model)
            if mlflow
            else None
        ),
        wandb=WandBConfig(project=wandb.project, entity=wandb.entity, base_url=wandb.base_url) if wandb else None,
    )


def tracking_secrets(job: FineTuneJob) -> list[Manifest]:
    """Variables of the trainer's container."""
    wanted = job.spec.report_to
    mlflow_token = wanted.mlflow.token_secret_ref if wanted and wanted.mlflow else None
    wandb_key = wanted.wandb.api_key_secret_ref if wanted and wanted.wandb else None
    references = ((MLFLOW_TOKEN_VARIABLE, mlflow_token), (WANDB_KEY_VARIABLE, wandb_key))
    return [secret_variable(variable, ref.name, ref.key) for variable, ref in references if ref]


def _number(decimal: str | None) -> float | None:
    return None if decimal is None else float(decimal)
