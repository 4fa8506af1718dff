"""What the rows of custom resources sum up to. Each is one read of an index, in which the sums' columns are."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Double, Select, SQLColumnExpression, case, cast, func, literal, select
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.mirrored import Facts
from finetune_operator.store.tables import DeletedVersion, MirroredResource, VersionUsage
from finetune_operator.store.usage import Used

MICROS = 1_000_000
Namespaces = tuple[str, ...] | None
"""None for all."""


@dataclass
class TrainingSums:
    """What trainings have spent, by the currency; `unpriced` ones have begun and have no price.

    `deleted` are those of all whose FineTuneJob is gone.
    """

    count: int = 0
    unpriced: int = 0
    over_budget: int = 0
    deleted: int = 0
    spent: dict[str, Decimal] = field(default_factory=dict)

    def add_row(
        self, currency: str | None, count: int, deleted: int, unpriced: int, over_budget: int, micros: int | None
    ) -> None:
        """Of many, as `trainings_there` has them."""
        self.count += count
        self.deleted += deleted
        self.unpriced += unpriced
        self.over_budget += over_budget
        if currency is not None and micros is not None:
            self.spent[currency] = self.spent.get(currency, Decimal(0)) + Decimal(micros) / MICROS

    def add(self, facts: Facts) -> None:
        """One training, where there are no tables of all."""
        self.count += 1
        self.unpriced += facts.is_unpriced
        self.over_budget += facts.is_over_budget
        if facts.currency is not None and facts.amount_micros is not None:
            before = self.spent.get(facts.currency, Decimal(0))
            self.spent[facts.currency] = before + Decimal(facts.amount_micros) / MICROS


@dataclass
class AnswerSums:
    """What answers of versions cost, by the currency; `unpriced` versions were called and have no price.

    `deleted` are those of all whose ModelVersion is gone. Of the calls, `untold` are those whose engine told no tokens.
    """

    versions: int = 0
    deleted: int = 0
    unpriced: int = 0
    calls: int = 0
    untold: int = 0
    spent: dict[str, Decimal] = field(default_factory=dict)

    def add_row(self, currency: str | None, unpriced: int, calls: int, told: int, micros: float | None) -> None:
        """Of many, as `answers_of` has them."""
        self.unpriced += unpriced
        self.calls += int(calls)
        self.untold += int(calls) - int(told)
        if currency is not None and micros is not None:
            self.spent[currency] = self.spent.get(currency, Decimal(0)) + Decimal(micros) / MICROS

    def add(self, facts: Facts, used: Used | None) -> None:
        """One version, where there are no tables of all."""
        self.versions += 1
        if used is None:
            return
        self.calls += used.calls
        self.untold += used.calls - used.calls_with_tokens
        if (
            facts.currency is not None
            and facts.amount_micros is not None
            and (used.calls_with_tokens or not used.calls)
        ):
            cost = Decimal(facts.amount_micros) * used.completion_tokens / MICROS / MICROS
            self.spent[facts.currency] = self.spent.get(facts.currency, Decimal(0)) + cost
        elif used.calls:
            self.unpriced += 1


@dataclass(frozen=True)
class Mean:
    """`value` is None of nothing."""

    value: float | None
    count: int


async def states(engine: AsyncEngine, plural: str, namespaces: Namespaces) -> dict[str | None, int]:
    """How many resources are in each state; the key of those in none is None."""
    query = (
        select(MirroredResource.state, func.count()).where(*_of(plural, namespaces)).group_by(MirroredResource.state)
    )
    async with engine.connect() as connection:
        return {row[0]: row[1] for row in (await connection.execute(query)).all()}


async def win_rates(engine: AsyncEngine, plural: str, namespaces: Namespaces) -> Mean:
    """Of all versions that were judged."""
    rate = MirroredResource.win_rate
    query = select(func.avg(rate), func.count(rate)).where(*_of(plural, namespaces))
    async with engine.connect() as connection:
        value, count = (await connection.execute(query)).one()
    return Mean(value, count)


def trainings_there(plural: str, namespaces: Namespaces) -> Select[str | None, int, int, int, int, Any]:
    """By currency: how many, deleted, without a price and over their budget, and what they spent, in millionths."""
    currency = MirroredResource.currency
    return (
        select(
            currency,
            func.count(),
            literal(0),
            _times(MirroredResource.is_unpriced),
            _times(MirroredResource.is_over_budget),
            func.sum(MirroredResource.amount_micros),
        )
        .where(*_of(plural, namespaces))
        .group_by(currency)
    )


def versions_there(plural: str, namespaces: Namespaces) -> Select[int]:
    """How many there are."""
    return select(func.count()).select_from(MirroredResource).where(*_of(plural, namespaces))


def answers_there(plural: str, namespaces: Namespaces) -> Select[str | None, int, Any, Any, Any]:
    """Those that were called are few, so that only their prices are looked up."""
    return answers_of(MirroredResource, _of(plural, namespaces))


def answers_of(
    table: type[MirroredResource | DeletedVersion], conditions: Iterable[ColumnElement[bool]]
) -> Select[str | None, int, Any, Any, Any]:
    """By currency: versions without a price, calls, those of them that told tokens, and what these cost, in millionths.

    A price is of a million tokens, and of a version whose engine told none it says nothing.
    """
    counts = (func.sum(getattr(VersionUsage, name)).label(name) for name in ("calls", "calls_with_tokens"))
    tokens = func.sum(VersionUsage.completion_tokens).label("tokens")
    used = select(VersionUsage.version_uid, *counts, tokens).group_by(VersionUsage.version_uid).subquery()
    price, currency = table.amount_micros, table.currency
    is_known = price.is_not(None) & ((used.c.calls_with_tokens > 0) | (used.c.calls == 0))
    cost = cast(price, Double) * cast(used.c.tokens, Double) / MICROS
    return (
        select(
            currency,
            _times(~is_known & (used.c.calls > 0)),
            func.sum(used.c.calls),
            func.sum(used.c.calls_with_tokens),
            func.sum(case((is_known, cost))),
        )
        .join(used, used.c.version_uid == table.uid)
        .where(*conditions)
        .group_by(currency)
    )


def _of(plural: str, namespaces: Namespaces) -> list[ColumnElement[bool]]:
    conditions = [MirroredResource.plural == plural]
    if namespaces is not None:
        conditions.append(MirroredResource.namespace.in_(namespaces))
    return conditions


def _times(condition: SQLColumnExpression[bool]) -> ColumnElement[int]:
    """How often it holds."""
    return func.count(case((condition, 1)))
