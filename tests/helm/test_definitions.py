"""The CustomResourceDefinitions of the chart: those of the models, kept whole, and left out where others bring them."""

import yaml

from finetune_operator.__main__ import main as finetune_operator
from tests.helm.conftest import CHART, REPOSITORY, Helm, of_kind


def test_chart_has_the_same_definitions_as_the_models() -> None:
    assert finetune_operator(["crds", "--check", str(CHART / "files" / "crds")]) == 0
    assert finetune_operator(["crds", "--check", str(REPOSITORY / "crds")]) == 0


def test_rendering_keeps_the_definitions(helm: Helm) -> None:
    """Helm reads YAML 1.2 and sorts: a text like 2e-4 must not come out as a number."""
    rendered = {m["metadata"]["name"]: m["spec"] for m in of_kind(helm.render(), "CustomResourceDefinition")}
    written = [yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "crds").glob("*.yaml"))]
    assert rendered == {definition["metadata"]["name"]: definition["spec"] for definition in written}


def test_definitions_are_optional_and_can_be_let_go(helm: Helm) -> None:
    assert not of_kind(helm.render("--set", "crds.install=false"), "CustomResourceDefinition")
    for definition in of_kind(helm.render("--set", "crds.keep=false"), "CustomResourceDefinition"):
        assert "annotations" not in definition["metadata"]
    sync = "crds.annotations.argocd\\.argoproj\\.io/sync-options=ServerSideApply=true"
    for definition in of_kind(helm.render("--set", sync), "CustomResourceDefinition"):
        annotations = definition["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-options"] == "ServerSideApply=true"
        assert annotations["helm.sh/resource-policy"] == "keep"
