"""Versions whose ModelVersion is gone, on both databases: what their answers have cost is spent."""

from datetime import date
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.usage import DayOfUsage, UsageReport
from finetune_operator.store import deleted_rows, deleted_versions, mirrored, usage
from finetune_operator.store.mirrored import Facts, Row
from finetune_operator.store.mirrored_sums import AnswerSums
from finetune_operator.store.tables import DeletedVersion
from tests.builders import job_object, version_object

JOBS, VERSIONS = "finetunejobs", "modelversions"
HERE, ELSEWHERE = ("finetune",), ("other",)
PRICE = 2_000_000
"""Of a million tokens: 2 USD."""


def version(number: int, micros: int | None = PRICE, *, at: int = 1, uid: str | None = None) -> Row:
    facts = Facts(state="Ready", model="plato", currency="USD" if micros is not None else None, amount_micros=micros)
    return Row(VERSIONS, version_object(number, uid=uid, resource_version=str(at)), facts)


async def called(engine: AsyncEngine, uid: str, tokens: int = 1_000_000) -> None:
    day = DayOfUsage(version_uid=uid, day=date(2026, 11, 20), calls=10, calls_with_tokens=10, completion_tokens=tokens)
    await usage.record(engine, UsageReport(reporter="gateway", days=(day,)))


async def drop(engine: AsyncEngine, number: int, uid: str | None = None) -> None:
    name = f"plato-v{number}"
    await mirrored.drop(engine, VERSIONS, "finetune", name, uid or f"uid-of-{name}")


async def sums(engine: AsyncEngine, namespaces: tuple[str, ...] | None = HERE) -> AnswerSums:
    return await deleted_versions.all_sums(engine, VERSIONS, namespaces)


async def test_what_the_answers_of_a_deleted_version_cost_stays(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [version(1), version(2), version(3, None), version(4)])
    for number in (1, 2, 3):
        await called(engine, f"uid-of-plato-v{number}")
    before = await sums(engine)
    assert before == AnswerSums(versions=4, unpriced=1, calls=30, spent={"USD": Decimal(4)})
    for number in (1, 3, 4):
        await drop(engine, number)
    known = AnswerSums(versions=3, deleted=2, unpriced=1, calls=30, spent={"USD": Decimal(4)})
    assert (await sums(engine), await sums(engine, None)) == (known, known)
    assert await sums(engine, ELSEWHERE) == AnswerSums()
    gone = AnswerSums()
    await deleted_versions.add_to(gone, engine, HERE)
    assert gone == AnswerSums(versions=2, deleted=2, unpriced=1, calls=20, spent={"USD": Decimal(2)})


async def test_one_that_comes_back_counts_once(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [version(1, at=5)])
    await called(engine, "uid-of-plato-v1")
    await drop(engine, 1)
    await mirrored.keep(engine, [version(1, at=6)])
    assert await sums(engine) == AnswerSums(versions=1, calls=10, spent={"USD": Decimal(2)})


async def test_a_successor_of_the_same_name_counts_besides(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [version(1, uid="first")])
    await called(engine, "first")
    await mirrored.keep(engine, [version(1, 5_000_000, at=2, uid="second")])
    await called(engine, "second")
    assert await sums(engine) == AnswerSums(versions=2, deleted=1, calls=20, spent={"USD": Decimal(7)})


async def test_a_late_row_of_an_older_state_changes_no_price(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [version(1, at=5)])
    await called(engine, "uid-of-plato-v1")
    await drop(engine, 1)
    await mirrored.keep(engine, [version(1, None, at=4)])
    await drop(engine, 1)
    assert (await sums(engine)).spent == {"USD": Decimal(2)}


async def test_other_kinds_leave_nothing(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [Row(JOBS, job_object(name="a", resource_version="1"), Facts())])
    await mirrored.drop(engine, JOBS, "finetune", "a", "uid-of-a")
    assert (await deleted_rows.page(engine, DeletedVersion, None, None, None, 9)).total == 0


async def test_they_have_pages(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [version(1), version(2)])
    for number in (1, 2):
        await drop(engine, number)
    found = await deleted_rows.page(engine, DeletedVersion, HERE, "plato", None, 1)
    assert (len(found.resources), found.total) == (1, 2)
    last = found.resources[0].body["metadata"]["uid"]
    rest = await deleted_rows.page(engine, DeletedVersion, HERE, None, last, 9)
    assert {last, rest.resources[0].body["metadata"]["uid"]} == {"uid-of-plato-v1", "uid-of-plato-v2"}
