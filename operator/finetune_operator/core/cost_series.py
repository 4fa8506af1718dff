"""Costs as series for Prometheus, summed up so that their number is bounded however many objects there are.

Pure; of raw objects, since there may be a hundred thousand trainings. What is not known has no series.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from finetune_operator.core.inference_cost import amount

Object = Mapping[str, Any]
Labels = tuple[str, ...]

MAX_SERIES = 500
OTHERS = "(others)"
"""Of the models that cost the least, where there are too many of them."""
BUDGET_CONDITION = "WithinBudget"


@dataclass(frozen=True)
class CostSeries:
    """Values by their labels."""

    training: dict[Labels, Decimal] = field(default_factory=dict)
    """By namespace, model and currency: spent on all trainings that are there."""
    trainings: dict[Labels, int] = field(default_factory=dict)
    """By namespace and phase."""
    unpriced: dict[Labels, int] = field(default_factory=dict)
    """By namespace: trainings that took resources without a price."""
    held_by_budget: dict[Labels, int] = field(default_factory=dict)
    """By namespace and reason."""
    per_million_tokens: dict[Labels, Decimal] = field(default_factory=dict)
    """By namespace, served name and currency."""
    per_answer: dict[Labels, Decimal] = field(default_factory=dict)
    """By namespace, served name and currency."""


def cost_series(jobs: Iterable[Object], versions: Iterable[Object]) -> CostSeries:
    """Of all FineTuneJobs and ModelVersions that are known."""
    training: Counter[Labels] = Counter()
    spent: dict[Labels, Decimal] = {}
    unpriced: Counter[Labels] = Counter()
    held: Counter[Labels] = Counter()
    for body in jobs:
        namespace, status = body["metadata"]["namespace"], body.get("status") or {}
        training[(namespace, status.get("phase") or "Queued")] += 1
        cost = status.get("cost") or {}
        value = amount(cost.get("spent"))
        if value is not None and cost.get("currency"):
            key = (namespace, body["spec"]["model"], cost["currency"])
            spent[key] = spent.get(key, Decimal(0)) + value
        elif status.get("allocation"):
            unpriced[(namespace,)] += 1
        if status.get("phase") == "Suspended":
            for condition in status.get("conditions") or ():
                if condition["type"] == BUDGET_CONDITION and condition["status"] == "False":
                    held[(namespace, condition["reason"])] += 1
    per_million, per_answer = _of_versions(versions)
    return CostSeries(_bounded(spent), dict(training), dict(unpriced), dict(held), per_million, per_answer)


def _of_versions(versions: Iterable[Object]) -> tuple[dict[Labels, Decimal], dict[Labels, Decimal]]:
    found: tuple[dict[Labels, Decimal], dict[Labels, Decimal]] = ({}, {})
    for body in versions:
        status = body.get("status") or {}
        evaluation = status.get("evaluation") or {}
        if not status.get("engine"):
            continue
        name = status.get("servedName") or body["metadata"]["name"]
        for member, series in zip(("costPerMillionTokens", "costPerAnswer"), found, strict=True):
            cost = evaluation.get(member) or {}
            value = amount(cost.get("fineTuned"))
            if value is not None and len(series) < MAX_SERIES:
                series[(body["metadata"]["namespace"], name, cost["currency"])] = value
    return found


def _bounded(spent: Mapping[Labels, Decimal]) -> dict[Labels, Decimal]:
    """The dearest models by their names, all others together."""
    ordered = sorted(spent.items(), key=lambda item: (-item[1], item[0]))
    found = dict(ordered[:MAX_SERIES])
    for (namespace, _, currency), value in ordered[MAX_SERIES:]:
        key = (namespace, OTHERS, currency)
        found[key] = found.get(key, Decimal(0)) + value
    return found
