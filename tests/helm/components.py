"""The processes that the chart starts: their containers, and the variables that each has to read."""

from typing import Any

from tests.helm.conftest import Manifest, named

COMMON_VARIABLES = {"FINETUNE_NAMESPACES", "FINETUNE_LOG_LEVEL", "FINETUNE_INTERNAL_TOKEN"}
SHADOWS = "FINETUNE_SHADOWS_AT_ONCE"
LIMITS = {"FINETUNE_REQUESTS_PER_MINUTE", "FINETUNE_TOKENS_PER_MINUTE", "FINETUNE_REQUESTS_AT_ONCE"}
VARIABLES = {
    "operator": COMMON_VARIABLES
    | {
        "FINETUNE_API_URL",
        "VLLM_API_KEY",
        "FINETUNE_OPERATOR_IMAGE",
        "FINETUNE_TRAINER_IMAGE",
        "FINETUNE_AXOLOTL_IMAGE",
        "FINETUNE_SERVER_IMAGE",
        "FINETUNE_IMAGE_PULL_POLICY",
        "FINETUNE_ARTIFACTS_CLAIM",
        "FINETUNE_BASE_MODELS_CLAIM",
        "FINETUNE_HUB_ENDPOINT",
        "FINETUNE_FETCH_ENV",
        "FINETUNE_SECRET_NAME",
        "FINETUNE_WORKLOAD_SERVICE_ACCOUNT",
        "FINETUNE_REMOTE_SERVICE_ACCOUNT",
        "FINETUNE_ENGINE_ARGS",
        "FINETUNE_ENGINE_ENV",
        "FINETUNE_TRAINER_ENV",
        "FINETUNE_PRICES",
        "FINETUNE_METRICS_PORT",
        "FINETUNE_POLL_SECONDS",
        "FINETUNE_STEADY_SECONDS",
    },
    "gateway": COMMON_VARIABLES
    | {"VLLM_API_KEY", "FINETUNE_API_URL", "FINETUNE_DRAIN_DELAY_SECONDS"}
    | LIMITS
    | {SHADOWS},
    "api": COMMON_VARIABLES
    | {
        "FINETUNE_DATABASE_URL",
        "FINETUNE_GATEWAY_URL",
        "FINETUNE_API_TOKEN",
        "FINETUNE_RATINGS_URL_FILE",
        "FINETUNE_DATASETS_DIRECTORY",
        "FINETUNE_DATASETS_MAX_COUNT",
        "FINETUNE_DATASETS_MAX_BYTES",
        "FINETUNE_FILE_MAX_BYTES",
        "FINETUNE_FILES_MAX_BYTES",
        "FINETUNE_FILES_NAMESPACE_MAX_BYTES",
        "FINETUNE_PRICES",
    },
}


def container(manifests: list[Manifest], component: str) -> dict[str, Any]:
    (only,) = named(manifests, "Deployment", f"finetune-{component}")["spec"]["template"]["spec"]["containers"]
    return dict(only)


def environment(manifests: list[Manifest], component: str) -> dict[str, Any]:
    """Values of plain variables, references of the others."""
    variables = container(manifests, component)["env"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in variables}
