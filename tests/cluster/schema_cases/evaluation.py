"""Evaluations of jobs and versions that the CRDs take, and those that they refuse."""

from typing import Any

from finetune_operator.resources.evaluation import Metric
from tests.cluster.schema_cases.case import Creation, Spec, Update

METRICS = [metric.value for metric in Metric]
EVERY_METRIC_REQUIRED = [f"{name} >= 0.{index}" for index, name in enumerate(METRICS)]
VOLUME = {"claimName": "questions", "path": "labels/test.jsonl"}
NOT_SERVED = "evaluation.metrics are measured on the served version: set serving, or remove them"


def evaluation(**changes: Any) -> Spec:
    return {"evaluation": changes}


def asking(**dataset: Any) -> Spec:
    return evaluation(metrics=["F1"], dataset=dataset)


ACCEPTED = [
    Creation("an evaluation", "FineTuneJob", evaluation(metrics=["RougeL", "TokenF1"], maxExamples=7, maxNewTokens=9)),
    Creation("an evaluation of a day", "FineTuneJob", evaluation(metrics=["RougeL"], timeoutSeconds=86_400)),
    Creation("every metric, each required", "FineTuneJob", evaluation(metrics=METRICS, require=EVERY_METRIC_REQUIRED)),
    Creation("a loss that has to fall", "FineTuneJob", evaluation(require=["evalLoss < base", "evalLoss <= 2.5"])),
    Creation("a version that has to be good", "ModelVersion", evaluation(require=["Rouge1 > base", "Bleu >= 1"])),
    Creation("a version that is to be measured", "ModelVersion", evaluation(metrics=["RougeL"])),
    Creation(
        "every metric of a version, with all limits",
        "ModelVersion",
        evaluation(metrics=METRICS, maxExamples=10_000, maxNewTokens=8192, concurrency=64, timeoutSeconds=604_800),
    ),
    Creation("a version to be measured by a file's questions", "ModelVersion", asking(volume=VOLUME, format="Alpaca")),
    Creation(
        "a version to be measured by ratings",
        "ModelVersion",
        asking(ratings={"domain": "ethics", "goldStarOnly": True}),
    ),
    Creation("a version to be measured by an object", "ModelVersion", asking(s3={"url": "s3://bucket/q.parquet"})),
    Creation("a version whose engine is to be saturated", "ModelVersion", evaluation(metrics=["F1"], saturation={})),
    Creation(
        "the highest load for the longest time",
        "ModelVersion",
        evaluation(metrics=["F1"], saturation={"stepSeconds": 600, "maxConcurrency": 1024}),
    ),
    Creation(
        "a requirement on what only the training measured",
        "ModelVersion",
        evaluation(metrics=["F1"], require=["evalLoss < base"]),
    ),
    Creation(
        "a registered version with requirements", "ModelVersion", evaluation(require=["F1 > base"]) | {"serving": None}
    ),
]

REFUSED = [
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
        {"dataset": {"testFraction": "0.0"}} | evaluation(require=["evalLoss < base"]),
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
    Creation(
        "a version to be measured that is not served",
        "ModelVersion",
        evaluation(metrics=["F1"]) | {"serving": None},
        refused=NOT_SERVED,
    ),
    Creation(
        "questions for no metric",
        "ModelVersion",
        evaluation(dataset={"volume": VOLUME}),
        refused="dataset is what metrics are measured on: name at least one of metrics",
    ),
    Creation(
        "a load without questions",
        "ModelVersion",
        evaluation(saturation={}),
        refused="saturation is measured with the questions of metrics: name at least one of metrics",
    ),
    Creation(
        "a load for no time",
        "ModelVersion",
        evaluation(metrics=["F1"], saturation={"stepSeconds": 0}),
        refused="greater than or equal to 1",
    ),
    Creation(
        "a load beyond all measure",
        "ModelVersion",
        evaluation(metrics=["F1"], saturation={"maxConcurrency": 1025}),
        refused="less than or equal to 1024",
    ),
    Creation(
        "a load of nobody",
        "ModelVersion",
        evaluation(metrics=["F1"], saturation={"maxConcurrency": 0}),
        refused="greater than or equal to 1",
    ),
    Creation(
        "a load that lasts too long",
        "ModelVersion",
        evaluation(metrics=["F1"], saturation={"stepSeconds": 601}),
        refused="less than or equal to 600",
    ),
    Creation(
        "questions from nowhere",
        "ModelVersion",
        asking(format="ChatML"),
        refused="set exactly one of ratings, volume, s3",
    ),
    Creation(
        "questions from two places",
        "ModelVersion",
        asking(volume=VOLUME, s3={"url": "s3://bucket/q.parquet"}),
        refused="set exactly one of ratings, volume, s3",
    ),
    Creation(
        "questions outside of their volume",
        "ModelVersion",
        asking(volume={"claimName": "questions", "path": "../q.jsonl"}),
        refused="path in body should match",
    ),
    Creation(
        "an unknown metric of a version", "ModelVersion", evaluation(metrics=["Perplexity"]), refused="supported values"
    ),
    Creation("a version's metric twice", "ModelVersion", evaluation(metrics=["F1", "F1"]), refused="Duplicate value"),
    Creation(
        "no questions of a version",
        "ModelVersion",
        evaluation(metrics=["F1"], maxExamples=0),
        refused="greater than or equal to 1",
    ),
    Creation(
        "too many questions of a version",
        "ModelVersion",
        evaluation(metrics=["F1"], maxExamples=10_001),
        refused="less than or equal",
    ),
    Creation(
        "no tokens for an answer",
        "ModelVersion",
        evaluation(metrics=["F1"], maxNewTokens=0),
        refused="greater than or equal to 1",
    ),
    Creation(
        "nobody asks", "ModelVersion", evaluation(metrics=["F1"], concurrency=0), refused="greater than or equal to 1"
    ),
    Creation(
        "all ask at once",
        "ModelVersion",
        evaluation(metrics=["F1"], concurrency=65),
        refused="less than or equal to 64",
    ),
    Creation(
        "a version's evaluation without time",
        "ModelVersion",
        evaluation(metrics=["F1"], timeoutSeconds=0),
        refused="greater than or equal to 1",
    ),
]

UPDATES = [
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
        NOT_SERVED,
    ),
]
