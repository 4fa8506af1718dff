"""Which answers of a batch inference the api is told, and how they are cut to what it keeps. Pure."""

from finetune_operator.contract.batch_answers import TEXT_MAX_CHARACTERS, BatchAnswer
from finetune_operator.core.answer_pairs import shown, storable
from finetune_operator.core.batch_inference import Request, answer_of, read_outcome


def told_answer(served_name: str, request: Request, line: bytes) -> BatchAnswer:
    """Of a line of results, which `answered_line` or `refused_line` has written."""
    answer, outcome = answer_of(line), read_outcome(line)
    prompt, said = storable(shown(request.messages)), storable(answer or "")
    error = storable(outcome.error or "") if outcome and answer is None else None
    return BatchAnswer(
        number=request.index + 1,
        served_name=served_name,
        custom_id=storable(request.custom_id) or "-",
        prompt=prompt[:TEXT_MAX_CHARACTERS],
        answer=None if answer is None else said[:TEXT_MAX_CHARACTERS],
        error=None if error is None else error[:TEXT_MAX_CHARACTERS],
        shortened=max(len(prompt), len(said)) > TEXT_MAX_CHARACTERS,
    )
