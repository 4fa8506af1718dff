"""`cost`: what trainings have cost by their statuses; with the api also answers, and whether a version pays.

What is not known is said, and never counted as 0.
"""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from finetune_operator.cli.answer_costs import UNKNOWN, answer_costs, print_answer_costs
from finetune_operator.cli.api_access import api_at
from finetune_operator.cli.connection import connected
from finetune_operator.cli.deleted_costs import deleted_costs, print_deleted_costs
from finetune_operator.cli.failures import ExitCode, Failed, refused
from finetune_operator.cli.kinds import JOB, found, job_state, styled, text
from finetune_operator.cli.options import Api, Cluster, Format
from finetune_operator.cli.printing import Column, clean, hint, output, print_data, table

COSTS_PATH = "/v1/fine-tuning/costs"
UNKNOWN_PATH = ("Not Found", "there is no path")
"""How apis say that they have no such path: those of earlier releases, and those of this one."""
ROI_LINES = (
    ("net_value_per_call", "net value of a call"),
    ("value_of_errors_saved", "value of the errors saved"),
    ("extra_inference_cost", "answers cost more by"),
    ("net_value", "net value"),
    ("roi", "return on the investment"),
    ("break_even_calls", "calls until it has paid"),
    ("payback_days", "days until it has paid"),
)

Object = dict[str, Any]


class JobCost(NamedTuple):
    """Absent amounts are unknown."""

    namespace: str
    job: str
    model: str
    phase: str
    currency: str | None
    spent: Decimal | None
    estimated: Decimal | None
    basis: str | None
    why_unknown: str | None

    def data(self) -> dict[str, Any]:
        return self._asdict() | {
            "spent": None if self.spent is None else str(self.spent),
            "estimated": None if self.estimated is None else str(self.estimated),
        }


async def cost(
    cluster: Cluster, name: str | None, model: str | None, form: Format, *, everywhere: bool, api: Api | None = None
) -> None:
    """Of one training, or of all; of all with what answers have cost where the api is to be asked. Raises `Failed`."""
    async with connected(cluster) as connection:
        namespace = None if everywhere else connection.namespace
        if name:
            bodies = [await connection.get(JOB.plural, name.removeprefix("job/"))]
        else:
            bodies = await connection.list(JOB.plural, namespace)
    costs = sorted(
        (cost_of(body) for body in bodies if model is None or body["spec"]["model"] == model),
        key=lambda each: (each.currency or "", -(each.spent or Decimal(-1))),
    )
    gone = await deleted_costs(cluster, api, namespace, model) if api and not name else None
    answers = await answer_costs(cluster, api, namespace, model) if api and not name else None
    if form is not Format.TABLE:
        data = {"jobs": [each.data() for each in costs], "totals": totals(costs), "unknown": unknown(costs)}
        print_data(data | (gone.data() if gone else {}) | (answers.data() if answers else {}), form)
        return
    console = output()
    if costs:
        _print_trainings(console, costs, everywhere=everywhere)
    else:
        hint("No trainings here.")
    if gone:
        print_deleted_costs(console, gone)
    if answers:
        print_answer_costs(console, answers)


def _print_trainings(console: Console, costs: list[JobCost], *, everywhere: bool) -> None:
    columns = [
        *([Column("NAMESPACE")] if everywhere else []), Column("JOB"), Column("MODEL", 3), Column("PHASE", 2),
        Column("SPENT", right=True), Column("AT ITS END", 1, right=True), Column("BASIS", 4),
    ]  # fmt: skip
    rows = [[*([each.namespace] if everywhere else []), *_row(each)] for each in costs]
    console.print(table(columns, rows, console.width))
    console.print()
    for currency, amount in totals(costs).items():
        console.print(f"[bold]{amount} {currency}[/] spent on {_jobs(costs, currency)}", highlight=False)
    if missing := unknown(costs):
        why = next((each.why_unknown for each in costs if each.spent is None and each.why_unknown), None)
        told = f"{missing} of {len(costs)} unknown, and in no sum" + (f": {why}" if why else "")
        console.print(Text(told, style="yellow"), soft_wrap=True)


async def totals_by_api(cluster: Cluster, api: Api, form: Format) -> None:
    """Trainings and answers of each currency. Raises `Failed`."""
    answer = await _asked(cluster, api, COSTS_PATH, {})
    if form is not Format.TABLE:
        print_data(answer, form)
        return
    columns = [Column("CURRENCY"), Column("TRAININGS", right=True), Column("ANSWERS", right=True)]
    rows = [[each["currency"], _number(each["training"]), _number(each["inference"])] for each in answer["totals"]]
    console = output()
    if rows:
        console.print(table(columns, rows, console.width))
    gone = answer.get("trainings_deleted")
    deleted = f" ({gone} deleted)" if gone else ""
    gone_versions = f" ({gone} deleted)" if (gone := answer.get("versions_deleted")) else ""
    versions = f"{answer['versions']} versions{gone_versions}"
    counts = f"{answer['trainings']} trainings{deleted}, {versions}, {answer['calls']} calls"
    console.print(counts, highlight=False)
    missing = answer["trainings_without_price"] + answer["versions_without_price"]
    if missing:
        console.print(Text(f"{missing} of them without a price, and in no sum", style="yellow"))
    if untold := answer.get("calls_without_tokens"):
        told = f"{untold} of the calls told no tokens, and are in no sum: ask streams with stream_options.include_usage"
        console.print(Text(told, style="yellow"), soft_wrap=True)


async def roi(cluster: Cluster, api: Api, version: str, value_per_error: str | None, form: Format) -> None:
    """Whether a version pays, with what that was computed from. Raises `Failed`."""
    params = {"value_per_error_saved": value_per_error} if value_per_error else {}
    answer = await _asked(cluster, api, f"{COSTS_PATH}/roi", params, version=version.removeprefix("version/"))
    if form is not Format.TABLE:
        print_data(answer, form)
        return
    console = output()
    console.print(f"{answer['id']}: {clean(answer['verdict'])}", highlight=False, markup=False, soft_wrap=True)
    rows = [[label, _number(answer[name])] for name, label in ROI_LINES if answer.get(name) is not None]
    rows += [
        [f"from {name.replace('_', ' ')}", f"{_number(each['value'])}  ({clean(each['source'])})"]
        for name, each in answer["inputs"].items()
    ]
    console.print(table([Column(""), Column(answer["currency"] or "")], rows, console.width))
    if answer["missing"]:
        told = f"unknown: {', '.join(answer['missing'])}; what depends on it is left out"
        console.print(Text(told, style="yellow"), soft_wrap=True)


async def _asked(cluster: Cluster, api: Api, path: str, params: dict[str, str], version: str = "") -> Object:
    async with api_at(cluster, api) as reached:
        if version:
            params = {**params, "version": f"{reached.namespace}.{version}" if reached.namespace else version}
        elif reached.namespace:
            params = {**params, "namespace": reached.namespace}
        try:
            return await reached.client.ask("GET", path, params=params)
        except Failed as failed:
            if failed.code is ExitCode.REFUSED and str(failed).startswith(UNKNOWN_PATH):
                raise refused(
                    "this api keeps no costs: update the Helm chart, or leave out --totals and --roi"
                ) from None
            raise


def _number(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:,.10g}" if isinstance(value, int | float) else text(value)


def cost_of(body: Object) -> JobCost:
    known = found(body, "status", "cost") or {}
    return JobCost(
        namespace=body["metadata"]["namespace"],
        job=body["metadata"]["name"],
        model=text(found(body, "spec", "model")),
        phase=job_state(body),
        currency=known.get("currency"),
        spent=_amount(known.get("spent")),
        estimated=_amount(known.get("estimated")),
        basis=known.get("basis"),
        why_unknown=_why_unknown(body),
    )


def totals(costs: Iterable[JobCost]) -> dict[str, str]:
    """By currency: amounts of two are not added."""
    sums: dict[str, Decimal] = {}
    for each in costs:
        if each.spent is not None:
            currency = each.currency or UNKNOWN
            sums[currency] = sums.get(currency, Decimal(0)) + each.spent
    return {currency: str(amount) for currency, amount in sorted(sums.items())}


def unknown(costs: Iterable[JobCost]) -> int:
    return sum(each.spent is None for each in costs)


def _row(each: JobCost) -> list[str | Text]:
    missing = Text(UNKNOWN, style="yellow")
    ends = "" if each.phase in ("Succeeded", "Failed", "Cancelled") else each.estimated
    return [
        each.job,
        each.model,
        styled(each.phase),
        missing if each.spent is None else f"{each.spent} {each.currency or ''}".strip(),
        "" if ends == "" or ends is None else str(ends),
        text(each.basis),
    ]


def _jobs(costs: Iterable[JobCost], currency: str) -> str:
    count = sum(each.spent is not None and (each.currency or UNKNOWN) == currency for each in costs)
    return "1 training" if count == 1 else f"{count} trainings"


def _why_unknown(body: Object) -> str | None:
    """As condition CostKnown tells it."""
    for condition in found(body, "status", "conditions") or ():
        if condition["type"] == "CostKnown" and condition["status"] != "True":
            return text(condition.get("message"))
    return None


def _amount(value: Any) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        return None
