"""What the installation decides for all resources; the shell reads it from the environment once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_operator.core.cost import PriceBook


@dataclass(frozen=True)
class OperatorConfig:
    """Images, names and limits that the chart sets."""

    operator_image: str
    trainer_image: str
    server_image: str
    axolotl_image: str = ""
    image_pull_policy: str = "IfNotPresent"
    artifacts_claim: str = "artifacts"
    base_models_claim: str = "models"
    hub_endpoint: str | None = None
    secret_name: str = "finetune-internal"  # noqa: S105 - a Secret's name
    workload_service_account: str = "finetune-workload"
    remote_service_account: str = "finetune-remote"
    api_url: str | None = None
    engine_args: tuple[str, ...] = ()
    engine_env: Mapping[str, str] = field(default_factory=dict)
    trainer_env: Mapping[str, str] = field(default_factory=dict)
    fetch_env: Mapping[str, str] = field(default_factory=dict)
    prices: PriceBook = field(default_factory=PriceBook)
    poll_seconds: float = 5.0
    # Times in a status are whole seconds, and a write comes a moment after its decision: never two in 10 s.
    progress_write_seconds: float = 12.0
    database_timeout_seconds: float = 60.0
    # How long a version that failed while it was active answers before it takes its alias again.
    steady_seconds: float = 120.0

    def trainer_image_of(self, backend: str) -> str:
        """The image that trains; Axolotl's packages go with no other backend's."""
        return self.axolotl_image if backend == "Axolotl" else self.trainer_image
