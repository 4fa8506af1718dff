"""Costs over REST: trainings, answers, and whether a version pays."""

from datetime import date
from typing import Any

from finetune_operator.contract.usage import DayOfUsage, UsageReport
from finetune_operator.core.cost import price_book
from finetune_operator.store import usage
from tests.builders import AT_PROVIDER, abtest_object, condition, job_object, version_object
from tests.unit.web.rest.conftest import NOBODY, READER, Rest
from tests.unit.web.test_access import is_problem

COSTS = "/v1/fine-tuning/costs"
NO_PRICE = condition("CostKnown", "False", reason="NoPrice", message="no price for cpu: set prices.perHour.cpu")
EVALUATION: dict[str, Any] = {
    "id": "e", "time": "2026-11-20T12:00:00Z", "engine": "vllm-a", "examples": 10,
    "metrics": [{"name": "Accuracy", "base": "0.90", "fineTuned": "0.96"}],
    "costPerAnswer": {"currency": "USD", "base": "0.001", "fineTuned": "0.003"},
    "costPerMillionTokens": {"currency": "USD", "base": "2", "fineTuned": "2"},
}  # fmt: skip
ROI = f"{COSTS}/roi"
V2 = {"version": "plato-v2"}


def spent(amount: str, currency: str = "USD") -> dict[str, Any]:
    basis = "allocated time x 1 nvidia.com/gpu x 3.60 USD per hour"
    return {"cost": {"currency": currency, "spent": amount, "estimated": amount, "basis": basis}}


def put_job(rest: Rest, name: str, status: dict[str, Any], **spec: Any) -> None:
    rest.cluster.put("finetunejobs", job_object(spec, name=name, status={"phase": "Succeeded"} | status))


def put_version(rest: Rest, number: int, **status: Any) -> None:
    rest.cluster.put("modelversions", version_object(number, status=status))


async def call(rest: Rest, version: str, calls: int, with_tokens: int, tokens: int, day: int = 20) -> None:
    """As a gateway tells it."""
    counts = {"calls": calls, "calls_with_tokens": with_tokens, "completion_tokens": tokens}
    days = (DayOfUsage(version_uid=f"uid-of-{version}", day=date(2026, 11, day), **counts),)
    await usage.record(rest.services.engine, UsageReport(reporter=f"gateway-{day}", days=days))


async def test_the_summary_has_the_totals_of_each_currency(rest: Rest) -> None:
    put_job(rest, "plato-1", spent("10.50"))
    put_job(rest, "plato-2", spent("2.25"))
    put_job(rest, "plato-3", spent("3.00", "EUR"))
    put_job(rest, "plato-4", {"allocation": {"settledSeconds": 60}, "conditions": [NO_PRICE]})
    stopped = condition("WithinBudget", "False", reason="BudgetExceeded")
    put_job(rest, "plato-5", spent("1.00") | {"phase": "Suspended", "conditions": [stopped]})
    put_version(rest, 2, evaluation=EVALUATION)
    put_version(rest, 3)
    await call(rest, "plato-v2", 14, 10, 3_000_000)
    await call(rest, "plato-v3", 5, 5, 100)
    assert (await rest.get(COSTS, READER)).json() == {
        "totals": [
            {"currency": "EUR", "training": 3.0, "inference": None},
            {"currency": "USD", "training": 13.75, "inference": 6.0},
        ],
        "trainings": 5,
        "trainings_deleted": 0,
        "trainings_without_price": 1,
        "trainings_stopped_by_budget": 1,
        "versions": 2,
        "versions_deleted": 0,
        "versions_without_price": 1,
        "calls": 19,
        "calls_without_tokens": 4,
    }


async def test_a_training_has_its_basis_and_an_unknown_one_its_reason(rest: Rest) -> None:
    pods = [{"pod": "a", "start": "2026-01-01T10:00:00Z", "end": "2026-01-01T11:00:00Z"}]
    budget = {"maxCost": "20", "currency": "USD"}
    put_job(rest, "plato-1", spent("10.50") | {"attempts": 2, "allocation": {"pods": pods}}, budget=budget)
    put_job(rest, "plato-2", {"conditions": [NO_PRICE]})
    body = (await rest.get(f"{COSTS}/jobs", READER)).json()
    known = {job["id"]: job for job in body["jobs"]}
    first, second = known["finetune.plato-1"], known["finetune.plato-2"]
    assert (first["currency"], first["spent"], first["attempts"]) == ("USD", 10.5, 2)
    assert (first["allocated_seconds"], first["unknown"], first["budget"]["max_cost"]) == (3600, None, 20.0)
    assert first["basis"] == "allocated time x 1 nvidia.com/gpu x 3.60 USD per hour"
    assert (second["spent"], second["currency"]) == (None, None)
    assert second["unknown"] == "no price for cpu: set prices.perHour.cpu"


async def test_lists_come_in_pages(rest: Rest) -> None:
    for number in (1, 2, 3):
        put_job(rest, f"plato-{number}", spent("1.00"), model="kant" if number == 3 else "plato")
        put_version(rest, number + 1)
    for kind, of_plato in (("jobs", 2), ("models", 3)):
        first = (await rest.get(f"{COSTS}/{kind}", READER, limit=1, model="plato")).json()
        assert (len(first[kind]), first["total"], first["has_more"]) == (1, of_plato, True)
        second = (await rest.get(f"{COSTS}/{kind}", READER, limit=1, model="plato", after=first["next"])).json()
        assert second[kind][0]["id"] != first[kind][0]["id"]


async def test_the_answers_of_a_version_cost_generated_tokens_by_its_engines_price(rest: Rest) -> None:
    put_version(rest, 2, evaluation=EVALUATION)
    put_version(rest, 3)
    await call(rest, "plato-v2", 10, 8, 4_000_000, day=20)
    await call(rest, "plato-v2", 10, 8, 4_000_000, day=21)
    found = {each["id"]: each for each in (await rest.get(f"{COSTS}/models", READER)).json()["models"]}
    version = found["finetune.plato-v2"]
    assert (version["total"], version["per_call"], version["per_million_tokens"]) == (16.0, 1.0, 2.0)
    assert (version["calls"], version["calls_with_tokens"], version["calls_per_day"]) == (20, 16, 10.0)
    assert (version["first_day"], version["last_day"], version["unknown"]) == ("2026-11-20", "2026-11-21", None)
    assert version["basis"].startswith("generated tokens x 2 USD per million")
    unmeasured = found["finetune.plato-v3"]
    assert (unmeasured["total"], unmeasured["per_call"], unmeasured["per_million_tokens"]) == (None, None, None)
    assert (unmeasured["calls"], "spec.evaluation" in unmeasured["unknown"]) == (0, True)


async def test_a_provider_has_a_price_and_calls_that_nobody_counts(rest: Rest) -> None:
    prices = price_book('{"currency": "EUR", "perMillionGeneratedTokens": {"gpt-4.1-mini": "1.60"}}')
    object.__setattr__(rest.services, "settings", rest.services.settings.model_copy(update={"prices": prices}))
    rest.cluster.put("modelversions", version_object(2, AT_PROVIDER))
    (version,) = (await rest.get(f"{COSTS}/models", READER)).json()["models"]
    assert (version["currency"], version["per_million_tokens"]) == ("EUR", 1.6)
    assert (version["total"], version["per_call"]) == (None, None), "unknown is not 0"
    assert "the provider's bill has their cost" in version["unknown"]


class TestReturnOnInvestment:
    async def test_all_of_it_is_measured(self, rest: Rest) -> None:
        put_version(rest, 2, evaluation=EVALUATION)
        rest.cluster.put("finetunejobs", job_object({}, name="plato-job-2", uid="job-2", status=spent("500")))
        await call(rest, "plato-v2", 100, 100, 1000)
        body = (await rest.get(ROI, READER, **V2)).json()
        assert (body["id"], body["currency"], body["missing"]) == ("finetune.plato-v2", "USD", [])
        assert (body["break_even_calls"], body["payback_days"]) == (837, 8.37)
        assert (body["net_value_per_call"], body["verdict"]) == (0.598, "it pays after 837 calls, in 8.4 days")
        assert body["inputs"]["training_cost"]["source"].startswith("FineTuneJob plato-job-2, all attempts")
        assert body["inputs"]["days"] == {"value": 365.0, "origin": "default", "source": "a year"}

    async def test_what_is_given_goes_first(self, rest: Rest) -> None:
        put_version(rest, 2, evaluation=EVALUATION)
        body = (await rest.get(ROI, READER, **V2, training_cost="0.5", calls_per_day=1, days=30)).json()
        assert (body["inputs"]["training_cost"]["origin"], body["inputs"]["error_rate"]["origin"]) == (
            "given",
            "measured",
        )
        assert (body["break_even_calls"], body["calls"]) == (1, 30.0)

    async def test_unknown_inputs_are_named_with_what_would_make_them_known(self, rest: Rest) -> None:
        put_version(rest, 2)
        body = (await rest.get(ROI, READER, **V2)).json()
        assert (body["roi"], body["never_breaks_even"]) == (None, None)
        assert "training_cost" in body["missing"]
        assert (
            body["inputs"]["training_cost"]["source"] == "the FineTuneJob that made it is gone, or you may not see it"
        )

    async def test_another_job_of_the_same_name_is_not_its_training(self, rest: Rest) -> None:
        put_version(rest, 2, evaluation=EVALUATION)
        rest.cluster.put("finetunejobs", job_object({}, name="plato-job-2", uid="another", status=spent("500")))
        assert (await rest.get(ROI, READER, **V2)).json()["inputs"]["training_cost"]["value"] is None

    async def test_the_error_rates_of_a_test(self, rest: Rest) -> None:
        put_version(rest, 2, evaluation=EVALUATION)
        arms = {
            "baseline": {"servedName": "plato-v1", "samples": 10, "errors": 5},
            "candidate": {"servedName": "plato-v2", "samples": 10, "errors": 1},
        }
        rest.cluster.put("abtests", abtest_object(status={"arms": arms}))
        inputs = (await rest.get(ROI, READER, **V2, test="duel")).json()["inputs"]
        assert (inputs["base_error_rate"]["value"], inputs["error_rate"]["value"]) == (0.5, 0.1)
        put_version(rest, 1)
        assert is_problem(await rest.get(ROI, READER, version="plato-v1", test="duel"), 422, "other-candidate")

    async def test_two_currencies_are_not_added_up(self, rest: Rest) -> None:
        put_version(rest, 2, evaluation=EVALUATION)
        rest.cluster.put("finetunejobs", job_object({}, name="plato-job-2", uid="job-2", status=spent("5", "EUR")))
        assert is_problem(await rest.get(ROI, READER, **V2), 422, "two-currencies")
        assert (await rest.get(ROI, READER, **V2, training_cost=6)).json()["currency"] == "USD"

    async def test_wrong_inputs_are_refused(self, rest: Rest) -> None:
        put_version(rest, 2)
        for name, value in (("error_rate", "1.5"), ("training_cost", "-1"), ("calls_per_day", "NaN"), ("days", "x")):
            assert is_problem(await rest.get(ROI, READER, **V2, **{name: value}), 422, "invalid-request")
        assert is_problem(await rest.get(ROI, READER), 422, "invalid-request")
        assert is_problem(await rest.get(ROI, READER, version="plato-v9"), 404, "unknown-model-version")


async def test_who_may_read_nothing_is_told_so(rest: Rest) -> None:
    for path in (COSTS, f"{COSTS}/jobs", f"{COSTS}/models", f"{ROI}?version=plato-v2"):
        assert (await rest.get(path, NOBODY)).status_code == 403
