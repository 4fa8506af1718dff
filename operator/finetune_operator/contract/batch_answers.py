"""The first answers of a batch inference as its pod tells them to the api, where people can read them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from finetune_operator.contract.base import Report
from finetune_operator.contract.training import JobIdentity

TOLD_ROWS = 100
"""Of each model, the first ones; the files on the volume have all."""
TEXT_MAX_CHARACTERS = 4_000
ANSWERS_MAX_PER_REQUEST = 20
"""So that a request is less than what the api takes, whatever the alphabet."""

Text = Annotated[str, Field(max_length=TEXT_MAX_CHARACTERS)]


class BatchAnswer(Report):
    """What one model answered to one row, or why it did not. `number` is the row's place among all, from 1.

    A text that is longer than TEXT_MAX_CHARACTERS is cut there, and `shortened`.
    """

    number: Annotated[int, Field(ge=1, le=TOLD_ROWS)]
    served_name: Annotated[str, Field(min_length=1, max_length=128)]
    custom_id: Annotated[str, Field(min_length=1, max_length=256)]
    prompt: Text
    answer: Text | None = None
    error: Text | None = None
    shortened: bool = False

    @model_validator(mode="after")
    def _told(self) -> Self:
        if (self.answer is None) == (self.error is None):
            raise ValueError("set one of answer and error")
        return self


class BatchAnswers(Report):
    """Body of a PUT to `BATCH_ANSWERS_PATH`; what is told again takes the place of what was told before."""

    batch: JobIdentity
    answers: Annotated[tuple[BatchAnswer, ...], Field(max_length=ANSWERS_MAX_PER_REQUEST)]
