"""Pairs of answers that people vote on: how a conversation is shown, and how many pairs fit into one request.

Pure. Used by whoever brings pairs: the evaluator from a batch, the gateway from users' requests.
"""

from collections.abc import Iterable, Iterator, Sequence

from finetune_operator.contract.experiments import PAIRS_MAX_PER_BATCH, AnswerPair
from finetune_operator.core.dataset_records import ChatMessage

GROUP_MAX_BYTES = 512 * 1024
"""Of one request; the api takes twice as much."""
TEXT_MAX_CHARACTERS = 50_000
"""Of prompt and answers together; nobody reads more for one vote."""


def shown(messages: Sequence[ChatMessage]) -> str:
    """The conversation as people read it; a single question is only its text."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


def storable(text: str) -> str:
    """PostgreSQL keeps no NUL, and UTF-8 no half of a pair."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def characters(pair: AnswerPair) -> int:
    """What people would have to read."""
    return len(pair.prompt) + len(pair.baseline_answer) + len(pair.candidate_answer)


def groups(pairs: Iterable[AnswerPair]) -> Iterator[tuple[AnswerPair, ...]]:
    """As many as fit into one request, in their order."""
    group: list[AnswerPair] = []
    size = 0
    for pair in pairs:
        length = len(pair.model_dump_json(by_alias=True).encode())
        if group and (size + length > GROUP_MAX_BYTES or len(group) == PAIRS_MAX_PER_BATCH):
            yield tuple(group)
            group, size = [], 0
        group.append(pair)
        size += length
    if group:
        yield tuple(group)
