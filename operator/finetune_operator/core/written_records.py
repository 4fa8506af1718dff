"""What a line of each format holds once it is written, as models: the one source of the schemas that the api shows.

Pure. Stricter than what `core.dataset_records` reads: every field is there, and no other.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune_operator.core.dataset_records import Format


class WrittenRecord(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class WrittenMessage(WrittenRecord):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages = Annotated[tuple[WrittenMessage, ...], Field(min_length=1)]


class ConversationRecord(WrittenRecord):
    """ChatML and OpenAI: a conversation that ends with the answer to learn."""

    messages: Annotated[tuple[WrittenMessage, ...], Field(min_length=2)]


class AlpacaRecord(WrittenRecord):
    """Alpaca: an instruction and its output."""

    instruction: str
    input: str
    output: str


class RawRecord(WrittenRecord):
    """RawJSONL: a prompt and its response."""

    prompt: str
    response: str


class RatingMetadata(WrittenRecord):
    """What is known of a rating; null where the database does not say."""

    confidence: float | None
    domain: str | None
    philosopher: str | None
    rating: int
    task_type: str | None


class InstructionRecord(AlpacaRecord):
    """Instruction: as Alpaca, with where it comes from."""

    metadata: RatingMetadata


class MessagePairRecord(WrittenRecord):
    """DPO: a better and a worse answer, as messages."""

    prompt: Messages
    chosen: Messages
    rejected: Messages


class PairMetadata(WrittenRecord):
    """Means of the ratings of both answers."""

    chosen_rating: float
    rejected_rating: float


class PreferenceRecord(WrittenRecord):
    """Preference: a better and a worse answer, as texts."""

    prompt: str
    chosen: str
    rejected: str
    metadata: PairMetadata


class Finding(WrittenRecord):
    """One judgement of an answer."""

    philosopher: str | None
    rating: int


class GauntletRecord(WrittenRecord):
    """Gauntlet: an attempt to get a bad answer, which succeeded where people rated the answer 2 or less."""

    prompt: str
    response: str
    attack_type: str | None
    success: bool
    findings: tuple[Finding, ...]


WRITTEN: Mapping[Format, type[WrittenRecord]] = {
    "ChatML": ConversationRecord,
    "Alpaca": AlpacaRecord,
    "OpenAI": ConversationRecord,
    "RawJSONL": RawRecord,
    "Instruction": InstructionRecord,
    "DPO": MessagePairRecord,
    "Preference": PreferenceRecord,
    "Gauntlet": GauntletRecord,
}
