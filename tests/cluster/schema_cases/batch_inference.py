"""BatchInferences that the CRD takes, those that it refuses, and what may change of them."""

from typing import Any

from tests.cluster.schema_cases.case import JOB_NAME_TOO_LONG, Creation, Spec, Update, immutable_fields

VOLUME = {"claimName": "questions", "path": "prompts/all.jsonl"}
ONE_SOURCE = "set exactly one of ratings, volume, s3, stored"
CANCELLED = "a cancelled batch can't be taken up again: create a new one"
KEPT = f"chatml-{'0' * 32}"


def asking(**dataset: Any) -> Spec:
    return {"dataset": {"volume": None} | dataset}


def made(**parameters: Any) -> Spec:
    return {"parameters": parameters}


ACCEPTED = [
    Creation("a batch of prompts", "BatchInference"),
    Creation("a batch beside the base model", "BatchInference", {"compareWith": {"base": True}}),
    Creation("a batch beside another version", "BatchInference", {"compareWith": {"modelVersion": "plato-v2"}}),
    Creation(
        "a batch to vote on",
        "BatchInference",
        {"compareWith": {"base": True}, "abTest": {"name": "duel", "maxPairs": 10_000}},
    ),
    Creation(
        "a batch of rated prompts",
        "BatchInference",
        asking(ratings={"domain": "ethics", "goldStarOnly": False, "minRating": 1}),
    ),
    Creation(
        "a batch of an object's records", "BatchInference", asking(s3={"url": "s3://bucket/q.parquet"}, format="Alpaca")
    ),
    Creation("a batch of an exported dataset", "BatchInference", asking(stored={"path": f"{KEPT}/train.jsonl"})),
    Creation(
        "a batch with all limits",
        "BatchInference",
        {
            "parameters": {"maxTokens": 131_072, "temperature": "2.0", "topP": "0.001", "seed": 2_147_483_647},
            "maxConcurrentRequests": 256,
            "limit": 1_000_000,
            "activeDeadlineSeconds": 31_536_000,
            "ttlSecondsAfterFinished": 60,
            "suspend": True,
        },
    ),
]

REFUSED = [
    Creation("a batch with a name of 53 characters", "BatchInference", name="a" * 53, refused=JOB_NAME_TOO_LONG),
    Creation("a batch of no version", "BatchInference", {"modelVersion": None}, refused="modelVersion: Required value"),
    Creation("a batch of nothing", "BatchInference", {"dataset": None}, refused="dataset: Required value"),
    Creation(
        "a batch of a file elsewhere in the api",
        "BatchInference",
        asking(stored={"path": f"{KEPT}/../train.jsonl"}),
        refused="stored.path",
    ),
    Creation("a batch from nowhere", "BatchInference", asking(format="Prompts"), refused=ONE_SOURCE),
    Creation(
        "a batch from two places",
        "BatchInference",
        {"dataset": {"s3": {"url": "s3://bucket/q.parquet"}}},
        refused=ONE_SOURCE,
    ),
    Creation("a batch of pairs", "BatchInference", asking(volume=VOLUME, format="DPO"), refused="supported values"),
    Creation(
        "a batch outside of its volume",
        "BatchInference",
        asking(volume=VOLUME | {"path": "../q.jsonl"}),
        refused="path in body should match",
    ),
    Creation(
        "a batch beside itself",
        "BatchInference",
        {"compareWith": {"modelVersion": "plato-v1"}},
        refused="compareWith must be another version than modelVersion",
    ),
    Creation(
        "a batch beside two",
        "BatchInference",
        {"compareWith": {"base": True, "modelVersion": "plato-v2"}},
        refused="set exactly one of base, modelVersion",
    ),
    Creation(
        "a batch beside no base model",
        "BatchInference",
        {"compareWith": {"base": False}},
        refused="base can only be true",
    ),
    Creation(
        "a batch to vote on, of one model",
        "BatchInference",
        {"abTest": {"name": "duel"}},
        refused="abTest needs two answers to each row: set compareWith to the baseline of that ABTest",
    ),
    Creation(
        "a batch of no pair",
        "BatchInference",
        {"compareWith": {"base": True}, "abTest": {"name": "duel", "maxPairs": 0}},
        refused="greater than or equal to 1",
    ),
    Creation("a batch without tokens", "BatchInference", made(maxTokens=0), refused="greater than or equal to 1"),
    Creation(
        "a batch with too much chance",
        "BatchInference",
        made(temperature="2.1"),
        refused="temperature in body should match",
    ),
    Creation(
        "a batch with no share of probability", "BatchInference", made(topP="0.0"), refused="topP in body should match"
    ),
    Creation("a batch with a seed below 0", "BatchInference", made(seed=-1), refused="greater than or equal to 0"),
    Creation(
        "a batch that nobody asks", "BatchInference", {"maxConcurrentRequests": 0}, refused="greater than or equal to 1"
    ),
    Creation(
        "a batch that all ask at once",
        "BatchInference",
        {"maxConcurrentRequests": 257},
        refused="less than or equal to 256",
    ),
    Creation("a batch of no rows", "BatchInference", {"limit": 0}, refused="greater than or equal to 1"),
    Creation(
        "a batch of too many rows", "BatchInference", {"limit": 1_000_001}, refused="less than or equal to 1000000"
    ),
    Creation(
        "a batch that goes at once",
        "BatchInference",
        {"ttlSecondsAfterFinished": 59},
        refused="greater than or equal to 60",
    ),
]

# One change of each field that keeps its value.
CHANGED: Spec = {
    "modelVersion": "plato-v9",
    "compareWith": {"base": True},
    "dataset": {"volume": {"path": "other.jsonl"}},
    "parameters": {"maxTokens": 7},
    "maxConcurrentRequests": 7,
    "limit": 7,
    "abTest": {"name": "duel"},
    "activeDeadlineSeconds": 7,
}

UPDATES = [
    *immutable_fields("BatchInference", CHANGED),
    Update("a batch is suspended", "BatchInference", {"suspend": True}),
    Update("a batch is cancelled", "BatchInference", {"cancel": True}),
    Update("a suspended batch is cancelled", "BatchInference", {"cancel": True}, {"suspend": True}),
    Update("a cancelled batch is taken up", "BatchInference", {"cancel": False}, {"cancel": True}, CANCELLED),
    Update("a cancelled batch forgets it", "BatchInference", {"cancel": None}, {"cancel": True}, CANCELLED),
    Update("a batch gets a time to live", "BatchInference", {"ttlSecondsAfterFinished": 3600}),
]
