"""BatchInferences that the CRD takes, and those that it refuses."""

from typing import Any

Spec = dict[str, Any]

VOLUME = {"claimName": "questions", "path": "prompts/all.jsonl"}
ONE_SOURCE = "set exactly one of ratings, volume, s3"


def asking(**dataset: Any) -> Spec:
    return {"dataset": {"volume": None} | dataset}


def made(**parameters: Any) -> Spec:
    return {"parameters": parameters}


ACCEPTED: dict[str, Spec] = {
    "a batch of prompts": {},
    "a batch beside the base model": {"compareWith": {"base": True}},
    "a batch beside another version": {"compareWith": {"modelVersion": "plato-v2"}},
    "a batch to vote on": {"compareWith": {"base": True}, "abTest": {"name": "duel", "maxPairs": 10_000}},
    "a batch of rated prompts": asking(ratings={"domain": "ethics", "goldStarOnly": False, "minRating": 1}),
    "a batch of an object's records": asking(s3={"url": "s3://bucket/q.parquet"}, format="Alpaca"),
    "a batch with all limits": {
        "parameters": {"maxTokens": 131_072, "temperature": "2.0", "topP": "0.001", "seed": 2_147_483_647},
        "maxConcurrentRequests": 256,
        "limit": 1_000_000,
        "activeDeadlineSeconds": 31_536_000,
        "ttlSecondsAfterFinished": 60,
        "suspend": True,
    },
}
REFUSED: dict[str, tuple[Spec, str]] = {
    "a batch of no version": ({"modelVersion": None}, "modelVersion: Required value"),
    "a batch of nothing": ({"dataset": None}, "dataset: Required value"),
    "a batch from nowhere": (asking(format="Prompts"), ONE_SOURCE),
    "a batch from two places": ({"dataset": {"s3": {"url": "s3://bucket/q.parquet"}}}, ONE_SOURCE),
    "a batch of pairs": (asking(volume=VOLUME, format="DPO"), "supported values"),
    "a batch outside of its volume": (asking(volume=VOLUME | {"path": "../q.jsonl"}), "path in body should match"),
    "a batch beside itself": (
        {"compareWith": {"modelVersion": "plato-v1"}},
        "compareWith must be another version than modelVersion",
    ),
    "a batch beside two": (
        {"compareWith": {"base": True, "modelVersion": "plato-v2"}},
        "set exactly one of base, modelVersion",
    ),
    "a batch beside no base model": ({"compareWith": {"base": False}}, "base can only be true"),
    "a batch to vote on, of one model": (
        {"abTest": {"name": "duel"}},
        "abTest needs two answers to each row: set compareWith to the baseline of that ABTest",
    ),
    "a batch of no pair": (
        {"compareWith": {"base": True}, "abTest": {"name": "duel", "maxPairs": 0}},
        "greater than or equal to 1",
    ),
    "a batch without tokens": (made(maxTokens=0), "greater than or equal to 1"),
    "a batch with too much chance": (made(temperature="2.1"), "temperature in body should match"),
    "a batch with no share of probability": (made(topP="0.0"), "topP in body should match"),
    "a batch with a seed below 0": (made(seed=-1), "greater than or equal to 0"),
    "a batch that nobody asks": ({"maxConcurrentRequests": 0}, "greater than or equal to 1"),
    "a batch that all ask at once": ({"maxConcurrentRequests": 257}, "less than or equal to 256"),
    "a batch of no rows": ({"limit": 0}, "greater than or equal to 1"),
    "a batch of too many rows": ({"limit": 1_000_001}, "less than or equal to 1000000"),
    "a batch that goes at once": ({"ttlSecondsAfterFinished": 59}, "greater than or equal to 60"),
}
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
EDITED: dict[str, tuple[str, Any]] = {
    "a batch is suspended": ("suspend", True),
    "a batch gets a time to live": ("ttlSecondsAfterFinished", 3600),
}
