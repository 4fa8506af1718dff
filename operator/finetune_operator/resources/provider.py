"""Backend OpenAI: the fine-tuning API that trains in place of a pod of this cluster."""

from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, PositiveDecimal, Rule, SecretKeyRef, rule

# No user, no password and no query: what is in a spec can be read by many.
BASE_URL_PATTERN = r"^https?://[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[-._~A-Za-z0-9]+)*$"
BaseUrl = Annotated[str, Field(max_length=512, pattern=BASE_URL_PATTERN)]
Suffix = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$")]

# Of spec.training, what has no default, so that it shows where somebody asks for it.
UNTOLD = ("maxSteps", "evalSteps", "earlyStopping", "warmupRatio", "optimizer", "neftuneNoiseAlpha")

# Of a FineTuneJob's spec. What the provider can't be told, or never gives back, is refused rather than ignored.
JOB_RULES: tuple[Rule, ...] = (
    rule(
        "(self.backend == 'OpenAI') == has(self.openai)",
        "spec.openai goes with backend OpenAI: set both or neither",
        field_path=".openai",
    ),
    rule(
        "(self.backend == 'OpenAI') == has(self.baseModel.source.openai)",
        "baseModel.source.openai goes with backend OpenAI: set both or neither",
        field_path=".baseModel.source",
    ),
    rule(
        "self.backend != 'OpenAI' || !has(self.serving)",
        "a model of backend OpenAI answers at its provider, not in this cluster: remove serving",
        field_path=".serving",
    ),
    rule(
        "self.backend != 'OpenAI' || self.promotion == 'Manual'",
        "the gateway has no route to a model of backend OpenAI: leave promotion Manual",
        field_path=".promotion",
    ),
    rule(
        "self.backend != 'OpenAI' || !has(self.evaluation)",
        "a model of backend OpenAI can't be evaluated by the trainer: remove evaluation",
        field_path=".evaluation",
    ),
    rule(
        "self.backend != 'OpenAI' || !("
        + " || ".join(f"has(self.training.{name})" for name in UNTOLD)
        + " || self.training.packing || (has(self.training.arguments) && size(self.training.arguments) > 0))",
        "a provider is told epochs, batchSize, seed and dpoBeta alone: remove what else training asks for",
        field_path=".training",
    ),
)

# Of a ModelVersion's spec.
VERSION_RULES: tuple[Rule, ...] = (
    rule(
        "self.artifact.uri.startsWith('openai://') == has(self.baseModel.source.openai)",
        "an artifact openai:// goes with baseModel.source.openai: set both or neither",
        field_path=".artifact.uri",
    ),
    rule(
        "!self.artifact.uri.startsWith('openai://') || !has(self.serving)",
        "a model at a provider answers there, not in this cluster: remove serving",
        field_path=".serving",
    ),
    rule(
        "!self.artifact.uri.startsWith('openai://') || !has(self.state) || self.state == 'Archived'",
        "a model at a provider is neither loaded nor routed to here: remove state, or set Archived to retire it",
        field_path=".state",
    ),
    rule(
        "!self.artifact.uri.startsWith('openai://') || !has(self.evaluation)",
        "a model at a provider is neither measured nor promoted here: remove evaluation",
        field_path=".evaluation",
    ),
    rule(
        "!self.artifact.uri.startsWith('openai://') || self.promotion == 'Manual'",
        "the gateway has no route to a model at a provider: leave promotion Manual",
        field_path=".promotion",
    ),
)
ARTIFACT_RULE = rule(
    "self.uri.startsWith('openai://') ? (has(self.baseUrl) && !has(self.digest)) : "
    "(has(self.digest) && !has(self.baseUrl))",
    "volume:// goes with a digest, openai:// with a baseUrl",
)

MERGED_RULE = rule(
    "!has(self.mergedDigest) || !self.uri.startsWith('openai://')",
    "a model at a provider has no merged weights here: remove mergedDigest",
    field_path=".mergedDigest",
)


class OpenAIProvider(ApiModel):
    """An OpenAI-compatible fine-tuning API.

    Of spec.training it is told epochs, batchSize, seed and (DPO) dpoBeta; the shape of the adapter and all else is the
    provider's own affair. What it trained stays there. spec.suspend frees the pod and lets the provider train on,
    spec.cancel or deleting the FineTuneJob cancels there too, by a Job of its own where no pod runs.
    """

    secret_ref: SecretKeyRef
    """Where the API key is kept; only the training's own pod gets to see it."""
    base_url: BaseUrl = "https://api.openai.com/v1"
    """The API, up to and with its version."""
    suffix: Suffix | None = None
    """Becomes a part of the model's name at the provider; spec.model where absent."""
    learning_rate_multiplier: PositiveDecimal | None = None
    """Scales the provider's learning rate; the provider chooses where absent."""
