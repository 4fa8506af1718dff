"""The chart as the pinned Helm renders it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_cluster import toolchain, versions

Manifest = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "finetune-operator"
RELEASE = "finetune"
NAMESPACE = "models"


class Helm:
    """Runs the pinned Helm; a release is named and placed differently, so that mixing them up shows."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Our Helm is built from source and doesn't know by itself which Kubernetes it was made for.
        argv = [str(self._binary), *arguments, "--kube-version", versions.KUBERNETES]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def render(self, *options: str, chart: Path = CHART) -> list[Manifest]:
        done = self.run("template", RELEASE, str(chart), "--namespace", NAMESPACE, *options)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    def refusal(self, *options: str) -> str:
        done = self.run("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *options)
        assert done.returncode != 0, "the chart was rendered, although it should have been refused"
        return done.stderr


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(toolchain.build(toolchain.CONTROL_PLANE_TOOLS) / "helm")


PROFILES = {"gpu": (), "cpu": ("--values", str(CHART / "values-cpu.yaml"))}


@pytest.fixture(scope="session", params=PROFILES)
def rendered(request: pytest.FixtureRequest, helm: Helm) -> list[Manifest]:
    """Everything of one profile."""
    return helm.render(*PROFILES[request.param])


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str, namespace: str | None = NAMESPACE) -> Manifest:
    found = [
        manifest
        for manifest in of_kind(manifests, kind)
        if manifest["metadata"]["name"] == name and manifest["metadata"].get("namespace") == namespace
    ]
    assert len(found) == 1, f"{len(found)} {kind}s {namespace}/{name}"
    return found[0]
