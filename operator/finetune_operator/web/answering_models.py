"""Names that answer at the gateway, as it lists them."""

from dataclasses import dataclass

from finetune_operator.core.routing import Meaning


@dataclass(frozen=True)
class AnsweringModel:
    """`id` has its namespace where several have the name; `created` is in seconds since 1970, 0 where it is unknown."""

    id: str
    namespace: str
    meaning: Meaning
    created: int
