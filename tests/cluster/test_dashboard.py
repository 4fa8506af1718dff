"""The dashboard on a real API server: logged in with a real token, and with the rights of RBAC alone."""

from pathlib import Path

from tests.cluster.pages import page_of, person
from tests.cluster.rest_api import rest_api, token_with
from tests.cluster.test_rest import JOBS, may
from tests.cluster.world import World

FORM = {"base_model": "Qwen/Qwen3-0.6B", "model": "plato", "key": "0badcafe"}


async def test_a_person_trains_by_a_form_and_sees_it_change(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor, reader = await token_with(world, "editor", "edit"), await token_with(world, "reader", "view")
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, JOBS)
        await may(api, reader, JOBS)
        async with person(api.url, reader) as looking, person(api.url, editor) as training:
            async with looking.get("/live?kinds=finetunejobs+modelversions") as stream:
                assert stream.status == 200
                assert await stream.content.readline() == b"event: hello\n"
                async with training.post("/fine-tuning/new", data=FORM, allow_redirects=False) as made:
                    assert made.status == 303, await made.text()
                    page = made.headers["Location"]
                name = page.rpartition("/")[2]
                told = b""
                while f"{world.namespace}.{name}".encode() not in told:
                    told = await stream.content.readline()
                assert b'"what": "state"' in told
            text = await page_of(looking, "/fine-tuning")
            assert name in text
            assert "There is no pod yet." in await page_of(looking, f"{page}/log")
            async with looking.post(f"{page}/cancel") as refused:
                assert refused.status == 403
                assert "RoleBinding" in await refused.text()
            assert "being cancelled" not in await page_of(looking, page)
            async with training.post(f"{page}/cancel") as cancelled:
                assert "being cancelled" in await cancelled.text()
    stored = await world.get("finetunejobs", name)
    assert stored["spec"]["cancel"] is True
    assert stored["spec"]["baseModel"]["source"]["hub"]["id"] == "Qwen/Qwen3-0.6B"
