"""Answers that were paid stay paid: costs after a ModelVersion was deleted."""

from typing import Any

from tests.builders import version_object
from tests.unit.web.rest.conftest import NOBODY, READER, Rest
from tests.unit.web.rest.test_costs import COSTS, EVALUATION, call
from tests.unit.web.rest.test_deleted_trainings import both, followed
from tests.unit.web.rest.test_mirroring import mirroring
from tests.unit.web.test_access import is_problem

DELETED = f"{COSTS}/models"


async def furnish(rest: Rest) -> None:
    for number in (2, 3):
        rest.cluster.put("modelversions", version_object(number, status={"evaluation": EVALUATION}))
        await call(rest, f"plato-v{number}", 10, 10, 1_000_000, 10 + number)


async def remove(rest: Rest) -> None:
    async with mirroring(rest):
        pass
    await rest.cluster.remove("modelversions", "finetune", "plato-v2")
    async with mirroring(rest):
        pass
    rest.app.state.services = rest.services


async def sums(rest: Rest) -> tuple[Any, ...]:
    body = (await rest.get(COSTS, READER)).json()
    (total,) = body["totals"]
    return total["inference"], body["versions"], body["versions_deleted"], body["calls"]


@both
async def test_the_totals_count_them(rest: Rest, mode: str) -> None:
    await furnish(rest)
    spent, versions, deleted, calls = await sums(rest)
    assert (versions, deleted, calls > 0, spent > 0) == (2, 0, True, True)
    await remove(rest)
    async with followed(rest, mode):
        assert await sums(rest) == (spent, 2, 1, calls)


async def test_deleted_ones_have_a_list(rest: Rest) -> None:
    await furnish(rest)
    before = {each["id"]: each for each in (await rest.get(DELETED, READER)).json()["models"]}
    assert (await rest.get(DELETED, READER, deleted="true")).json()["models"] == []
    await remove(rest)
    assert [each["id"] for each in (await rest.get(DELETED, READER)).json()["models"]] == ["finetune.plato-v3"]
    body = (await rest.get(DELETED, READER, deleted="true", model="plato")).json()
    (gone,) = body["models"]
    assert gone.pop("deleted_at") is not None
    assert gone | {"deleted_at": None} == before["finetune.plato-v2"]
    assert (body["total"], body["has_more"], body["next"]) == (1, False, None)
    assert is_problem(await rest.get(DELETED, READER, deleted="true", after="nothing"), 422, "wrong-cursor")
    assert (await rest.get(DELETED, NOBODY, deleted="true")).status_code == 403
