"""What the API server accepts and refuses by the CRDs alone, and what kubectl shows of it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from finetune_operator.kube.errors import Rejected
from finetune_operator.kube.paths import PLURALS
from finetune_operator.resources import batch_inference as batch_inference_model
from finetune_operator.resources.evaluation import Metric
from finetune_operator.resources.finetunejob import IMMUTABLE_FIELDS
from tests.cluster import batch_cases, evaluation_cases, training_cases
from tests.cluster.control_plane import REPOSITORY, CommandFailed, ControlPlane
from tests.cluster.samples import (
    OTHER_DIGEST,
    ab_test,
    base_model,
    batch_inference,
    fine_tune_job,
    merged,
    model_version,
)

SAMPLES = {
    "FineTuneJob": fine_tune_job,
    "ModelVersion": model_version,
    "ABTest": ab_test,
    "BatchInference": batch_inference,
}
METRICS = [metric.value for metric in Metric]
EVERY_METRIC_REQUIRED = [f"{name} >= 0.{index}" for index, name in enumerate(METRICS)]
VOLUME = {"claimName": "datasets", "path": "plato/train.jsonl"}

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Creation:
    """A resource that differs from the valid sample, and what the refusal says."""

    title: str
    kind: str
    spec: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Update:
    """A patch of a resource's spec, and what the refusal says."""

    title: str
    kind: str
    patch: dict[str, Any]
    created: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    status: dict[str, Any] | None = None


def dataset(**changes: Any) -> dict[str, Any]:
    return {"dataset": changes}


def on_volume(path: str) -> dict[str, Any]:
    return {"dataset": {"ratings": None, "volume": {"claimName": "datasets", "path": path}}}


def stored(url: str, **changes: Any) -> dict[str, Any]:
    return {"dataset": {"ratings": None, "s3": {"url": url, **changes}}}


def artifact(**changes: str) -> dict[str, Any]:
    return {"artifact": changes}


def evaluation(**changes: Any) -> dict[str, Any]:
    return {"evaluation": changes}


def hub(**changes: Any) -> dict[str, Any]:
    """A base model of the hub instead of one on a volume."""
    return {"baseModel": {"source": {"volume": None, "hub": {"id": "Qwen/Qwen3-0.6B"} | changes}}}


def two_sources() -> dict[str, Any]:
    return {"baseModel": {"source": {"hub": {"id": "Qwen/Qwen3-0.6B"}}}}


PROVIDER_MODEL = "ft:gpt-4.1-mini-2025-04-14:my-org:plato:Bx1y2z3"
PROVIDER_SOURCE = {"volume": None, "openai": {"model": PROVIDER_MODEL}}
PROVIDER_KEY = {"name": "openai", "key": "api-key"}


def at_provider(openai: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A job of backend OpenAI; `openai` is merged into its provider."""
    provider = {"secretRef": PROVIDER_KEY} | (openai or {})
    return {"backend": "OpenAI", "openai": provider, "baseModel": {"source": PROVIDER_SOURCE}} | changes


def version_at_provider(**changes: Any) -> dict[str, Any]:
    """A version whose model a provider made and keeps."""
    artifact = {"uri": f"openai://{PROVIDER_MODEL}", "digest": None, "baseUrl": "https://api.openai.com/v1"}
    return {"baseModel": {"source": PROVIDER_SOURCE}, "artifact": artifact, "serving": None} | changes


def at_provider_with(**changes: Any) -> dict[str, Any]:
    """The same with another artifact."""
    return version_at_provider(artifact=version_at_provider()["artifact"] | changes)


COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"
HUB_REVISION = "baseModel.source.hub.revision must be the commit, 40 hexadecimal digits: a branch or tag may move on"
BASE_MODEL_SOURCES = "set exactly one of volume, hub, openai"
TOLD = "a provider is told epochs, batchSize, seed and dpoBeta alone: remove what else training asks for"
PAIRED = "spec.openai goes with backend OpenAI: set both or neither"
NOT_HERE = "a model at a provider is neither loaded nor routed to here: remove state, or set Archived to retire it"
OURS = "baseModel.source.openai goes with backend OpenAI: set both or neither"
ARTIFACT = "volume:// goes with a digest, openai:// with a baseUrl"
JOB_NAME_TOO_LONG = "metadata.name must have at most 52 characters"
NO_SERVICE_NAME = "with more than one node, metadata.name must begin with a letter and have no dot"
CANCELLED = "a cancelled job can't be taken up again: create a new one"
VERSION_NAME = "metadata.name must be <spec.model>-v<spec.version>"

ACCEPTED = [
    Creation("a job on ratings", "FineTuneJob"),
    Creation("a job on a volume", "FineTuneJob", {"dataset": {"ratings": None, "volume": VOLUME}}),
    Creation("a job with a name of 52 characters", "FineTuneJob", name="a" * 52),
    Creation("a rank as large as the engine takes", "FineTuneJob", {"lora": {"r": 32}, "serving": {"maxLoraRank": 32}}),
    Creation("a large rank without serving", "FineTuneJob", {"lora": {"r": 512}}),
    Creation("a learning rate in scientific notation", "FineTuneJob", {"training": {"learningRate": "2e-4"}}),
    Creation("a job without a dataset", "FineTuneJob", {"dataset": None}),
    Creation("ratings without a secret", "FineTuneJob", dataset(ratings={"secretRef": None})),
    Creation("the surest ratings", "FineTuneJob", dataset(ratings={"minConfidence": "0.95"})),
    Creation("a bound on characters", "FineTuneJob", dataset(maxCharacters=20_000)),
    Creation("a bound on bytes", "FineTuneJob", dataset(maxBytes=10**12)),
    Creation("raw rows", "FineTuneJob", dataset(format="RawJSONL")),
    Creation("instructions with metadata", "FineTuneJob", dataset(format="Instruction")),
    Creation("a public object", "FineTuneJob", stored("s3://bucket/rows.jsonl")),
    Creation(
        "an object of a store of one's own",
        "FineTuneJob",
        stored("s3://bucket/a/rows.parquet", endpoint="http://minio.storage:9000", secretRef={"name": "store"}),
    ),
    Creation("a whole test fraction", "FineTuneJob", dataset(testFraction="0")),
    Creation("a GPU", "FineTuneJob", {"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "16Gi"}}}),
    Creation("a priority", "FineTuneJob", {"scheduling": {"priorityClassName": "research"}}),
    Creation("a file with dots in its name", "FineTuneJob", on_volume("a.b/c..d.jsonl")),
    Creation("an evaluation", "FineTuneJob", evaluation(metrics=["RougeL", "TokenF1"], maxExamples=7, maxNewTokens=9)),
    Creation("an evaluation of a day", "FineTuneJob", evaluation(metrics=["RougeL"], timeoutSeconds=86_400)),
    Creation("every metric, each required", "FineTuneJob", evaluation(metrics=METRICS, require=EVERY_METRIC_REQUIRED)),
    Creation("a loss that has to fall", "FineTuneJob", evaluation(require=["evalLoss < base", "evalLoss <= 2.5"])),
    Creation("a version that has to be good", "ModelVersion", evaluation(require=["Rouge1 > base", "Bleu >= 1"])),
    Creation("a model of the hub", "FineTuneJob", hub()),
    Creation("a pull request of the hub", "FineTuneJob", hub(revision="refs/pr/1")),
    Creation("a gated model", "FineTuneJob", hub(tokenSecretRef={"name": "hub", "key": "token"})),
    Creation("a version on a commit of the hub", "ModelVersion", hub(revision=COMMIT)),
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
    Creation("a pinned version that is to be served later", "ModelVersion", {"state": "Deployed", "serving": None}),
    Creation("a promoted version that is to be served later", "ModelVersion", {"promotion": "Always", "serving": None}),
    Creation("a version that is served", "ModelVersion"),
    Creation("a version that is only registered", "ModelVersion", {"serving": None}),
    Creation("a version with a high number", "ModelVersion", name="plato-v999999"),
    Creation("a version of a model with a hyphen and a v", "ModelVersion", name="plato-v2-v7"),
    Creation("an archived version", "ModelVersion", {"state": "Archived"}, name="plato-v3"),
    Creation("two versions compared", "ABTest"),
    Creation("the base model as baseline", "ABTest", {"baseline": {"modelVersion": None, "base": True}}),
    Creation("no traffic", "ABTest", {"traffic": {"candidatePercent": 0}}),
    Creation("all traffic", "ABTest", {"traffic": {"candidatePercent": 100}}),
    Creation("copies beside a split", "ABTest", {"traffic": {"candidatePercent": 20, "shadowPercent": 100}}),
    Creation("copies alone", "ABTest", {"traffic": {"shadowPercent": 10}}),
    Creation("copies that people judge", "ABTest", {"traffic": {"shadowPercent": 10, "pairPercent": 100}}),
    Creation("copies that nobody judges", "ABTest", {"traffic": {"candidatePercent": 20, "pairPercent": 0}}),
    Creation(
        "copies of what the base model answers beside a split",
        "ABTest",
        {"traffic": {"candidatePercent": 1, "shadowPercent": 10}, "baseline": {"modelVersion": None, "base": True}},
    ),
    Creation("as many votes at least as at most", "ABTest", {"decision": {"minVotes": 5, "maxVotes": 5}}),
    Creation("a test of a fixed size", "ABTest", {"decision": {"method": "ChiSquared", "maxVotes": 100}}),
    Creation("weights", "ABTest", {"decision": {"weights": {"accuracy": 60, "latency": 20, "cost": 20}}}),
    Creation("a single weight", "ABTest", {"decision": {"weights": {"accuracy": 100}}}),
    Creation("limits of samples", "ABTest", {"decision": {"minSamplesPerArm": 5, "maxSamplesPerArm": 5}}),
    Creation("guardrails", "ABTest", {"guardrails": {"maxErrorRate": "0.02", "maxLatencyRatio": "1.5"}}),
    Creation("one guardrail", "ABTest", {"guardrails": {"maxLatencyRatio": "0.75"}}),
    Creation("a rollback to a version", "ABTest", {"onLoss": "Rollback"}),
]

REFUSED = [
    Creation(
        "no dataset source", "FineTuneJob", dataset(ratings=None), refused="set exactly one of ratings, volume, s3"
    ),
    Creation(
        "two dataset sources", "FineTuneJob", dataset(volume=VOLUME), refused="set exactly one of ratings, volume"
    ),
    Creation("no base model", "FineTuneJob", {"baseModel": None}, refused="spec.baseModel: Required value"),
    Creation("no model", "FineTuneJob", {"model": None}, refused="spec.model: Required value"),
    Creation("a base model without a source", "FineTuneJob", {"baseModel": {"source": None}}, refused="Required value"),
    Creation(
        "a base model from nowhere",
        "FineTuneJob",
        {"baseModel": {"source": {"volume": None}}},
        refused=BASE_MODEL_SOURCES,
    ),
    Creation("a base model from two places", "FineTuneJob", two_sources(), refused=BASE_MODEL_SOURCES),
    Creation("a hub's model without an owner", "FineTuneJob", hub(id="gpt2"), refused="hub.id in body should match"),
    Creation("a hub's model by its address", "FineTuneJob", hub(id="https://hub/a/b"), refused="id in body should"),
    Creation("a hub's model that climbs", "FineTuneJob", hub(id="../x"), refused="hub.id in body should match"),
    Creation("a revision that climbs", "FineTuneJob", hub(revision="../main"), refused="revision in body should match"),
    Creation("a token in the spec", "FineTuneJob", hub(tokenSecretRef={"name": "hub"}), refused="Required value"),
    Creation("a version on a branch of the hub", "ModelVersion", hub(revision="main"), refused=HUB_REVISION),
    Creation("a version on no revision", "ModelVersion", hub(), refused=HUB_REVISION),
    Creation("a version on a short commit", "ModelVersion", hub(revision=COMMIT[:7]), refused=HUB_REVISION),
    Creation("a path that climbs", "FineTuneJob", on_volume("../secrets"), refused="volume.path in body should match"),
    Creation("a path that climbs inside", "FineTuneJob", on_volume("a/../../b"), refused="path in body should match"),
    Creation("an absolute path", "FineTuneJob", on_volume("/etc/passwd"), refused="path in body should match"),
    Creation("an empty path", "FineTuneJob", on_volume(""), refused="path in body should"),
    Creation("a model in capitals", "FineTuneJob", {"model": "Plato"}, refused="spec.model in body should match"),
    Creation("a long model name", "FineTuneJob", {"model": "p" * 41}, refused="spec.model: Too long"),
    Creation("a job with a name of 53 characters", "FineTuneJob", name="a" * 53, refused=JOB_NAME_TOO_LONG),
    Creation("an unknown method", "FineTuneJob", {"method": "PPO"}, refused='supported values: "SFT", "DPO"'),
    Creation("an unknown backend", "FineTuneJob", {"backend": "DeepSpeed"}, refused="supported values"),
    Creation("a provider without its backend", "FineTuneJob", {"openai": {"secretRef": PROVIDER_KEY}}, refused=PAIRED),
    Creation("a backend without its provider", "FineTuneJob", at_provider() | {"openai": None}, refused=PAIRED),
    Creation(
        "a provider's model, trained here", "FineTuneJob", {"baseModel": {"source": PROVIDER_SOURCE}}, refused=OURS
    ),
    Creation("a volume's model at a provider", "FineTuneJob", at_provider(baseModel={}), refused=OURS),
    Creation("a provider without a key", "FineTuneJob", at_provider({"secretRef": None}), refused="Required value"),
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
    Creation("a provider's model without its URL", "ModelVersion", at_provider_with(baseUrl=None), refused=ARTIFACT),
    Creation("an adapter without a digest", "ModelVersion", {"artifact": {"digest": None}}, refused=ARTIFACT),
    Creation("an adapter with a URL", "ModelVersion", artifact(baseUrl="https://x/v1"), refused=ARTIFACT),
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
    Creation("an unknown promotion", "FineTuneJob", {"promotion": "Never"}, refused="supported values"),
    Creation(
        "a rank beyond the engine's",
        "FineTuneJob",
        {"lora": {"r": 32}, "serving": {"maxLoraRank": 16}},
        refused="lora.r is beyond serving.maxLoraRank: lower r or raise maxLoraRank",
    ),
    Creation("a rank of 0", "FineTuneJob", {"lora": {"r": 0}}, refused="greater than or equal to 1"),
    Creation("a rank of 513", "FineTuneJob", {"lora": {"r": 513}}, refused="less than or equal to 512"),
    Creation("a dropout above 1", "FineTuneJob", {"lora": {"dropout": "1.5"}}, refused="dropout in body should match"),
    Creation("a dropout as a number", "FineTuneJob", {"lora": {"dropout": 0.05}}, refused="must be of type string"),
    Creation("a negative fraction", "FineTuneJob", dataset(testFraction="-0.1"), refused="testFraction in body should"),
    Creation("a wordy learning rate", "FineTuneJob", {"training": {"learningRate": "fast"}}, refused="should match"),
    Creation("no epochs", "FineTuneJob", {"training": {"epochs": 0}}, refused="greater than or equal to 1"),
    Creation("a rating of 6", "FineTuneJob", dataset(ratings={"minRating": 6}), refused="less than or equal to 5"),
    Creation("a rating of 0", "FineTuneJob", dataset(ratings={"minRating": 0}), refused="greater than or equal to 1"),
    Creation(
        "ratings with half a secret",
        "FineTuneJob",
        dataset(ratings={"secretRef": {"name": "ratings", "key": None}}),
        refused="Required value",
    ),
    Creation("too sure", "FineTuneJob", dataset(ratings={"minConfidence": "1.1"}), refused="minConfidence in body"),
    Creation("no characters", "FineTuneJob", dataset(maxCharacters=0), refused="greater than or equal to 1"),
    Creation("no bytes", "FineTuneJob", dataset(maxBytes=0), refused="greater than or equal to 1"),
    Creation(
        "an object of no store", "FineTuneJob", stored("https://store/bucket/rows.jsonl"), refused="s3.url in body"
    ),
    Creation("a bucket without a key", "FineTuneJob", stored("s3://bucket/"), refused="s3.url in body"),
    Creation(
        "a store with credentials in its address",
        "FineTuneJob",
        stored("s3://bucket/rows.jsonl", endpoint="https://user:password@store"),
        refused="s3.endpoint in body",
    ),
    Creation("an unknown format", "FineTuneJob", dataset(format="CSV"), refused="Unsupported value"),
    Creation(
        "a quantity in words",
        "FineTuneJob",
        {"resources": {"limits": {"memory": "lots"}}},
        refused="limits.memory in body should match",
    ),
    Creation(
        "a priority in words",
        "FineTuneJob",
        {"scheduling": {"priorityClassName": "very high"}},
        refused="priorityClassName in body should match",
    ),
    Creation("a deadline of 0 s", "FineTuneJob", {"activeDeadlineSeconds": 0}, refused="greater than or equal to 1"),
    Creation(
        "a time to live of 1 s", "FineTuneJob", {"ttlSecondsAfterFinished": 1}, refused="greater than or equal to 60"
    ),
    Creation(
        "an evaluation of nothing",
        "FineTuneJob",
        evaluation(maxExamples=7),
        refused="name at least one of metrics or require",
    ),
    Creation("an unknown metric", "FineTuneJob", evaluation(metrics=["Perplexity"]), refused="supported values"),
    Creation("a metric twice", "FineTuneJob", evaluation(metrics=["F1", "F1"]), refused="Duplicate value"),
    Creation(
        "no examples", "FineTuneJob", evaluation(metrics=["F1"], maxExamples=0), refused="greater than or equal to 1"
    ),
    Creation(
        "answers of any length",
        "FineTuneJob",
        evaluation(metrics=["F1"], maxNewTokens=8193),
        refused="less than or equal",
    ),
    Creation(
        "an evaluation without time",
        "FineTuneJob",
        evaluation(metrics=["F1"], timeoutSeconds=0),
        refused="greater than or equal to 1",
    ),
    Creation(
        "an evaluation of a month",
        "FineTuneJob",
        evaluation(metrics=["F1"], timeoutSeconds=2_592_000),
        refused="less than or equal to 604800",
    ),
    Creation(
        "a requirement on what is not measured",
        "FineTuneJob",
        evaluation(metrics=["Rouge1"], require=["RougeL >= 0.3"]),
        refused="require names a metric that is not measured: add it to metrics",
    ),
    Creation(
        "a metric that begins like another",
        "FineTuneJob",
        evaluation(metrics=["F1"], require=["F1 > base", "TokenF1 > base"]),
        refused="require names a metric that is not measured: add it to metrics",
    ),
    Creation(
        "an evaluation without held-out rows",
        "FineTuneJob",
        dataset(testFraction="0.0") | evaluation(require=["evalLoss < base"]),
        refused="evaluation needs held-out rows: set dataset.testFraction above 0",
    ),
    *(
        Creation(title, kind, evaluation(metrics=["RougeL"], require=[text]), refused="should match")
        for kind in ("FineTuneJob", "ModelVersion")
        for title, text in {
            f"a requirement of a {kind} without a bound": "RougeL >=",
            f"a requirement of a {kind} on equality": "RougeL == 0.3",
            f"a requirement of a {kind} without spaces": "RougeL>=0.3",
            f"a requirement of a {kind} that is negative": "evalLoss < -1",
            f"a requirement of a {kind} with more behind it": "RougeL >= 0.3 or so",
            f"a requirement of a {kind} on an unknown metric": "Perplexity < 9",
        }.items()
    ),
    Creation("another number in the name", "ModelVersion", {"version": 2}, refused=VERSION_NAME),
    Creation("another model in the name", "ModelVersion", {"model": "kant"}, refused=VERSION_NAME),
    Creation("a name with a leading zero", "ModelVersion", name="plato-v01", refused=VERSION_NAME),
    Creation("version 0", "ModelVersion", name="plato-v0", refused="greater than or equal to 1"),
    Creation("less than no bytes", "ModelVersion", {"artifact": {"sizeBytes": -1}}, refused="or equal to 0"),
    Creation("a short digest", "ModelVersion", artifact(digest="sha256:abc"), refused="digest in body should match"),
    Creation("a digest in capitals", "ModelVersion", artifact(digest="sha256:" + "A" * 64), refused="should match"),
    Creation("an adapter from the web", "ModelVersion", artifact(uri="https://x/y"), refused="uri in body should"),
    Creation("an adapter outside", "ModelVersion", artifact(uri="volume://artifacts/../x"), refused="uri in body"),
    Creation("an adapter without a path", "ModelVersion", artifact(uri="volume://artifacts"), refused="uri in body"),
    Creation("an unknown state", "ModelVersion", {"state": "Gone"}, refused="supported values"),
    Creation(
        "no time to become ready",
        "ModelVersion",
        {"serving": {"progressDeadlineSeconds": 0}},
        refused="greater than or equal to 1",
    ),
    Creation("no replicas", "ModelVersion", {"serving": {"replicas": 0}}, refused="greater than or equal to 1"),
    Creation(
        "more than all GPU memory",
        "ModelVersion",
        {"serving": {"gpuMemoryUtilization": "1.1"}},
        refused="gpuMemoryUtilization in body should match",
    ),
    Creation(
        "no baseline", "ABTest", {"baseline": {"modelVersion": None}}, refused="exactly one of base, modelVersion"
    ),
    Creation("two baselines", "ABTest", {"baseline": {"base": True}}, refused="set exactly one of base, modelVersion"),
    Creation(
        "a false base",
        "ABTest",
        {"baseline": {"modelVersion": None, "base": False}},
        refused="base can only be true; otherwise name a modelVersion",
    ),
    Creation(
        "a version against itself",
        "ABTest",
        {"candidate": {"modelVersion": "plato-v1"}},
        refused="baseline and candidate must be different versions",
    ),
    Creation(
        "a candidate of another model",
        "ABTest",
        {"candidate": {"modelVersion": "kant-v1"}},
        refused="candidate must be a version of spec.model",
    ),
    Creation(
        "a baseline of another model",
        "ABTest",
        {"baseline": {"modelVersion": "kant-v1"}},
        refused="baseline must be a version of spec.model",
    ),
    Creation("less than no traffic", "ABTest", {"traffic": {"candidatePercent": -1}}, refused="or equal to 0"),
    Creation("more than all traffic", "ABTest", {"traffic": {"candidatePercent": 101}}, refused="or equal to 100"),
    Creation("more copies than requests", "ABTest", {"traffic": {"shadowPercent": 101}}, refused="or equal to 100"),
    Creation(
        "more judged than copied",
        "ABTest",
        {"traffic": {"shadowPercent": 10, "pairPercent": 101}},
        refused="or equal to 100",
    ),
    Creation(
        "judged without being copied",
        "ABTest",
        {"traffic": {"candidatePercent": 20, "pairPercent": 10}},
        refused="pairPercent is of the copied requests: raise shadowPercent, too",
    ),
    Creation(
        "less than none judged",
        "ABTest",
        {"traffic": {"shadowPercent": 10, "pairPercent": -1}},
        refused="or equal to 0",
    ),
    Creation("less than no copies", "ABTest", {"traffic": {"shadowPercent": -1}}, refused="or equal to 0"),
    Creation(
        "copies alone of what the base model answers",
        "ABTest",
        {"traffic": {"shadowPercent": 10}, "baseline": {"modelVersion": None, "base": True}},
        refused="shadowPercent alone copies what the active version answers: "
        "name it in baseline.modelVersion, or raise candidatePercent",
    ),
    Creation(
        "more votes at least than at most",
        "ABTest",
        {"decision": {"minVotes": 11, "maxVotes": 10}},
        refused="minVotes must not be larger than maxVotes",
    ),
    Creation("an alpha of 0", "ABTest", {"decision": {"alpha": "0.00"}}, refused="alpha in body should match"),
    Creation("an alpha of 1", "ABTest", {"decision": {"alpha": "1.0"}}, refused="alpha in body should match"),
    Creation("an alpha as a number", "ABTest", {"decision": {"alpha": 0.05}}, refused="must be of type string"),
    Creation("an unknown consequence", "ABTest", {"onWin": "Delete"}, refused="supported values"),
    Creation("an unknown consequence of a loss", "ABTest", {"onLoss": "Delete"}, refused="supported values"),
    Creation(
        "a rollback to a base model",
        "ABTest",
        {"onLoss": "Rollback", "baseline": {"modelVersion": None, "base": True}},
        refused="onLoss Rollback needs baseline.modelVersion: name a version to go back to, or set onLoss to Keep",
    ),
    Creation("an unknown statistic", "ABTest", {"decision": {"method": "Feeling"}}, refused="supported values"),
    Creation(
        "weights of 90 percent",
        "ABTest",
        {"decision": {"weights": {"accuracy": 60, "latency": 20, "cost": 10}}},
        refused="weights must sum to 100: change accuracy, latency or cost",
    ),
    Creation("no weights in weights", "ABTest", {"decision": {"weights": {}}}, refused="weights must sum to 100"),
    Creation(
        "a negative weight",
        "ABTest",
        {"decision": {"weights": {"accuracy": 120, "latency": -20}}},
        refused="greater than or equal to 0",
    ),
    Creation(
        "more samples at least than at most",
        "ABTest",
        {"decision": {"minSamplesPerArm": 31, "maxSamplesPerArm": 30}},
        refused="minSamplesPerArm must not be larger than maxSamplesPerArm",
    ),
    Creation("no samples", "ABTest", {"decision": {"minSamplesPerArm": 0}}, refused="greater than or equal to 1"),
    Creation("no errors ever", "ABTest", {"guardrails": {"maxErrorRate": "0"}}, refused="maxErrorRate in body should"),
    Creation("only errors", "ABTest", {"guardrails": {"maxErrorRate": "1.0"}}, refused="maxErrorRate in body should"),
    Creation("no latency", "ABTest", {"guardrails": {"maxLatencyRatio": "0.0"}}, refused="maxLatencyRatio in body"),
    Creation("a test with a name of 53 characters", "ABTest", name="a" * 53, refused=JOB_NAME_TOO_LONG),
    Creation("a batch with a name of 53 characters", "BatchInference", name="a" * 53, refused=JOB_NAME_TOO_LONG),
]

ACCEPTED += [Creation(title, "FineTuneJob", spec) for title, spec in training_cases.ACCEPTED.items()]
ACCEPTED += [Creation(title, "ModelVersion", spec) for title, spec in evaluation_cases.ACCEPTED.items()]
ACCEPTED += [Creation(title, "BatchInference", spec) for title, spec in batch_cases.ACCEPTED.items()]
REFUSED += [
    Creation(title, "BatchInference", spec, refused=refusal) for title, (spec, refusal) in batch_cases.REFUSED.items()
]
REFUSED += [
    Creation(title, "ModelVersion", spec, refused=refusal)
    for title, (spec, refusal) in evaluation_cases.REFUSED.items()
]
REFUSED += [
    Creation(title, "FineTuneJob", spec, refused=refusal) for title, (spec, refusal) in training_cases.REFUSED.items()
]
REFUSED += [
    Creation(title, "FineTuneJob", at_provider(**spec), refused=refusal)
    for title, (spec, refusal) in training_cases.AT_PROVIDER.items()
]
ACCEPTED += [
    Creation("a long name, with ten nodes", "FineTuneJob", {"nodes": 10}, name="b" * 52),
    Creation("a name for the pods of eleven nodes", "FineTuneJob", {"nodes": 11}, name="a" * 51),
    Creation("a name for a Service", "FineTuneJob", {"nodes": 2}, name="plato-7b"),
    Creation("a digit first and a dot, on one node", "FineTuneJob", name="7b-chat.2026"),
    Creation(
        "every output",
        "FineTuneJob",
        {"outputs": ["MergedWeights", "GgufF16", "GgufQ8", "OllamaModelfile", "UnslothScript"]},
    ),
    Creation("no output of a provider's model", "FineTuneJob", at_provider(outputs=[])),
]
REFUSED += [
    Creation(
        "a name too long for the pods of eleven nodes",
        "FineTuneJob",
        {"nodes": 11},
        name="a" * 52,
        refused="with more than 10 nodes, metadata.name must have at most 51 characters",
    ),
    Creation("a digit first, on two nodes", "FineTuneJob", {"nodes": 2}, name="7b-chat", refused=NO_SERVICE_NAME),
    Creation("a dot, on two nodes", "FineTuneJob", {"nodes": 2}, name="plato.2026", refused=NO_SERVICE_NAME),
    Creation("an unknown output", "FineTuneJob", {"outputs": ["Gguf"]}, refused='Unsupported value: "Gguf"'),
    Creation("an output twice", "FineTuneJob", {"outputs": ["UnslothScript"] * 2}, refused="Duplicate value"),
    Creation(
        "outputs of a provider's model",
        "FineTuneJob",
        at_provider(outputs=["UnslothScript"]),
        refused="a model of backend OpenAI stays at its provider: remove outputs",
    ),
]

CHANGED_JOB: dict[str, Any] = {
    "model": "kant",
    "baseModel": base_model("other"),
    "method": "DPO",
    "backend": "HuggingFace",
    "openai": {"secretRef": PROVIDER_KEY},
    "dataset": {"minExamples": 7},
    "initFrom": {"modelVersion": "plato-v7"},
    "lora": {"r": 8},
    "training": {"seed": 7},
    "reportTo": {"tensorBoard": True},
    "evaluation": {"metrics": ["F1"]},
    "outputs": ["UnslothScript"],
    "resources": {"limits": {"memory": "1Gi"}},
    "nodes": 2,
    "scheduling": {"nodeSelector": {"disk": "fast"}},
    "serving": {"replicas": 2},
    "promotion": "Always",
    "activeDeadlineSeconds": 60,
}
CHANGED_VERSION: dict[str, Any] = {
    "model": "kant",
    "version": 9,
    "baseModel": base_model("other"),
    "artifact": {"digest": OTHER_DIGEST},
    "lineage": {"fineTuneJob": "somebody-else"},
}
CHANGED_TEST: dict[str, Any] = {
    "model": "kant",
    "baseline": {"modelVersion": "plato-v3"},
    "candidate": {"modelVersion": "plato-v3"},
    "decision": {"alpha": "0.2"},
    "guardrails": {"maxErrorRate": "0.5"},
}


def immutable_fields() -> Iterator[Update]:
    changed = {
        "FineTuneJob": CHANGED_JOB,
        "ModelVersion": CHANGED_VERSION,
        "ABTest": CHANGED_TEST,
        "BatchInference": batch_cases.CHANGED,
    }
    for kind, changes in changed.items():
        for name, value in changes.items():
            message = f"{name} is immutable: create a new resource instead"
            yield Update(f"{kind} {name} changes", kind, {name: value}, refused=message)


UPDATES = [
    *immutable_fields(),
    Update("a job's serving goes", "FineTuneJob", {"serving": None}, {"serving": {}}, "serving is immutable"),
    Update("a job is suspended", "FineTuneJob", {"suspend": True}),
    Update("a job goes on", "FineTuneJob", {"suspend": False}, {"suspend": True}),
    Update("a job is cancelled", "FineTuneJob", {"cancel": True}),
    Update("a suspended job is cancelled", "FineTuneJob", {"cancel": True}, {"suspend": True}),
    Update("a cancelled job gets a time to live", "FineTuneJob", {"ttlSecondsAfterFinished": 60}, {"cancel": True}),
    Update("a cancelled job is taken up", "FineTuneJob", {"cancel": False}, {"cancel": True}, CANCELLED),
    Update("a cancelled job forgets it", "FineTuneJob", {"cancel": None}, {"cancel": True}, CANCELLED),
    Update("a job gets a time to live", "FineTuneJob", {"ttlSecondsAfterFinished": 60}),
    Update(
        "a job loses its time to live",
        "FineTuneJob",
        {"ttlSecondsAfterFinished": None},
        {"ttlSecondsAfterFinished": 60},
    ),
    *(Update(title, "BatchInference", {name: value}) for title, (name, value) in batch_cases.EDITED.items()),
    Update("a version is deployed", "ModelVersion", {"state": "Deployed"}),
    Update("a version is archived", "ModelVersion", {"state": "Archived"}, {"state": "Deployed"}),
    Update(
        "less is asked of a version",
        "ModelVersion",
        {"evaluation": {"require": ["RougeL >= 0.1"]}},
        {"evaluation": {"require": ["RougeL >= 0.3"]}},
    ),
    Update(
        "a version is to be measured",
        "ModelVersion",
        {"evaluation": {"metrics": ["RougeL"]}},
        {"evaluation": {"require": ["evalLoss < base"]}},
    ),
    Update(
        "a version that is to be measured is served no more",
        "ModelVersion",
        {"serving": None},
        {"evaluation": {"metrics": ["RougeL"]}},
        evaluation_cases.NOT_SERVED,
    ),
    Update("a version gets notes", "ModelVersion", {"notes": "the good one"}),
    Update("a version is scaled", "ModelVersion", {"serving": {"replicas": 3}}),
    Update("a version's engine gets more time", "ModelVersion", {"serving": {"progressDeadlineSeconds": 3600}}),
    Update("a test's share grows", "ABTest", {"traffic": {"candidatePercent": 50}}),
    Update("a test's copies end with its split", "ABTest", {"traffic": {"candidatePercent": 50, "shadowPercent": 0}}),
    Update("a test's copies are judged", "ABTest", {"traffic": {"shadowPercent": 5, "pairPercent": 50}}),
    Update("a test gets prompts", "ABTest", {"prompts": ["What is virtue?"]}),
    Update("a test's win only notifies", "ABTest", {"onWin": "Notify"}),
    Update("a running test's loss rolls back", "ABTest", {"onLoss": "Rollback"}, status={"phase": "Running"}),
    Update("a lost test's prompts change", "ABTest", {"prompts": ["What is virtue?"]}, status={"verdict": "Lost"}),
    Update(
        "a lost test's loss rolls back",
        "ABTest",
        {"onLoss": "Rollback"},
        refused="onWin and onLoss are immutable once the test has its verdict: "
        "set the spec.state of a ModelVersion instead",
        status={"verdict": "Lost"},
    ),
    Update(
        "a won test's win only notifies", "ABTest", {"onWin": "Notify"}, {}, "onWin and onLoss are", {"verdict": "Won"}
    ),
    Update(
        "a test's guardrails go",
        "ABTest",
        {"guardrails": None},
        {"guardrails": {"maxErrorRate": "0.5"}},
        "guardrails is immutable",
    ),
]


def sample(kind: str, name: str | None, spec: dict[str, Any]) -> dict[str, Any]:
    """A valid sample with a name of its own."""
    number = next(_numbers)
    if name is None:
        model = f"plato-{number}"
        if kind == "ModelVersion":
            body = model_version(f"{model}-v1")
            return merged(body, {"spec": spec})
        name = model
    return merged(SAMPLES[kind](name), {"spec": spec})


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.title)
async def test_the_api_server_accepts(control_plane: ControlPlane, bare_namespace: str, case: Creation) -> None:
    body = sample(case.kind, case.name, case.spec)

    made = await control_plane.client.create(PLURALS[case.kind], bare_namespace, body)

    assert made["metadata"]["uid"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.title)
async def test_the_api_server_refuses(control_plane: ControlPlane, bare_namespace: str, case: Creation) -> None:
    body = sample(case.kind, case.name, case.spec)

    with pytest.raises(Rejected) as refusal:
        await control_plane.client.create(PLURALS[case.kind], bare_namespace, body)

    assert case.refused is not None
    assert case.refused in str(refusal.value)


@pytest.mark.parametrize("case", UPDATES, ids=lambda case: case.title)
async def test_an_update(control_plane: ControlPlane, bare_namespace: str, case: Update) -> None:
    plural = PLURALS[case.kind]
    made = await control_plane.client.create(plural, bare_namespace, sample(case.kind, None, case.created))
    if case.status:
        name, status = made["metadata"]["name"], {"status": case.status}
        await control_plane.client.merge_patch(plural, bare_namespace, name, status, "status")
    patch = control_plane.client.merge_patch(plural, bare_namespace, made["metadata"]["name"], {"spec": case.patch})

    if case.refused is None:
        changed = await patch
        assert changed["spec"] == merged(made["spec"], case.patch)
        assert changed["metadata"]["generation"] == 2
    else:
        with pytest.raises(Rejected, match="is invalid") as refusal:
            await patch
        assert case.refused in str(refusal.value)


def test_every_rule_of_the_crds_has_a_refused_case() -> None:
    wanted = {message for path in (REPOSITORY / "crds").glob("*.yaml") for message in _messages(_load(path))}
    said = (*(case.refused for case in REFUSED), *(case.refused for case in UPDATES))
    refusals = [text for text in said if text]

    untested = {message for message in wanted if not any(message in text for text in refusals)}

    assert wanted
    assert untested == set()


def test_every_immutable_field_of_what_runs_once_has_a_case() -> None:
    assert set(CHANGED_JOB) == set(IMMUTABLE_FIELDS)
    assert set(batch_cases.CHANGED) == set(batch_inference_model.IMMUTABLE_FIELDS)


async def test_unknown_fields_are_pruned_from_spec_and_status(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "pruned"
    await client.create("finetunejobs", bare_namespace, fine_tune_job(name, colour="blue"))
    status = {"phase": "Training", "mood": "good", "progress": {"percent": 3, "weather": "fine"}}

    written = await client.merge_patch("finetunejobs", bare_namespace, name, {"status": status}, "status")

    assert "colour" not in written["spec"]
    assert written["status"] == {"phase": "Training", "progress": {"percent": 3}}


async def test_a_status_write_can_not_change_the_spec(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "guarded"
    made = await client.create("finetunejobs", bare_namespace, fine_tune_job(name))
    body = {"spec": {"suspend": True}, "status": {"phase": "Training"}}

    written = await client.merge_patch("finetunejobs", bare_namespace, name, body, "status")

    assert written["spec"] == made["spec"]
    assert written["metadata"]["generation"] == 1


async def test_a_status_outside_the_schema_is_refused(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "strict"
    await client.create("finetunejobs", bare_namespace, fine_tune_job(name))

    with pytest.raises(Rejected, match="supported values"):
        await client.merge_patch("finetunejobs", bare_namespace, name, {"status": {"phase": "Dancing"}}, "status")


COLUMNS = [
    ("ftj", "NAME PHASE PROGRESS EPOCH LOSS ETA VERSION AGE", "BEST BASE METHOD ROWS COST MESSAGE"),
    ("modelver", "NAME MODEL VERSION STATE LOADED PROMOTED AGE", "BASE ENGINE EVALUATED RATING PASSED MESSAGE"),
    ("abt", "NAME PHASE SPLIT VOTES WINRATE P-VALUE LEADER VERDICT AGE", "BASELINE CANDIDATE NEEDED SCORE MESSAGE"),
    ("batch", "NAME VERSION PHASE PROGRESS FAILED ETA AGE", "ROWS RESULTS MESSAGE"),
]


@pytest.mark.parametrize(("short_name", "usual", "wide"), COLUMNS, ids=[row[0] for row in COLUMNS])
async def test_kubectl_prints(
    control_plane: ControlPlane, bare_namespace: str, short_name: str, usual: str, wide: str
) -> None:
    for kind in SAMPLES:
        await control_plane.client.create(PLURALS[kind], bare_namespace, sample(kind, None, {}))

    narrow = (await control_plane.kubectl("get", short_name, "-n", bare_namespace)).splitlines()[0]
    full = (await control_plane.kubectl("get", short_name, "-n", bare_namespace, "-o", "wide")).splitlines()[0]

    assert narrow.split() == usual.split()
    assert set(full.split()) == {*usual.split(), *wide.split()}


async def test_kubectl_get_finetuning_shows_all_kinds(control_plane: ControlPlane) -> None:
    await control_plane.kubectl("create", "namespace", "category")
    for body in (fine_tune_job(), model_version(), ab_test(), batch_inference()):
        await control_plane.client.create(PLURALS[body["kind"]], "category", body)

    shown = await control_plane.kubectl("get", "finetuning", "-n", "category", "-o", "name")

    assert sorted(shown.split()) == [
        "abtest.finetune.dev/duel",
        "batchinference.finetune.dev/answers",
        "finetunejob.finetune.dev/plato-1",
        "modelversion.finetune.dev/plato-v1",
    ]


async def test_kubectl_refuses_a_misspelt_field(control_plane: ControlPlane, bare_namespace: str) -> None:
    body = yaml.safe_dump(fine_tune_job("misspelt", trainning={"epochs": 2}))

    with pytest.raises(CommandFailed, match=r'unknown field "spec\.trainning"'):
        await control_plane.kubectl("apply", "-n", bare_namespace, "-f", "-", stdin=body)


async def test_a_version_is_scaled_by_kubectl_scale(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "scaled-v1"
    await client.create("modelversions", bare_namespace, model_version(name))
    status = {"readyReplicas": 1, "selector": "finetune.dev/engine=vllm-x"}
    await client.merge_patch("modelversions", bare_namespace, name, {"status": status}, "status")

    await control_plane.kubectl("scale", "-n", bare_namespace, f"modelver/{name}", "--replicas=3")

    scaled = await client.get("modelversions", bare_namespace, name)
    path = f"/apis/finetune.dev/v1alpha1/namespaces/{bare_namespace}/modelversions/{name}/scale"
    scale = yaml.safe_load(await control_plane.kubectl("get", "--raw", path))
    assert scaled["spec"]["serving"]["replicas"] == 3
    assert scale["status"] == {"replicas": 1, "selector": "finetune.dev/engine=vllm-x"}


def _load(path: Any) -> Any:
    return yaml.safe_load(path.read_text())


def _messages(node: Any) -> Iterator[str]:
    """Messages of all validation rules below a node."""
    if isinstance(node, dict):
        yield from (rule["message"] for rule in node.get("x-kubernetes-validations", []))
        for value in node.values():
            yield from _messages(value)
    elif isinstance(node, list):
        for value in node:
            yield from _messages(value)
