"""Directories on the volume that somebody has made to harm: each refused with its reason, while the engine answers on.

A pod of the operator's image copies a published adapter, spoils the copy and, as an attacker would, gives it a manifest
that agrees with it; a ModelVersion then names it by its own digest.
"""

import json
import textwrap
from typing import Any, NamedTuple

import pytest

from demo.chat import ask, client
from demo.install import RELEASE
from demo.story import ALIAS, FIRST, QUESTIONS
from finetune_operator.contract.places import ARTIFACTS_ROOT
from finetune_operator.manifests.common import claim_volume, container_security, pod_security
from tests.e2e.conftest import World
from tests.e2e.test_adapters import copy_of, wait_until_refused

POD = "plant"
POD_TIMEOUT_SECONDS = 120
PLANT = """
import hashlib, json, os, shutil, sys
from pathlib import Path
from finetune_operator.contract.adapters import AdapterFile, AdapterManifest
from finetune_operator.core.artifacts import MANIFEST_NAME, adapter_digest
source, root = Path(sys.argv[1]), Path(sys.argv[2])
shutil.rmtree(root, ignore_errors=True)
for number, spoil in json.loads(sys.argv[3]).items():
    target = root / number / "adapter"
    target.parent.mkdir(parents=True)
    shutil.copytree(source, target)
    exec(spoil)
    files = tuple(
        AdapterFile(name=f.name, size_bytes=f.stat().st_size, sha256=hashlib.sha256(f.read_bytes()).hexdigest())
        for f in sorted(target.iterdir()) if f.is_file() and not f.is_symlink() and f.name != MANIFEST_NAME
    )
    known = json.loads((target / MANIFEST_NAME).read_bytes())
    manifest = AdapterManifest.model_validate(known | dict(files=files, digest=adapter_digest(files)))
    (target / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True))
    print(json.dumps([number, manifest.digest]))
"""

Manifest = dict[str, Any]


class Case(NamedTuple):
    """What is done to the copy, and what the server says to it."""

    number: int
    spoil: str
    reason: str
    named: str


CASES = {
    "a pickle": Case(81, '(target / "adapter_model.bin").write_bytes(b"\\x80\\x04.")', "ForbiddenFile", ".bin"),
    "a link out": Case(82, '(target / "notes.txt").symlink_to("/etc/passwd")', "ForbiddenFile", "notes.txt"),
    "a pipe": Case(83, 'os.mkfifo(target / "notes.txt")', "ForbiddenFile", "notes.txt"),
    "a hard link": Case(
        84,
        'os.link(target / "adapter_model.safetensors", target.parent / "kept")',
        "ForbiddenFile",
        "hard link",
    ),
    "a header without end": Case(
        85, '(target / "adapter_model.safetensors").write_bytes(b"\\xff" * 64)', "BrokenWeights", "header"
    ),
    "a rank that its config hides": Case(
        86,
        textwrap.dedent(
            """
            header = json.dumps({"q.lora_A.weight": {"dtype": "F32", "shape": [512, 1], "data_offsets": [0, 2048]}})
            content = len(header).to_bytes(8, "little") + header.encode() + bytes(2048)
            (target / "adapter_model.safetensors").write_bytes(content)
            """
        ),
        "RankTooLarge",
        "512",
    ),
    "a linked directory": Case(
        87, 'target.rename(target.parent / "real"); target.symlink_to("real")', "OutsideRoot", "link"
    ),
}


@pytest.fixture(scope="module")
def planted(world: World) -> dict[int, dict[str, str]]:
    """Of each case the artifact: uri and digest."""
    claim, _, path = (
        world.kubectl.get("modelversion", FIRST)["spec"]["artifact"]["uri"].removeprefix("volume://").partition("/")
    )
    root = f"{path.split('/')[0]}/malicious"
    deployment = world.kubectl.get("deployment", f"{RELEASE}-operator")
    spoils = json.dumps({case.number: case.spoil for case in CASES.values()})
    pod: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": pod_security(),
            "volumes": [claim_volume("artifacts", claim, read_only=False)],
            "containers": [
                {
                    "name": "plant",
                    "image": deployment["spec"]["template"]["spec"]["containers"][0]["image"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", PLANT],
                    "args": [f"{ARTIFACTS_ROOT}/{path}", f"{ARTIFACTS_ROOT}/{root}", spoils],
                    "securityContext": container_security(),
                    "volumeMounts": [{"name": "artifacts", "mountPath": ARTIFACTS_ROOT}],
                }
            ],
        },
    }
    world.kubectl.run("delete", "pod", POD, "--ignore-not-found")
    world.kubectl.apply(pod)
    end = "--for=jsonpath={.status.phase}=Succeeded"
    world.kubectl.run("wait", f"pod/{POD}", end, f"--timeout={POD_TIMEOUT_SECONDS}s")
    digests = dict(json.loads(line) for line in world.kubectl.run("logs", POD).splitlines())
    world.kubectl.run("delete", "pod", POD)
    return {
        int(number): {"uri": f"volume://{claim}/{root}/{number}/adapter", "digest": digest}
        for number, digest in digests.items()
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_malicious_directory_is_refused_and_the_engine_goes_on(
    world: World, planted: dict[int, dict[str, str]], case: Case
) -> None:
    first = world.kubectl.get("modelversion", FIRST)
    engine = first["status"]["engine"]
    pods = ("pods", "--selector", f"finetune.dev/engine={engine}")
    before = [pod["metadata"]["uid"] for pod in world.kubectl.get(*pods)["items"]]
    manifest = copy_of(first, case.number)
    manifest["spec"]["artifact"] = planted[case.number]
    world.kubectl.apply(manifest)
    try:
        refusal = wait_until_refused(world, manifest["metadata"]["name"])
        assert refusal["reason"] == case.reason
        assert case.named in refusal["message"]
        assert ask(client(world.gateway_url), ALIAS, QUESTIONS[0]).version == FIRST
        after = world.kubectl.get(*pods)["items"]
        assert [pod["metadata"]["uid"] for pod in after] == before
        assert not any(status["restartCount"] for pod in after for status in pod["status"]["containerStatuses"])
    finally:
        world.kubectl.run("delete", "modelversion", manifest["metadata"]["name"])
