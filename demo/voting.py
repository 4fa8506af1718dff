"""Scripted evaluators, who vote over REST like people: blind, one vote for each comparison."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from demo.conversations import Conversation

RULE = (
    "each evaluator prefers the answer that shares more words (F1) with a person's answer to that question, "
    "and calls it a tie where the difference is below the evaluator's own margin"
)


@dataclass(frozen=True)
class Evaluator:
    """Somebody who knows what people answered to each question."""

    name: str
    tie_margin: float

    def vote(self, answers: Mapping[str, str], references: list[str]) -> str:
        """`a`, `b` or `tie`."""
        scores = {side: max(word_f1(text, reference) for reference in references) for side, text in answers.items()}
        if abs(scores["a"] - scores["b"]) < self.tie_margin:
            return "tie"
        return max(scores, key=lambda side: scores[side])


EVALUATORS = (Evaluator("ada", 0.02), Evaluator("ben", 0.05), Evaluator("cleo", 0.10))


def word_f1(candidate: str, reference: str) -> float:
    """Harmonic mean of precision and recall of distinct words (as in SQuAD, on sets)."""
    ours, theirs = _words(candidate), _words(reference)
    common = len(ours & theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def references_of(conversations: list[Conversation]) -> dict[str, list[str]]:
    """What people answered, by question."""
    answers: dict[str, list[str]] = {}
    for conversation in conversations:
        answers.setdefault(conversation.prompt, []).append(conversation.response)
    return answers


class VotingBooth:
    """The REST interface for one ABTest."""

    def __init__(self, api_url: str, token: str, namespace: str, test: str) -> None:
        self._client = httpx2.Client(headers={"Authorization": f"Bearer {token}"}, timeout=120)
        self._base = f"{api_url}/v1/fine-tuning/ab-test/{namespace}/{test}"

    def cast(self, evaluator: Evaluator, references: Mapping[str, list[str]]) -> dict[str, Any]:
        """One comparison: two answers without names, then a vote; returns what the vote revealed."""
        comparison = self._post("comparisons", {"evaluator": evaluator.name})
        vote = evaluator.vote(comparison["answers"], references[comparison["prompt"]])
        ballot = {"comparison_id": comparison["comparison_id"], "evaluator": evaluator.name, "vote": vote}
        return comparison | {"vote": vote} | self._post("vote", ballot)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = self._client.post(f"{self._base}/{path}", json=dict(body))
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9']+", text.lower()))
