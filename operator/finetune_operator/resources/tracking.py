"""Trackers of experiments that a training reports to, besides the product's own series."""

from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, SecretKeyRef, rule, rules
from finetune_operator.resources.provider import BaseUrl

TrackerName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][-_. A-Za-z0-9]*$")]


class MLflow(ApiModel):
    """An MLflow tracking server."""

    tracking_uri: BaseUrl
    """Its URL, without user and password."""
    experiment: TrackerName | None = None
    """Where the run goes; made if it is missing, spec.model where absent."""
    token_secret_ref: SecretKeyRef | None = None
    """Where the server's token is kept (MLFLOW_TRACKING_TOKEN)."""


class WandB(ApiModel):
    """Weights & Biases, hosted or one's own."""

    project: TrackerName
    """Where the run goes."""
    api_key_secret_ref: SecretKeyRef
    """Where the API key is kept (WANDB_API_KEY); only the training's own pod gets to see it."""
    entity: TrackerName | None = None
    """User or team that the project belongs to; the API key's own where absent."""
    base_url: BaseUrl | None = None
    """One's own server; the hosted one where absent."""


class ReportTo(ApiModel):
    """Where else to report. A tracker that is away is given up after some tries; the training goes on."""

    model_config = rules(
        rule(
            "has(self.mlflow) || has(self.wandb) || self.tensorBoard",
            "set tensorBoard, mlflow or wandb, or remove reportTo",
        )
    )

    tensor_board: bool = False
    """Write TensorBoard's event files beside the adapter, in `tensorboard/`."""
    mlflow: MLflow | None = None
    """A run named after the job; attempts at one job continue it."""
    wandb: WandB | None = None
    """The same at Weights & Biases."""
