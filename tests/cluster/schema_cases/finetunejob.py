"""FineTuneJobs that the CRD takes, those that it refuses, and what may change of them."""

from typing import Any

from tests.cluster.samples import base_model
from tests.cluster.schema_cases.case import JOB_NAME_TOO_LONG, Creation, Spec, Update, immutable_fields
from tests.cluster.schema_cases.provider import PROVIDER_KEY

VOLUME = {"claimName": "datasets", "path": "plato/train.jsonl"}
NO_SERVICE_NAME = "with more than one node, metadata.name must begin with a letter and have no dot"
NOT_MERGED = (
    "serving.mergedWeights needs the merged weights: add MergedWeights to outputs, or remove serving.mergedWeights"
)
CANCELLED = "a cancelled job can't be taken up again: create a new one"


def dataset(**changes: Any) -> Spec:
    return {"dataset": changes}


def on_volume(path: str) -> Spec:
    return {"dataset": {"ratings": None, "volume": {"claimName": "datasets", "path": path}}}


def stored(url: str, **changes: Any) -> Spec:
    return {"dataset": {"ratings": None, "s3": {"url": url, **changes}}}


def kept(path: str, **changes: Any) -> Spec:
    return {"dataset": {"ratings": None, "stored": {"path": path, **changes}}}


UPLOADED = f"file-{'0' * 32}/data.jsonl"
ACCEPTED = [
    Creation("a job on an uploaded file", "FineTuneJob", kept(UPLOADED)),
    Creation("one to evaluate by", "FineTuneJob", kept(f"chatml-{'0' * 32}/train.jsonl", validationPath=UPLOADED)),
    Creation("a job on ratings", "FineTuneJob"),
    Creation("a job on a volume", "FineTuneJob", {"dataset": {"ratings": None, "volume": VOLUME}}),
    Creation("a job with a name of 52 characters", "FineTuneJob", name="a" * 52),
    Creation("a rank as large as the engine takes", "FineTuneJob", {"lora": {"r": 32}, "serving": {"maxLoraRank": 32}}),
    Creation(
        "merged weights that are served",
        "FineTuneJob",
        {"outputs": ["UnslothScript", "MergedWeights"], "serving": {"mergedWeights": True}},
    ),
    Creation("merged weights beside the served adapter", "FineTuneJob", {"outputs": ["MergedWeights"], "serving": {}}),
    Creation(
        "merged weights of a rank that an engine would take, too",
        "FineTuneJob",
        {"lora": {"r": 64}, "outputs": ["MergedWeights"], "serving": {"mergedWeights": True, "maxLoraRank": 64}},
    ),
    Creation("a large rank without serving", "FineTuneJob", {"lora": {"r": 512}}),
    Creation("a job without a dataset", "FineTuneJob", {"dataset": None}),
    Creation("ratings without a secret", "FineTuneJob", dataset(ratings={"secretRef": None})),
    Creation("the surest ratings", "FineTuneJob", dataset(ratings={"minConfidence": "0.95"})),
    Creation("pairs two points apart", "FineTuneJob", dataset(minRatingDifference=2)),
    Creation("pairs half the scale apart", "FineTuneJob", dataset(minConfidenceDiff="0.5")),
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
    Creation("a budget", "FineTuneJob", {"budget": {"maxCost": "25.00", "currency": "EUR"}}),
    Creation("a budget of cents", "FineTuneJob", {"budget": {"maxCost": "0.01"}}),
    Creation("a priority", "FineTuneJob", {"scheduling": {"priorityClassName": "research"}}),
    Creation("a file with dots in its name", "FineTuneJob", on_volume("a.b/c..d.jsonl")),
    Creation("as many nodes as can be", "FineTuneJob", {"nodes": 16, "backend": "HuggingFace"}),
    Creation("a long name, with ten nodes", "FineTuneJob", {"nodes": 10}, name="b" * 52),
    Creation("a name for the pods of eleven nodes", "FineTuneJob", {"nodes": 11}, name="a" * 51),
    Creation("a name for a Service", "FineTuneJob", {"nodes": 2}, name="plato-7b"),
    Creation("a digit first and a dot, on one node", "FineTuneJob", name="7b-chat.2026"),
    Creation(
        "every output",
        "FineTuneJob",
        {"outputs": ["MergedWeights", "GgufF16", "GgufQ8", "OllamaModelfile", "UnslothScript"]},
    ),
]

REFUSED = [
    *(
        Creation(f"merged weights that are served, {title}", "FineTuneJob", spec, refused=NOT_MERGED)
        for title, spec in {
            "but not asked for": {"serving": {"mergedWeights": True}},
            "but others asked for": {"outputs": ["GgufF16"], "serving": {"mergedWeights": True}},
        }.items()
    ),
    Creation(
        "no dataset source",
        "FineTuneJob",
        dataset(ratings=None),
        refused="set exactly one of ratings, volume, s3, stored",
    ),
    Creation("a file beside ratings", "FineTuneJob", dataset(stored={"path": UPLOADED}), refused="set exactly one of"),
    Creation("a file by its name", "FineTuneJob", kept("rows.jsonl"), refused="path in body should match"),
    Creation("a file elsewhere", "FineTuneJob", kept("../file/data.jsonl"), refused="path in body should match"),
    Creation(
        "one to evaluate by elsewhere",
        "FineTuneJob",
        kept(UPLOADED, validationPath="http://host/file"),
        refused="validationPath in body should match",
    ),
    Creation(
        "two dataset sources", "FineTuneJob", dataset(volume=VOLUME), refused="set exactly one of ratings, volume"
    ),
    Creation("no model", "FineTuneJob", {"model": None}, refused="spec.model: Required value"),
    Creation("a path that climbs", "FineTuneJob", on_volume("../secrets"), refused="volume.path in body should match"),
    Creation("a path that climbs inside", "FineTuneJob", on_volume("a/../../b"), refused="path in body should match"),
    Creation("an absolute path", "FineTuneJob", on_volume("/etc/passwd"), refused="path in body should match"),
    Creation("an empty path", "FineTuneJob", on_volume(""), refused="path in body should"),
    Creation("a model in capitals", "FineTuneJob", {"model": "Plato"}, refused="spec.model in body should match"),
    Creation("a long model name", "FineTuneJob", {"model": "p" * 41}, refused="spec.model: Too long"),
    Creation("a job with a name of 53 characters", "FineTuneJob", name="a" * 53, refused=JOB_NAME_TOO_LONG),
    Creation("an unknown method", "FineTuneJob", {"method": "PPO"}, refused='supported values: "SFT", "DPO"'),
    Creation("an unknown backend", "FineTuneJob", {"backend": "DeepSpeed"}, refused="supported values"),
    Creation("an unknown promotion", "FineTuneJob", {"promotion": "Never"}, refused="supported values"),
    Creation(
        "a rank beyond the engine's",
        "FineTuneJob",
        {"lora": {"r": 32}, "serving": {"maxLoraRank": 16}},
        refused="lora.r is beyond serving.maxLoraRank: lower r or raise maxLoraRank",
    ),
    # Where merging fails, or the field is unset, the adapter is what is served.
    Creation(
        "a rank beyond the engine's, of merged weights",
        "FineTuneJob",
        {"lora": {"r": 64}, "outputs": ["MergedWeights"], "serving": {"mergedWeights": True}},
        refused="lora.r is beyond serving.maxLoraRank: lower r or raise maxLoraRank",
    ),
    Creation("a rank of 0", "FineTuneJob", {"lora": {"r": 0}}, refused="greater than or equal to 1"),
    Creation("a rank of 513", "FineTuneJob", {"lora": {"r": 513}}, refused="less than or equal to 512"),
    Creation("a dropout above 1", "FineTuneJob", {"lora": {"dropout": "1.5"}}, refused="dropout in body should match"),
    Creation("a dropout as a number", "FineTuneJob", {"lora": {"dropout": 0.05}}, refused="must be of type string"),
    Creation("a negative fraction", "FineTuneJob", dataset(testFraction="-0.1"), refused="testFraction in body should"),
    Creation("a rating of 6", "FineTuneJob", dataset(ratings={"minRating": 6}), refused="less than or equal to 5"),
    Creation("a rating of 0", "FineTuneJob", dataset(ratings={"minRating": 0}), refused="greater than or equal to 1"),
    Creation(
        "ratings with half a secret",
        "FineTuneJob",
        dataset(ratings={"secretRef": {"name": "ratings", "key": None}}),
        refused="Required value",
    ),
    Creation("too sure", "FineTuneJob", dataset(ratings={"minConfidence": "1.1"}), refused="minConfidence in body"),
    Creation(
        "pairs more than the scale apart", "FineTuneJob", dataset(minConfidenceDiff="1.5"), refused="should match"
    ),
    Creation(
        "pairs apart by points and by a share",
        "FineTuneJob",
        dataset(minRatingDifference=2, minConfidenceDiff="0.5"),
        refused="set one of minRatingDifference and minConfidenceDiff, not both",
    ),
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
        "a budget of nothing",
        "FineTuneJob",
        {"budget": {"maxCost": "0.0"}},
        refused="maxCost must be above 0: remove budget for none",
    ),
    Creation("a budget that is a number", "FineTuneJob", {"budget": {"maxCost": 25}}, refused="must be of type string"),
    Creation("a negative budget", "FineTuneJob", {"budget": {"maxCost": "-1"}}, refused="should match"),
    Creation("no node", "FineTuneJob", {"nodes": 0}, refused="spec.nodes in body should be greater than or equal to 1"),
    Creation(
        "too many nodes", "FineTuneJob", {"nodes": 17}, refused="spec.nodes in body should be less than or equal to 16"
    ),
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
]

# One change of each field that keeps its value.
CHANGED: Spec = {
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

UPDATES = [
    *immutable_fields("FineTuneJob", CHANGED),
    Update("a job's serving goes", "FineTuneJob", {"serving": None}, {"serving": {}}, "serving is immutable"),
    Update("a job is suspended", "FineTuneJob", {"suspend": True}),
    Update("a job goes on", "FineTuneJob", {"suspend": False}, {"suspend": True}),
    Update("a job is cancelled", "FineTuneJob", {"cancel": True}),
    Update("a suspended job is cancelled", "FineTuneJob", {"cancel": True}, {"suspend": True}),
    Update("a cancelled job gets a time to live", "FineTuneJob", {"ttlSecondsAfterFinished": 60}, {"cancel": True}),
    Update("a cancelled job is taken up", "FineTuneJob", {"cancel": False}, {"cancel": True}, CANCELLED),
    Update("a cancelled job forgets it", "FineTuneJob", {"cancel": None}, {"cancel": True}, CANCELLED),
    Update("a job gets a budget", "FineTuneJob", {"budget": {"maxCost": "1", "currency": "EUR"}}),
    Update("a budget is raised", "FineTuneJob", {"budget": {"maxCost": "2"}}, {"budget": {"maxCost": "1"}}),
    Update("a job loses its budget", "FineTuneJob", {"budget": None}, {"budget": {"maxCost": "1"}}),
    Update("a job gets a time to live", "FineTuneJob", {"ttlSecondsAfterFinished": 60}),
    Update(
        "a job loses its time to live",
        "FineTuneJob",
        {"ttlSecondsAfterFinished": None},
        {"ttlSecondsAfterFinished": 60},
    ),
]
