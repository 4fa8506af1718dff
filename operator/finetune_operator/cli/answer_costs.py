"""What the answers of versions have cost, by the api, which knows their tokens. What is not known is said."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from finetune_operator.cli.api_access import ApiClient, api_at
from finetune_operator.cli.failures import Failed
from finetune_operator.cli.kinds import text
from finetune_operator.cli.options import Api, Cluster
from finetune_operator.cli.printing import Column, clean, table

MODELS_PATH = "/v1/fine-tuning/costs/models"
PAGE = 500
UNKNOWN = "unknown"

Object = dict[str, Any]


class AnswerCost(NamedTuple):
    """Absent amounts are unknown."""

    version: str
    model: str
    calls: int
    calls_without_tokens: int
    currency: str | None
    spent: Decimal | None
    why_unknown: str | None
    deleted_at: str | None = None

    def data(self) -> Object:
        return self._asdict() | {"spent": None if self.spent is None else str(self.spent)}


class AnswerCosts(NamedTuple):
    """Of all versions, deleted ones too, or why the api told none."""

    versions: tuple[AnswerCost, ...] = ()
    why_unknown: str | None = None

    @property
    def unknown(self) -> tuple[AnswerCost, ...]:
        return tuple(each for each in self.versions if each.spent is None)

    def totals(self) -> dict[str, str]:
        """By currency."""
        sums: dict[str, Decimal] = {}
        for each in self.versions:
            if each.spent is not None:
                currency = each.currency or UNKNOWN
                sums[currency] = sums.get(currency, Decimal(0)) + each.spent
        return {currency: str(amount) for currency, amount in sorted(sums.items())}

    def data(self) -> Object:
        if self.why_unknown is not None:
            return {"answers": None, "answers_unknown": self.why_unknown}
        versions = [each.data() for each in self.versions]
        answers = {"versions": versions, "totals": self.totals(), "unknown": len(self.unknown)}
        return {"answers": answers, "answers_unknown": None}


async def answer_costs(cluster: Cluster, api: Api, namespace: str | None, model: str | None) -> AnswerCosts:
    """Of one namespace, or of all. Where there is no api, or it does not answer, trainings have costs all the same."""
    filters = {name: value for name, value in (("namespace", namespace), ("model", model)) if value}
    try:
        async with api_at(cluster, api) as reached:
            there = await _costs(reached.client, filters, is_deleted=False)
            gone = await _costs(reached.client, filters | {"deleted": "true"}, is_deleted=True)
    except Failed as failed:
        return AnswerCosts(why_unknown=str(failed))
    return AnswerCosts(there + tuple(each for each in gone if each.calls))


async def _costs(client: ApiClient, filters: Mapping[str, str], *, is_deleted: bool) -> tuple[AnswerCost, ...]:
    params = {"limit": str(PAGE), **filters}
    found: list[AnswerCost] = []
    while True:
        page = await client.ask("GET", MODELS_PATH, params=params)
        told = [cost for cost in map(_cost_of, page["models"]) if (cost.deleted_at is not None) == is_deleted]
        found += told
        # An api that does not know of deleted ones answers with those that are there.
        if not page["has_more"] or not told:
            return tuple(found)
        params["after"] = page["next"]


def print_answer_costs(console: Console, costs: AnswerCosts) -> None:
    """Below what trainings have cost."""
    console.print()
    if costs.why_unknown is not None:
        console.print(Text(f"answers: {UNKNOWN}: {clean(costs.why_unknown)}", style="yellow"), soft_wrap=True)
        return
    if costs.versions:
        columns = [Column("VERSION"), Column("MODEL", 1), Column("CALLS", right=True), Column("ANSWERS", right=True)]
        console.print(table(columns, _rows(costs.versions), console.width))
        console.print()
    for currency, amount in costs.totals().items():
        console.print(f"[bold]{amount} {currency}[/] spent on answers", highlight=False)
    if untold := sum(each.calls_without_tokens for each in costs.versions if each.spent is not None):
        told = f"{untold} of their calls told no tokens, and are in no sum: ask streams with"
        console.print(Text(f"{told} stream_options.include_usage", style="yellow"), soft_wrap=True)
    if missing := costs.unknown:
        why = next((each.why_unknown for each in missing if each.why_unknown), None)
        told = f"answers of {len(missing)} of {len(costs.versions)} versions unknown, and in no sum"
        console.print(Text(f"{told}: {clean(why)}" if why else told, style="yellow"), soft_wrap=True)


def _rows(costs: Iterable[AnswerCost]) -> list[list[str | Text]]:
    missing = Text(UNKNOWN, style="yellow")
    return [
        [
            clean(f"{each.version} (deleted)" if each.deleted_at else each.version),
            clean(each.model),
            str(each.calls),
            missing if each.spent is None else f"{each.spent} {each.currency or ''}".strip(),
        ]
        for each in costs
    ]


def _cost_of(body: Object) -> AnswerCost:
    """As decimals of what the api rounds to cents or millionths."""
    spent = body["total"]
    return AnswerCost(
        version=body["id"],
        model=body["model"],
        calls=body["calls"],
        calls_without_tokens=body["calls"] - body["calls_with_tokens"],
        currency=body["currency"],
        spent=None if spent is None else Decimal(str(spent)),
        why_unknown=text(body["unknown"]) if spent is None and body["unknown"] else None,
        deleted_at=body.get("deleted_at"),
    )
