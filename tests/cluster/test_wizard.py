"""What the wizard and its neighbours make, on a real API server: its schema takes it, and RBAC decides who may."""

from pathlib import Path

import aiohttp

from tests.cluster.pages import page_of, person
from tests.cluster.rest_api import rest_api, token_with
from tests.cluster.samples import model_version
from tests.cluster.test_rest import JOBS, may
from tests.cluster.world import World

CHOSEN = {"base_model": "Qwen/Qwen3-0.6B", "model": "plato", "domain": "ethics", "key": "0badcafe"}
SERVED = {"replicas": 1}


async def made_at(visitor: aiohttp.ClientSession, path: str, form: dict[str, str]) -> str:
    """Where the form leads; sent twice it is the same place."""
    places = set()
    for _ in range(2):
        async with visitor.post(path, data=form, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
            places.add(answer.headers["Location"])
    assert len(places) == 1
    return places.pop()


async def test_a_person_goes_from_a_model_to_a_pinned_version(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor, reader = await token_with(world, "editor", "edit"), await token_with(world, "reader", "view")
    for name in ("plato-v1", "plato-v2"):
        await world.create(model_version(name, serving=SERVED))
    second = f"{world.namespace}.plato-v2"
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, JOBS)
        await may(api, reader, JOBS)
        async with person(api.url, editor) as training, person(api.url, reader) as looking:
            job = (await made_at(training, "/wizard/train", CHOSEN)).rpartition(".")[2]
            again = {"like": f"{world.namespace}.{job}", "domain": "ai", "num_epochs": "5", "key": "1badcafe"}
            repeated = (await made_at(training, "/wizard/train", again)).rpartition(".")[2]
            assert "ai" in await page_of(looking, f"/wizard/data?like={world.namespace}.{repeated}")

            form = {"candidate": second, "baseline": f"{world.namespace}.plato-v1", "prompts": "What is AI?"}
            compared = f"/wizard/compare/{second}"
            assert await made_at(training, compared, form | {"name": "duel", "on_win": "notify"}) == compared
            assert "plato-v2 against plato-v1" in await page_of(looking, compared)
            test = f"/model-comparison/tests/{world.namespace}.duel"
            async with looking.post(f"{test}/cancel") as refused:
                assert refused.status == 403
            assert await made_at(training, f"{test}/cancel", {}) == test

            run = {"name": "answers", "model_version": second, "compare_with": "plato-v1", "judged": "true"}
            batch = await made_at(training, "/batches", run)
            assert "kind: BatchInference" in await page_of(looking, batch)

            here = f"/wizard/deploy/{second}"
            assert await made_at(training, "/model-comparison/deploy", {"version": second, "next": here}) == here
            assert "It was asked for" in await page_of(looking, here)
    first, like = await world.get("finetunejobs", job), await world.get("finetunejobs", repeated)
    assert first["spec"]["dataset"]["ratings"]["domain"] == "ethics"
    assert like["spec"]["dataset"]["ratings"]["domain"] == "ai"
    assert (like["spec"]["training"]["epochs"], like["spec"]["promotion"]) == (5, "Manual")
    assert (await world.get("abtests", "duel"))["spec"]["cancel"] is True
    assert (await world.get("abtests", "answers"))["spec"]["onWin"] == "Notify"
    assert (await world.get("batchinferences", "answers"))["spec"]["abTest"]["name"] == "answers"
    assert (await world.get("modelversions", "plato-v2"))["spec"]["state"] == "Deployed"
