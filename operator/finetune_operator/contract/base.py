"""The base of every message."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Message(BaseModel):
    """Base of everything here: frozen, camelCase on the wire, unknown fields refused.

    What is asked for must be understood as a whole, lest something else be done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Report(Message):
    """Base of what running processes tell each other of the past: unknown fields are not read.

    During an upgrade, and after a rollback, the older process hears the newer one. What it knows of a report is right
    without the rest, so that new quantities may come as new fields with a default, and nothing else may change.
    """

    model_config = ConfigDict(extra="ignore")
