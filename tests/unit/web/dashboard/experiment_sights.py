"""A cluster with two versions, a test between them and votes on it; hostile texts where people or models write."""

import itertools
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.batch_answers import BatchAnswer, BatchAnswers
from finetune_operator.contract.training import JobIdentity
from finetune_operator.store import batch_answers, votes
from finetune_operator.store.experiment_tables import Comparison
from finetune_operator.store.votes import Choice
from tests.builders import merged
from tests.unit.web.dashboard import sights
from tests.unit.web.dashboard.sights import HOSTILE, NAMESPACE, NOON, Object, at, condition, uid_of
from tests.unit.web.rest.played_api_server import PlayedApiServer

TEST = "plato-v1-v2"
TEST_UID = uid_of(300)
PEOPLE = ("ada", "ben", "cleo")
ANSWER = (
    "Courage is not the absence of fear, but knowing what is to be feared and what is not.\n\n"
    "One who runs into battle because he does not see the danger is not brave; one who sees it, weighs it, and stands "
    "for what he holds dear, is."
)
READY = [condition("Loaded"), condition("Ready")]


class Philosophers:
    """Both answer at length, never twice the same, and neither says who it is."""

    def __init__(self) -> None:
        self.hostile = False
        self._asked = itertools.count(1)

    async def ask(self, served_name: str, prompt: str) -> str:
        text = f"{ANSWER} {'So said Laches' if served_name.endswith('1') else 'So said Nicias'}, {next(self._asked)}."
        return f"{HOSTILE}\n{text * 12}" if self.hostile else text


def measured(speed: float, score: str, cost: str, **more: Any) -> Object:
    pair = {"base": "1", "fineTuned": f"{speed}"}
    return {
        "metrics": {
            "elo": round(1400 + speed),
            "testLoss": f"{2 - float(score)}",
            "baseTestLoss": "2.31",
            "scores": [{"name": name, "base": "0.12", "fineTuned": score} for name in ("RougeL", "TokenF1")],
            "ratings": {
                "count": 40,
                "average": f"{3.6 + float(score)}",
                "standardDeviation": f"{1 - float(score)}",
                "goldStarRate": f"{0.4 + float(score)}",
            },
        },
        "evaluation": {
            "id": "abc",
            "time": at(-30),
            "engine": "vllm-1",
            "examples": 60,
            "tokensPerSecond": {"base": "140", "fineTuned": f"{speed}"},
            "meanLatencySeconds": {"base": "1.2", "fineTuned": f"{200 / speed:.3f}"},
            "p95LatencySeconds": {"base": "2.1", "fineTuned": f"{320 / speed:.3f}"},
            "meanSecondsToFirstToken": {"base": "0.05", "fineTuned": f"{8 / speed:.4f}"},
            "costPerMillionTokens": {"base": "0.4", "fineTuned": cost, "currency": "USD"},
            "memoryGigabytes": {"of": "Container", "base": "2.1", "fineTuned": "2.2"},
            "saturation": {"requestsPerSecond": pair, "tokensPerSecond": pair, "concurrency": pair},
        },
        "conditions": READY,
        "engine": "vllm-1",
    } | more


def versions() -> tuple[Object, ...]:
    spec = {"serving": {"resources": {"limits": {"memory": "16G"}}}}
    first = merged(sights.version(1, "Deployed", **measured(132, "0.31", "0.52", promotedAt=at(-90))), {"spec": spec})
    second = merged(sights.version(2, "Ready", **measured(118, "0.44", "0.58")), {"spec": spec})
    sizes = ((first, 36_700_160), (second, 41_943_040))
    return tuple(merged(body, {"spec": {"artifact": {"sizeBytes": size}}}) for body, size in sizes)


def test_of_both() -> Object:
    return {
        "kind": "ABTest",
        "metadata": {"namespace": NAMESPACE, "name": TEST, "uid": TEST_UID, "creationTimestamp": at(-20)},
        "spec": {
            "model": "plato",
            "baseline": {"modelVersion": "plato-v1"},
            "candidate": {"modelVersion": "plato-v2"},
            "prompts": ["What is courage?", f"What is {HOSTILE}?"],
        },
        "status": {
            "phase": "Running",
            "pValue": "0.972",
            "votes": {"fineTuned": 17, "base": 11, "tie": 6, "total": 34, "winRate": "0.588"},
            "voters": {"evaluators": 3, "heaviestVotes": 12, "agreement": "0.71"},
        },
    }


def batch() -> Object:
    return {
        "kind": "BatchInference",
        "metadata": {"namespace": NAMESPACE, "name": "answers", "uid": uid_of(400), "creationTimestamp": at(-10)},
        "spec": {
            "modelVersion": "plato-v2",
            "compareWith": {"modelVersion": "plato-v1"},
            "dataset": {"ratings": {"domain": "ethics"}},
            "abTest": {"name": TEST},
        },
        "status": {
            "phase": "Succeeded",
            "startTime": at(-9),
            "completionTime": at(-2),
            "progress": {"summary": "100%", "percent": 100, "done": 240, "total": 240, "failed": 1},
            "tokens": {"prompt": 4812, "completion": 30122},
            "results": {
                "uri": f"volume://artifacts/{NAMESPACE}/batches/answers",
                "rows": 120,
                "failed": 1,
                "digest": sights.DIGEST,
                "pairs": 119,
                "models": [
                    {"servedName": "plato-v2", "file": "results/plato-v2.jsonl", "failed": 1, "firstError": HOSTILE},
                    {"servedName": "plato-v1", "file": "results/plato-v1.jsonl", "failed": 0},
                ],
            },
        },
    }


def fill(cluster: PlayedApiServer) -> None:
    sights.fill(cluster)
    for body in versions():
        cluster.put("modelversions", body)
    cluster.put("abtests", test_of_both())
    cluster.put("batchinferences", batch())


async def vote(engine: AsyncEngine, count: int = 34) -> None:
    """Of three people; the candidate is ahead, which may be chance."""
    choices = (Choice.FINE_TUNED, Choice.BASE, Choice.FINE_TUNED, Choice.TIE, Choice.FINE_TUNED, Choice.BASE)
    for number in range(count):
        person, choice = PEOPLE[number % 3], choices[(number * 5) % 6]
        made = Comparison(
            id=f"{number:036x}",
            abtest_uid=TEST_UID,
            namespace=NAMESPACE,
            name=TEST,
            evaluator=person,
            number=number // 3,
            prompt="What is courage?",
            baseline_served_name="plato-v1",
            candidate_served_name="plato-v2",
            baseline_answer=ANSWER,
            candidate_answer=ANSWER,
            candidate_side="a",
            created_at=NOON + timedelta(minutes=number),
        )
        kept = await votes.add_comparison(engine, made)
        await votes.cast_vote(engine, kept, choice, late=False, now=NOON + timedelta(minutes=number, seconds=30))


async def answer(engine: AsyncEngine, rows: int = 24, uid: str = uid_of(400)) -> None:
    """The first rows of the batch, as its pod tells them; one of them failed for one of both."""
    batch = JobIdentity(namespace=NAMESPACE, name="answers", uid=uid)
    for number in range(1, rows + 1):
        told = [
            BatchAnswer(
                number=number,
                served_name=name,
                custom_id=f"row-{number}",
                prompt=f"Question {number}: {HOSTILE}",
                answer=None if fails else f"{name} says {ANSWER}",
                error="This model's maximum context length is 4096 tokens" if fails else None,
            )
            for name in ("plato-v1", "plato-v2")
            for fails in [number == 3 and name == "plato-v2"]
        ]
        await batch_answers.record(engine, BatchAnswers(batch=batch, answers=tuple(told)), NOON)
