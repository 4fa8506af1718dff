"""What a training has taken up of the cluster, and what that costs."""

from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Decimal, ShortText, Timestamp

ALLOCATIONS_MAX = 64


class PodAllocation(ApiModel):
    """One pod's time on a node; open as long as it has no end."""

    pod: Annotated[str, Field(max_length=64)]
    """The pod's uid."""
    start: Timestamp
    """When it got its node, and with it the resources."""
    end: Timestamp | None = None
    """When its last container ended, or when it was gone."""


class AllocationStatus(ApiModel):
    """All pods' time on nodes; those that are gone stay counted."""

    settled_pods: int = 0
    """Ended pods that are no longer listed."""
    settled_seconds: int = 0
    """Their time."""
    settled_until: Timestamp | None = None
    """Pods that started until then are settled, unless they are listed."""
    pods: Annotated[tuple[PodAllocation, ...], Field(max_length=ALLOCATIONS_MAX)] = ()
    """The latest pods, in the order of their start."""


class CostStatus(ApiModel):
    """Allocated time x price, failed and suspended attempts included; absent amounts are unknown, not 0."""

    currency: Annotated[str, Field(max_length=16)] | None = None
    """Of the amounts."""
    spent: Decimal | None = None
    """Until `time`."""
    estimated: Decimal | None = None
    """At the end of the training at its present pace."""
    basis: ShortText | None = None
    """What is multiplied by what."""
    time: Timestamp | None = None
    """When this was computed: with each other change of the status."""
