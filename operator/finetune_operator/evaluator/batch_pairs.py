"""The answers of two models to the same rows, given to an ABTest for people to vote on.

A pair's id follows from batch and row, so that whoever sends it again changes nothing.
"""

import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import aiohttp

from finetune_operator.contract.batch_inference import BatchInferenceConfig, VotingConfig
from finetune_operator.contract.experiments import AnswerPair, AnswerPairs
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import BatchPaths
from finetune_operator.core import answer_pairs
from finetune_operator.core.answer_pairs import shown, storable
from finetune_operator.core.batch_inference import answer_of
from finetune_operator.evaluator.batch_requests import read_requests
from finetune_operator.evaluator.engine import RETRIED_STATUSES, Patience, Trouble, Unavailable, persist

TIMEOUT_SECONDS = 30.0


async def put_to_vote(config: BatchInferenceConfig, voting: VotingConfig, paths: BatchPaths, sender: "Sender") -> int:
    """Send the first pairs that both models have answered; returns how many. Raises `Refused`."""
    candidate, baseline = (model.served_name for model in config.models)
    pairs = islice(_pairs(config.batch.uid, paths, candidate, baseline), voting.max_pairs)
    count = 0
    for group in answer_pairs.groups(pairs):
        sent = AnswerPairs(baseline_served_name=baseline, candidate_served_name=candidate, pairs=group)
        await sender.put(voting.url, sent)
        count += len(group)
    return count


class Sender:
    """PUTs to the api, with patience."""

    def __init__(self, session: aiohttp.ClientSession, token: str | None, patience: Patience) -> None:
        self._session = session
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._patience = patience

    async def put(self, url: str, sent: AnswerPairs) -> None:
        """Raises `Refused` where the api stays away, or will not take this."""
        body = sent.model_dump_json(by_alias=True)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)

        async def ask() -> None:
            async with self._session.put(url, data=body, headers=self._headers, timeout=timeout) as answer:
                if answer.status == 204:
                    return
                told = f"the api answered {answer.status}: {(await answer.text())[:300]}"
                if answer.status >= 500 or answer.status in RETRIED_STATUSES:
                    raise Trouble(told)
                raise _unavailable(told)

        try:
            await persist("the api", ask, self._patience)
        except Unavailable as error:
            raise _unavailable(str(error)) from error


def _pairs(batch_uid: str, paths: BatchPaths, candidate: str, baseline: str) -> Iterator[AnswerPair]:
    with Path(paths.answers(candidate)).open("rb") as first, Path(paths.answers(baseline)).open("rb") as second:
        requests = read_requests(Path(paths.requests))
        for request, of_candidate, of_baseline in zip(requests, first, second, strict=True):
            candidate_answer, baseline_answer = answer_of(of_candidate), answer_of(of_baseline)
            if candidate_answer is None or baseline_answer is None:
                continue
            pair = AnswerPair(
                id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"finetune.dev/batches/{batch_uid}/{request.index}")),
                prompt=storable(shown(request.messages)),
                baseline_answer=storable(baseline_answer),
                candidate_answer=storable(candidate_answer),
            )
            if answer_pairs.characters(pair) <= answer_pairs.TEXT_MAX_CHARACTERS:
                yield pair


def _unavailable(message: str) -> Refused:
    return Refused.because(
        FailureReason.API_UNAVAILABLE,
        f"the answers are on the volume, but could not be put to the vote: {message}",
        "see the api's log",
    )
