"""Training on from an adapter that was published before."""

from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, DnsLabel, Rule, Sha256, rule

# Of a FineTuneJob's spec.
STARTING_RULES: tuple[Rule, ...] = (
    rule(
        "self.backend != 'OpenAI' || !has(self.initFrom)",
        "a provider knows no adapter of this cluster: name a model of its own in baseModel.source.openai",
        field_path=".initFrom",
    ),
    rule(
        "self.backend != 'OpenAI' || !has(self.reportTo)",
        "backend OpenAI trains at its provider, which reports to no tracker: remove reportTo",
        field_path=".reportTo",
    ),
)


class InitFrom(ApiModel):
    """Where the training begins. Base model, rank, alpha and target modules have to be those of that version."""

    model_version: DnsLabel
    """A ModelVersion in the same namespace, such as plato-v1."""


class InitFromStatus(ApiModel):
    """What spec.initFrom was when the training began: it goes on from there, whatever becomes of that version."""

    model_version: DnsLabel
    """The ModelVersion's name."""
    path: Annotated[str, Field(max_length=1152)]
    """Where the trainer sees the adapter's directory."""
    digest: Sha256
    """Digest of the adapter."""


class StartingPoint(ApiModel):
    """Where a training began."""

    model_version: DnsLabel
    """The ModelVersion's name."""
    digest: Sha256
    """Digest of the adapter that was loaded."""
