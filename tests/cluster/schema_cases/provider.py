"""Jobs and versions of a provider's models that the CRDs take, and those that they refuse."""

from typing import Any

from tests.cluster.samples import OTHER_DIGEST
from tests.cluster.schema_cases.case import Creation, Spec

PROVIDER_MODEL = "ft:gpt-4.1-mini-2025-04-14:my-org:plato:Bx1y2z3"
PROVIDER_SOURCE = {"volume": None, "openai": {"model": PROVIDER_MODEL}}
PROVIDER_KEY = {"name": "openai", "key": "api-key"}
TOLD = "a provider is told epochs, batchSize, seed and dpoBeta alone: remove what else training asks for"
PAIRED = "spec.openai goes with backend OpenAI: set both or neither"
NOT_HERE = "a model at a provider is neither loaded nor routed to here: remove state, or set Archived to retire it"
OURS = "baseModel.source.openai goes with backend OpenAI: set both or neither"
ARTIFACT = "volume:// goes with a digest, openai:// with a baseUrl"


def at_provider(openai: Spec | None = None, **changes: Any) -> Spec:
    """A job of backend OpenAI; `openai` is merged into its provider."""
    provider = {"secretRef": PROVIDER_KEY} | (openai or {})
    return {"backend": "OpenAI", "openai": provider, "baseModel": {"source": PROVIDER_SOURCE}} | changes


def version_at_provider(**changes: Any) -> Spec:
    """A version whose model a provider made and keeps."""
    artifact = {"uri": f"openai://{PROVIDER_MODEL}", "digest": None, "baseUrl": "https://api.openai.com/v1"}
    return {"baseModel": {"source": PROVIDER_SOURCE}, "artifact": artifact, "serving": None} | changes


def at_provider_with(**changes: Any) -> Spec:
    """The same with another artifact."""
    return version_at_provider(artifact=version_at_provider()["artifact"] | changes)


ACCEPTED = [
    Creation("a job at a provider", "FineTuneJob", at_provider()),
    Creation(
        "a job at another provider",
        "FineTuneJob",
        at_provider({"baseUrl": "http://tuner.ml.svc:8080/api/v1", "suffix": "p.1", "learningRateMultiplier": "0.3"}),
    ),
    Creation("a version at a provider", "ModelVersion", version_at_provider()),
    Creation(
        "a version at a provider that is not promoted",
        "ModelVersion",
        version_at_provider(promotion="Manual"),
    ),
    Creation("a version at a provider that is retired", "ModelVersion", version_at_provider(state="Archived")),
    Creation("no output of a provider's model", "FineTuneJob", at_provider(outputs=[])),
]

REFUSED = [
    Creation("a provider without its backend", "FineTuneJob", {"openai": {"secretRef": PROVIDER_KEY}}, refused=PAIRED),
    Creation("a backend without its provider", "FineTuneJob", at_provider() | {"openai": None}, refused=PAIRED),
    Creation(
        "a provider's model, trained here", "FineTuneJob", {"baseModel": {"source": PROVIDER_SOURCE}}, refused=OURS
    ),
    Creation("a volume's model at a provider", "FineTuneJob", at_provider(baseModel={}), refused=OURS),
    Creation("a provider without a key", "FineTuneJob", at_provider({"secretRef": None}), refused="Required value"),
    Creation(
        "a budget at a provider",
        "FineTuneJob",
        at_provider(budget={"maxCost": "25"}),
        refused="a provider tells what a training costs at its end, so that no budget can stop it: remove budget",
    ),
    Creation(
        "a provider's model that is served here",
        "FineTuneJob",
        at_provider(serving={}),
        refused="a model of backend OpenAI answers at its provider, not in this cluster: remove serving",
    ),
    Creation(
        "a provider's model that goes live",
        "FineTuneJob",
        at_provider(promotion="Always"),
        refused="the gateway has no route to a model of backend OpenAI: leave promotion Manual",
    ),
    Creation(
        "an evaluation of a provider's model",
        "FineTuneJob",
        at_provider(evaluation={"metrics": ["RougeL"]}),
        refused="a model of backend OpenAI can't be evaluated by the trainer: remove evaluation",
    ),
    Creation(
        "steps at a provider",
        "FineTuneJob",
        at_provider(training={"maxSteps": 10}),
        refused=TOLD,
    ),
    Creation(
        "arguments of TRL at a provider",
        "FineTuneJob",
        at_provider(training={"arguments": {"adam_beta2": "0.98"}}),
        refused=TOLD,
    ),
    Creation(
        "a password in a URL", "FineTuneJob", at_provider({"baseUrl": "https://me:pw@x/v1"}), refused="baseUrl in"
    ),
    Creation(
        "a key in a URL", "FineTuneJob", at_provider({"baseUrl": "https://x/v1?key=1"}), refused="baseUrl in body"
    ),
    Creation("a file for a URL", "FineTuneJob", at_provider({"baseUrl": "file:///etc"}), refused="baseUrl in body"),
    Creation("a suffix with a blank", "FineTuneJob", at_provider({"suffix": "a b"}), refused="suffix in body should"),
    Creation("a long suffix", "FineTuneJob", at_provider({"suffix": "s" * 65}), refused="suffix: Too long"),
    Creation(
        "a provider's model with a digest", "ModelVersion", at_provider_with(digest=OTHER_DIGEST), refused=ARTIFACT
    ),
    Creation(
        "merged weights of a provider's model",
        "ModelVersion",
        at_provider_with(mergedDigest=OTHER_DIGEST),
        refused="a model at a provider has no merged weights here: remove mergedDigest",
    ),
    Creation(
        "merged weights of a provider's model, served here",
        "FineTuneJob",
        at_provider(serving={"mergedWeights": True}),
        refused="a model of backend OpenAI answers at its provider, not in this cluster: remove serving",
    ),
    Creation("a provider's model without its URL", "ModelVersion", at_provider_with(baseUrl=None), refused=ARTIFACT),
    Creation(
        "an adapter of a provider's model",
        "ModelVersion",
        {"baseModel": {"source": PROVIDER_SOURCE}, "serving": None},
        refused="an artifact openai:// goes with baseModel.source.openai: set both or neither",
    ),
    Creation(
        "a provider's model in an engine",
        "ModelVersion",
        version_at_provider(serving={}),
        refused="a model at a provider answers there, not in this cluster: remove serving",
    ),
    Creation(
        "a provider's model that is pinned",
        "ModelVersion",
        version_at_provider(state="Deployed"),
        refused=NOT_HERE,
    ),
    Creation(
        "a provider's model that is to be loaded",
        "ModelVersion",
        version_at_provider(state="Ready"),
        refused=NOT_HERE,
    ),
    Creation(
        "a provider's model whose promotion has requirements",
        "ModelVersion",
        version_at_provider(evaluation={"require": ["RougeL >= 0.3"]}),
        refused="a model at a provider is neither measured nor promoted here: remove evaluation",
    ),
    Creation(
        "a provider's model that is promoted",
        "ModelVersion",
        version_at_provider(promotion="Always"),
        refused="the gateway has no route to a model at a provider: leave promotion Manual",
    ),
    Creation(
        "outputs of a provider's model",
        "FineTuneJob",
        at_provider(outputs=["UnslothScript"]),
        refused="a model of backend OpenAI stays at its provider: remove outputs",
    ),
    Creation(
        "nodes at a provider",
        "FineTuneJob",
        at_provider(nodes=2),
        refused="only the backends Unsloth and HuggingFace train on several nodes: set nodes to 1",
    ),
    Creation(
        "a provider that goes on from an adapter",
        "FineTuneJob",
        at_provider(initFrom={"modelVersion": "plato-v1"}),
        refused="a provider knows no adapter of this cluster: name a model of its own in baseModel.source.openai",
    ),
    Creation(
        "a provider that reports to a tracker",
        "FineTuneJob",
        at_provider(reportTo={"tensorBoard": True}),
        refused="backend OpenAI trains at its provider, which reports to no tracker: remove reportTo",
    ),
]
