"""Requests that both arms of an ABTest have answered, kept for people to judge: only where the test asks for texts.

The texts are put together while the answers pass, and are looked at once the user has the whole answer. What
can't be shown as one question with two plain answers is left out and counted by its reason; so is what does not fit.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

from finetune_operator.contract.experiments import AnswerPair, AnswerPairs
from finetune_operator.contract.places import PAIRS_PATH
from finetune_operator.core.answer_pairs import TEXT_MAX_CHARACTERS, characters, groups, storable
from finetune_operator.core.batch_inference import CHAT_PATH
from finetune_operator.core.chat_texts import StreamedText, Unusable, asked
from finetune_operator.core.split import is_judged
from finetune_operator.gateway.exchange import Exchange
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.outbox import Letter, Outbox

KEPT_AT_ONCE_MAX = 64
"""Users' answers that are under way and whose text is put together; each may come to TEXT_MAX_CHARACTERS."""


@dataclass(frozen=True)
class TrafficPair:
    """A pair, and the arms of the test that it belongs to."""

    test_uid: str
    baseline_served_name: str
    candidate_served_name: str
    keep_max: int
    pair: AnswerPair

    @property
    def address(self) -> tuple[str, str, str, int]:
        """What all pairs of one request to the api share."""
        return self.test_uid, self.baseline_served_name, self.candidate_served_name, self.keep_max


class PairSender(Outbox[TrafficPair]):
    """Pairs on their way to the api."""

    what = "pairs"
    room = 4_000_000
    """Characters."""

    def weight(self, item: TrafficPair) -> int:
        return characters(item.pair)

    def letter(self, items: deque[TrafficPair]) -> Letter:
        first = items[0]
        alike = takewhile(lambda item: item.address == first.address, items)
        oldest = next(groups(item.pair for item in alike))
        sent = AnswerPairs(
            baseline_served_name=first.baseline_served_name,
            candidate_served_name=first.candidate_served_name,
            pairs=oldest,
            keep_max=first.keep_max,
        )
        path = PAIRS_PATH.format(uid=first.test_uid)
        return Letter("PUT", path, sent.model_dump_json(by_alias=True).encode(), len(oldest))


class Pairs:
    """Decides which requests become pairs; `record` takes those that do."""

    def __init__(self, record: Callable[[TrafficPair], object], metrics: Metrics) -> None:
        self._record = record
        self._metrics = metrics
        self._kept_at_once = 0

    @contextmanager
    def watched(self, exchange: Exchange) -> Iterator[None]:
        """While the user's own answer passes; what is to become a pair is marked by having its text put together."""
        if not _is_drawn(exchange):
            yield
            return
        if self._kept_at_once >= KEPT_AT_ONCE_MAX:
            self._metrics.pairs.labels("dropped").inc()
            yield
            return
        exchange.streamed = StreamedText()
        self._kept_at_once += 1
        try:
            yield
        finally:
            self._kept_at_once -= 1

    def drop(self, original: Exchange) -> None:
        """It gets no second answer."""
        if original.streamed is not None:
            self._metrics.pairs.labels("dropped").inc()

    def keep(self, original: Exchange, copy: Exchange) -> None:
        """The copy has been answered, or has failed."""
        if original.streamed is None:
            return
        found = _pair_of(original, copy)
        if isinstance(found, Unusable):
            self._metrics.pairs.labels(found.value).inc()
        else:
            self._record(found)


def _is_drawn(exchange: Exchange) -> bool:
    """By the request's own id, so that nothing need be remembered."""
    choice = exchange.choice
    if choice is None or choice.pairing is None or choice.test_uid is None or exchange.path != CHAT_PATH:
        return False
    return is_judged(choice.test_uid, exchange.request_id, choice.pairing.percent)


def _pair_of(original: Exchange, copy: Exchange) -> TrafficPair | Unusable:
    if isinstance(prompt := asked(original.body.text if original.body else ""), Unusable):
        return prompt
    if isinstance(baseline := original.answered_text(), Unusable):
        return baseline
    if isinstance(candidate := copy.answered_text(), Unusable):
        return candidate
    choice, names = original.choice, (original.served_name, copy.served_name)
    if choice is None or choice.test_uid is None or choice.pairing is None or not all(names):
        return Unusable.INCOMPLETE
    question = storable(prompt)
    pair = AnswerPair(
        id=_pair_id(choice.test_uid, question),
        prompt=question,
        baseline_answer=storable(baseline),
        candidate_answer=storable(candidate),
    )
    if characters(pair) > TEXT_MAX_CHARACTERS:
        return Unusable.TOO_LONG
    return TrafficPair(choice.test_uid, *names, choice.pairing.max_count, pair)


def _pair_id(test_uid: str, prompt: str) -> str:
    """One for each question of a test, lest a probe that asks the same all day fill the pairs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://finetune.dev/abtests/{test_uid}?prompt={prompt}"))
