"""What trainings cost whose FineTuneJob was deleted, by the api: the cluster has nothing of them."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from finetune_operator.cli.answer_costs import PAGE, UNKNOWN
from finetune_operator.cli.api_access import api_at
from finetune_operator.cli.failures import Failed
from finetune_operator.cli.options import Api, Cluster
from finetune_operator.cli.printing import clean

JOBS_PATH = "/v1/fine-tuning/costs/jobs"

Object = dict[str, Any]


class DeletedCost(NamedTuple):
    """An absent amount is unknown."""

    job: str
    model: str
    deleted_at: str
    currency: str | None
    spent: Decimal | None

    def data(self) -> Object:
        return self._asdict() | {"spent": None if self.spent is None else str(self.spent)}


class DeletedCosts(NamedTuple):
    """Of all deleted trainings, or why the api told none."""

    trainings: tuple[DeletedCost, ...] = ()
    why_unknown: str | None = None

    @property
    def unknown(self) -> int:
        return sum(each.spent is None for each in self.trainings)

    def of(self, currency: str) -> tuple[Decimal, ...]:
        return tuple(
            each.spent for each in self.trainings if each.spent is not None and (each.currency or UNKNOWN) == currency
        )

    def totals(self) -> dict[str, Decimal]:
        """By currency."""
        names = sorted({each.currency or UNKNOWN for each in self.trainings if each.spent is not None})
        return {name: sum(self.of(name), Decimal(0)) for name in names}

    def data(self) -> Object:
        if self.why_unknown is not None:
            return {"deleted": None, "deleted_unknown": self.why_unknown}
        totals = {currency: str(amount) for currency, amount in self.totals().items()}
        jobs = [each.data() for each in self.trainings]
        return {"deleted": {"jobs": jobs, "totals": totals, "unknown": self.unknown}, "deleted_unknown": None}


async def deleted_costs(cluster: Cluster, api: Api, namespace: str | None, model: str | None) -> DeletedCosts:
    """Of one namespace, or of all."""
    filters = {"namespace": namespace, "model": model}
    params = {"deleted": "true", "limit": str(PAGE)} | {name: value for name, value in filters.items() if value}
    found: list[DeletedCost] = []
    try:
        async with api_at(cluster, api) as reached:
            while True:
                page = await reached.client.ask("GET", JOBS_PATH, params=params)
                told = tuple(_deleted(page["jobs"]))
                found += told
                # An api that does not know the question answers with those that are there.
                if not page["has_more"] or not told:
                    return DeletedCosts(tuple(found))
                params["after"] = page["next"]
    except Failed as failed:
        return DeletedCosts(why_unknown=str(failed))


def print_deleted_costs(console: Console, costs: DeletedCosts) -> None:
    """Below the sums of those that are there."""
    if costs.why_unknown is not None:
        told = f"deleted trainings: {UNKNOWN}: {clean(costs.why_unknown)}"
        console.print(Text(told, style="yellow"), soft_wrap=True)
    for currency, amount in costs.totals().items():
        console.print(
            f"[bold]{amount} {clean(currency)}[/] spent on {_counted(len(costs.of(currency)))}", highlight=False
        )
    if costs.unknown:
        told = f"{costs.unknown} of {_counted(len(costs.trainings))} unknown, and in no sum"
        console.print(Text(told, style="yellow"), soft_wrap=True)


def _counted(count: int) -> str:
    return "1 deleted training" if count == 1 else f"{count} deleted trainings"


def _deleted(jobs: Iterable[Object]) -> Iterable[DeletedCost]:
    """As decimals of what the api rounds."""
    for job in jobs:
        if (deleted_at := job.get("deleted_at")) is not None:
            spent = None if job["spent"] is None else Decimal(str(job["spent"]))
            yield DeletedCost(job["id"], job["model"], deleted_at, job["currency"], spent)
