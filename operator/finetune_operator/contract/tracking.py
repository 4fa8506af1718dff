"""Trackers of experiments that a trainer reports to; their keys come in the environment."""

from finetune_operator.contract.base import Message


class MLflowConfig(Message):
    """An MLflow tracking server; its token, if any, comes in MLFLOW_TRACKING_TOKEN."""

    tracking_uri: str
    experiment: str


class WandBConfig(Message):
    """Weights & Biases; the API key comes in WANDB_API_KEY."""

    project: str
    entity: str | None = None
    base_url: str | None = None


class TrackingConfig(Message):
    """Which of them."""

    tensor_board: bool = False
    mlflow: MLflowConfig | None = None
    wandb: WandBConfig | None = None
