"""A base model of the hub: what a job asks for, and what its first fetch made of that."""

from finetune_operator.contract.base import Message


class HubModel(Message):
    """A repository of the hub; `revision` is a branch, a tag or a commit."""

    id: str
    revision: str


class FetchedModel(Message):
    """Which commit a job trains on, written once: later attempts use the same, however the branch has moved."""

    id: str
    commit: str
