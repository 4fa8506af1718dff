"""`finetune-operator registry export` against a server that lists ModelVersions."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from finetune_operator.__main__ import main
from tests.unit.kubeconfig import kubeconfig
from tests.unit.resource_builders import version_object


async def listed(request: web.Request) -> web.Response:
    namespace = request.match_info.get("namespace")
    if namespace == "closed":
        return web.json_response({"message": "modelversions is forbidden"}, status=403)
    bodies = [version_object("plato-v1", promoted=1), version_object("kant-v1", namespace="another")]
    items = [body for body in bodies if namespace in (None, body["metadata"]["namespace"])]
    return web.json_response({"items": items, "metadata": {"resourceVersion": "7"}})


async def test_the_versions_of_all_or_one_namespace_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    application = web.Application()
    application.router.add_get("/apis/finetune.dev/v1alpha1/modelversions", listed)
    application.router.add_get("/apis/finetune.dev/v1alpha1/namespaces/{namespace}/modelversions", listed)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "kubeconfig").write_text(kubeconfig(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    async def export(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["registry", "export", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    try:
        _, everything, _ = await export()
        assert [item["metadata"]["name"] for item in yaml.safe_load(everything)["items"]] == ["kant-v1", "plato-v1"]
        _, one, _ = await export("--namespace", "finetune", "--output", "json", "--pin-active")
        (entry,) = json.loads(one)["items"]
        assert (entry["metadata"]["name"], entry["spec"]["state"]) == ("plato-v1", "Deployed")
        code, out, err = await export("--namespace", "closed")
        assert (code, out) == (1, "")
        assert "modelversions is forbidden" in err
    finally:
        await runner.cleanup()
