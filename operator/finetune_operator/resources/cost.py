"""What a training has taken up of the cluster, what that costs, and what it may cost."""

from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Decimal, ShortText, Timestamp, rule, rules

ALLOCATIONS_MAX = 64


class Budget(ApiModel):
    """What a training may cost, failed and suspended attempts included."""

    model_config = rules(
        rule("double(self.maxCost) > 0.0", "maxCost must be above 0: remove budget for none", field_path=".maxCost")
    )

    max_cost: Annotated[str, Field(max_length=16, pattern=r"^[0-9]+(\.[0-9]+)?$")]
    """Amount of money, such as "25.00". The training does not begin if its preflight says that it costs more at the
    least, and is suspended, with a checkpoint, when status.cost.spent reaches it; a pod that writes its checkpoint
    takes up to another minute. Raised, the training goes on."""
    currency: Annotated[str, Field(min_length=1, max_length=16)] = "USD"
    """Of the amount; must be that of the installation's prices, which are not converted."""


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
