"""Condition CostKnown of a ModelVersion: whether it is known what its answers cost, and what to set where it is not."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.core.conditions import find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.reconcile.modelversion import Observed, reconcile
from finetune_operator.resources.modelversion import ModelVersionStatus
from tests.builders import AT_PROVIDER, CONFIG, NOON, make_version

PRICED = replace(CONFIG, prices=PriceBook(per_million_generated_tokens={"gpt-4.1-mini": Decimal("1.60")}))


@pytest.mark.parametrize(
    ("spec", "config", "told"),
    [
        pytest.param({}, CONFIG, ("False", "NotMeasured", "set spec.evaluation.metrics"), id="served, not measured"),
        pytest.param(AT_PROVIDER, CONFIG, ("False", "NoPrice", "set prices.perMillionGen"), id="a provider, no price"),
        pytest.param(AT_PROVIDER, PRICED, ("True", "Priced", "generated tokens x 1.60 USD"), id="a provider's price"),
        pytest.param({"serving": None}, CONFIG, None, id="answers nowhere"),
    ],
)
def test_whether_the_cost_is_known_is_a_condition(
    spec: dict[str, Any], config: OperatorConfig, told: tuple[str, str, str] | None
) -> None:
    plan = reconcile(make_version(1, spec), Observed(), NOON, config)
    found = find(ModelVersionStatus.model_validate(plan.status).conditions, "CostKnown")
    if told is None:
        assert found is None
        return
    assert found is not None
    assert (found.status.value, found.reason) == told[:2]
    assert told[2] in found.message
