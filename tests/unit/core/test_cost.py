"""What a training costs, and when nobody can say."""

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.cost import NoPrice, PriceBook, Rate, cost_status, hourly_rate, price_book
from finetune_operator.core.quantities import number
from finetune_operator.resources.common import ResourceRequirements, Scheduling
from tests.builders import NOON

H100 = "NVIDIA-H100-80GB-HBM3"
PRICES = PriceBook(
    currency="EUR",
    per_hour={"nvidia.com/gpu": Decimal("2.50"), "cpu": Decimal("0.04"), "amd.com/gpu": Decimal(2)},
    gpu_types={H100: Decimal("3.90")},
)


def rate(
    limits: Mapping[str, int | str],
    gpu_type: str | None = None,
    prices: PriceBook = PRICES,
    requests: Mapping[str, int | str] | None = None,
) -> Rate | NoPrice:
    resources = ResourceRequirements(limits=dict(limits), requests=dict(requests or {}))
    selector = {"nvidia.com/gpu.product": gpu_type} if gpu_type else {}
    return hourly_rate(resources, Scheduling(node_selector=selector), prices)


RATES: dict[str, tuple[Rate | NoPrice, str, str]] = {
    "a GPU of any type": (rate({"nvidia.com/gpu": 1}), "2.50", "1 nvidia.com/gpu x 2.50 EUR per hour"),
    "of a type with a price": (rate({"nvidia.com/gpu": 1}, H100), "3.90", "1 nvidia.com/gpu x 3.90"),
    "of a type without one": (rate({"nvidia.com/gpu": 1}, "NVIDIA-L4"), "2.50", "x 2.50"),
    "eight of them": (rate({"nvidia.com/gpu": "8"}, H100), "31.20", "8 nvidia.com/gpu x 3.90"),
    "a GPU's price includes its machine": (rate({"nvidia.com/gpu": 1, "cpu": 16}), "2.50", "nvidia.com/gpu"),
    "two kinds of devices": (
        rate({"nvidia.com/gpu": 1, "amd.com/gpu": 1}), "4.50", "1 amd.com/gpu x 2 EUR per hour + 1 nvidia.com/gpu",
    ),
    "cores without a GPU": (rate({"cpu": "1500m"}), "0.0600", "1.5 cpu x 0.04 EUR per hour"),
    "the scheduler reserves the request": (rate({"cpu": 4}, requests={"cpu": "2"}), "0.08", "2 cpu x 0.04"),
    "ten cores are not 1E+1": (rate({"cpu": 10}), "0.40", "10 cpu"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "per_hour", "basis"), RATES.values(), ids=RATES.keys())
def test_the_price_of_one_pod(found: Rate | NoPrice, per_hour: str, basis: str) -> None:
    assert isinstance(found, Rate)
    assert found.per_hour == Decimal(per_hour)
    assert basis in found.basis


UNKNOWN: dict[str, tuple[Rate | NoPrice, tuple[str, ...]]] = {
    "no price book": (
        rate({"nvidia.com/gpu": 1}, None, PriceBook()),
        ('set prices.perHour."nvidia.com/gpu"', "values"),
    ),
    "of this type neither": (rate({"nvidia.com/gpu": 1}, H100, PriceBook()), (f"prices.gpuTypes.{H100}",)),
    "one device of two": (rate({"nvidia.com/gpu": 1, "rdma/hca": 1}), ('prices.perHour."rdma/hca"',)),
    "nothing asked for": (rate({}), ("spec.resources.requests.cpu",)),
    "a GPU type does not price other devices": (rate({"example.com/gpu": 1}, H100), ("example.com/gpu",)),
    "less than nothing": (rate({"cpu": -1}), ("cpu: '-1' is no quantity",)),
    "no quantity of another resource": (rate({"cpu": 1, "memory": -1}), ("memory: '-1' is no quantity",)),
    "more than anybody can count": (rate({"cpu": "1e99999999"}), ("cpu: '1e99999999' is no quantity",)),
    "more than anybody can pay": (rate({"cpu": "1e30"}), ("cpu: '1e30' is no quantity",)),
}


@pytest.mark.parametrize(("found", "say"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_price_says_what_to_set(found: Rate | NoPrice, say: tuple[str, ...]) -> None:
    assert isinstance(found, NoPrice)
    for words in say:
        assert words in found.message


AMOUNTS: dict[str, tuple[str, int, int | None, str, str | None]] = {
    "an hour": ("2.50", 3600, None, "2.50", None),
    "half a cent is rounded up": ("1.005", 3600, None, "1.01", None),
    "below one unit: four digits": ("2.50", 36, None, "0.0250", None),
    "nothing was allocated yet": ("2.50", 0, None, "0.0000", None),
    "as long again": ("2.50", 3600, 3600, "2.50", "5.00"),
    "a sum that floats get wrong": ("0.1", 3 * 3600, None, "0.3000", None),
}


@pytest.mark.parametrize(("per_hour", "spent", "left", "cost", "estimate"), AMOUNTS.values(), ids=AMOUNTS.keys())
def test_amounts(per_hour: str, spent: int, left: int | None, cost: str, estimate: str | None) -> None:
    status = cost_status(Rate(Decimal(per_hour), "basis"), PRICES, spent, left, NOON)
    assert (status.currency, status.spent, status.estimated, status.time) == ("EUR", cost, estimate, NOON)


def test_without_a_price_there_is_no_amount_rather_than_0() -> None:
    assert cost_status(NoPrice("set it"), PRICES, 3600, 60, NOON).to_dict() == {"time": "2026-01-01T12:00:00Z"}


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.decimals("0.01", "1000", places=2))
def test_more_time_never_costs_less(seconds: int, more: int, per_hour: Decimal) -> None:
    first, second = (cost_status(Rate(per_hour, ""), PRICES, n, 0, NOON).spent for n in (seconds, seconds + more))
    assert first is not None
    assert second is not None
    assert Decimal(first) <= Decimal(second)
    assert abs(Decimal(first) - per_hour * seconds / 3600) <= Decimal("0.005")


def test_the_price_book_as_the_chart_writes_it() -> None:
    text = '{"currency": "EUR", "perHour": {"nvidia.com/gpu": "2.50", "cpu": 0.04}, "gpuTypes": {"NVIDIA-L4": "0.8"}}'
    book = price_book(text)
    assert (book.currency, book.per_hour["cpu"], book.gpu_types["NVIDIA-L4"]) == (
        "EUR",
        Decimal("0.04"),
        Decimal("0.8"),
    )


WRONG = {
    "no JSON": ("2.50", "must be JSON"),
    "a word": ('{"perHour": {"cpu": "cheap"}}', "perHour.cpu"),
    "a negative price": ('{"gpuTypes": {"NVIDIA-L4": "-1"}}', "gpuTypes.NVIDIA-L4"),
    "not a number": ('{"perHour": {"cpu": "NaN"}}', "perHour.cpu"),
    "a misspelt key": ('{"perhour": {}}', "perhour"),
}


@pytest.mark.parametrize(("text", "hint"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_price_book_says_where(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="must be JSON such as") as caught:
        price_book(text)
    assert hint in str(caught.value)


QUANTITIES: dict[int | str, str] = {
    2: "2", "2": "2", "500m": "0.5", ".5": "0.5", "1.5": "1.5", "1e3": "1000", "2k": "2000", "2Ki": "2048",
    "1Gi": "1073741824", "1M": "1000000", "3e-1": "0.3",
}  # fmt: skip


@pytest.mark.parametrize(("quantity", "value"), QUANTITIES.items(), ids=map(str, QUANTITIES))
def test_quantities(quantity: int | str, value: str) -> None:
    assert number(quantity) == Decimal(value)


@pytest.mark.parametrize("quantity", ["", "lots", "1 Gi", "-1", "1GB", "1K"])
def test_what_is_no_quantity(quantity: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        number(quantity)
