"""Evaluations of ModelVersions that the CRD takes, and those that it refuses."""

from typing import Any

from finetune_operator.resources.evaluation import Metric

Spec = dict[str, Any]

METRICS = [metric.value for metric in Metric]
VOLUME = {"claimName": "questions", "path": "labels/test.jsonl"}
NOT_SERVED = "evaluation.metrics are measured on the served version: set serving, or remove them"


def evaluation(**changes: Any) -> Spec:
    return {"evaluation": changes}


def asking(**dataset: Any) -> Spec:
    return evaluation(metrics=["F1"], dataset=dataset)


ACCEPTED: dict[str, Spec] = {
    "a version that is to be measured": evaluation(metrics=["RougeL"]),
    "every metric of a version, with all limits": evaluation(
        metrics=METRICS, maxExamples=10_000, maxNewTokens=8192, concurrency=64, timeoutSeconds=604_800
    ),
    "a version to be measured by a file's questions": asking(volume=VOLUME, format="Alpaca"),
    "a version to be measured by ratings": asking(ratings={"domain": "ethics", "goldStarOnly": True}),
    "a version to be measured by an object": asking(s3={"url": "s3://bucket/q.parquet"}),
    "a version whose engine is to be saturated": evaluation(metrics=["F1"], saturation={}),
    "the highest load for the longest time": evaluation(
        metrics=["F1"], saturation={"stepSeconds": 600, "maxConcurrency": 1024}
    ),
    "a requirement on what only the training measured": evaluation(metrics=["F1"], require=["evalLoss < base"]),
    "a registered version with requirements": evaluation(require=["F1 > base"]) | {"serving": None},
}
REFUSED: dict[str, tuple[Spec, str]] = {
    "a version to be measured that is not served": (evaluation(metrics=["F1"]) | {"serving": None}, NOT_SERVED),
    "questions for no metric": (
        evaluation(dataset={"volume": VOLUME}),
        "dataset is what metrics are measured on: name at least one of metrics",
    ),
    "a load without questions": (
        evaluation(saturation={}),
        "saturation is measured with the questions of metrics: name at least one of metrics",
    ),
    "a load for no time": (
        evaluation(metrics=["F1"], saturation={"stepSeconds": 0}),
        "greater than or equal to 1",
    ),
    "a load beyond all measure": (
        evaluation(metrics=["F1"], saturation={"maxConcurrency": 1025}),
        "less than or equal to 1024",
    ),
    "a load of nobody": (evaluation(metrics=["F1"], saturation={"maxConcurrency": 0}), "greater than or equal to 1"),
    "a load that lasts too long": (
        evaluation(metrics=["F1"], saturation={"stepSeconds": 601}),
        "less than or equal to 600",
    ),
    "questions from nowhere": (asking(format="ChatML"), "set exactly one of ratings, volume, s3"),
    "questions from two places": (
        asking(volume=VOLUME, s3={"url": "s3://bucket/q.parquet"}),
        "set exactly one of ratings, volume, s3",
    ),
    "questions outside of their volume": (
        asking(volume={"claimName": "questions", "path": "../q.jsonl"}),
        "path in body should match",
    ),
    "an unknown metric of a version": (evaluation(metrics=["Perplexity"]), "supported values"),
    "a version's metric twice": (evaluation(metrics=["F1", "F1"]), "Duplicate value"),
    "no questions of a version": (evaluation(metrics=["F1"], maxExamples=0), "greater than or equal to 1"),
    "too many questions of a version": (evaluation(metrics=["F1"], maxExamples=10_001), "less than or equal"),
    "no tokens for an answer": (evaluation(metrics=["F1"], maxNewTokens=0), "greater than or equal to 1"),
    "nobody asks": (evaluation(metrics=["F1"], concurrency=0), "greater than or equal to 1"),
    "all ask at once": (evaluation(metrics=["F1"], concurrency=65), "less than or equal to 64"),
    "a version's evaluation without time": (evaluation(metrics=["F1"], timeoutSeconds=0), "greater than or equal to 1"),
}
