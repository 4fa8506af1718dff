"""The chart's values: documented, refused where they are wrong, and set on what they are for alone."""

from pathlib import Path

import pytest
import yaml

from helm.values_table import main as values_table
from tests.helm.components import VARIABLES, container, environment
from tests.helm.conftest import CHART, PROFILES, Helm, Manifest, named, of_kind


@pytest.mark.parametrize("profile", PROFILES)
def test_lint_is_clean(helm: Helm, profile: str) -> None:
    done = helm.run("lint", "--strict", str(CHART), *PROFILES[profile])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("gatway.replicas=2", "'gatway' not allowed"),
        ("operator.replicas=2", "'replicas' not allowed"),
        ("gateway.replicas=0", "minimum"),
        ("profile=tpu", "profile"),
        ("image.operator.digest=latest", "digest"),
        ("storage.artifacts.accessModes={ReadOnlyMany}", "accessModes"),
        ("api.replicas=2", "set api.database.existingSecret"),
        ("prices.gpuTypes.NVIDIA-L4=cheap", "prices/gpuTypes/NVIDIA-L4"),
        ("baseModels.claimName=artifacts", "another volume than storage.artifacts.claimName"),
        ("baseModels.endpoint=hub.example", "endpoint"),
        ("api.ratings.existingSecret=", "existingSecret"),
        ("api.datasets.maxCount=0", "maxCount"),
        ("api.datasets.claimName=../x", "claimName"),
        ("api.keys.serviceAccounts[0].name=robot", "namespace"),
        ("api.files.maxBytes=0", "maxBytes"),
        ("api.oidc.issuer=http://issuer.example", "issuer"),
        ("api.oidc.issuer=https://issuer.example", "needs api.oidc.clientId"),
        ("api.oidc.issuer=https://issuer.example,api.oidc.clientId=c", "needs api.oidc.redirectUrl"),
        ("api.oidc.redirectUrl=https://host/elsewhere", "redirectUrl"),
        ("api.oidc.scopes=email", "scopes"),
        ("baseModels.endpoint=https://user:password@hub.example", "endpoint"),
    ],
)
def test_wrong_values_are_refused(helm: Helm, setting: str, complaint: str) -> None:
    assert complaint in helm.refusal("--set", setting)


def test_readme_documents_every_value() -> None:
    assert values_table(["--check"]) == 0


def test_objects_are_unique_and_labelled(rendered: list[Manifest]) -> None:
    identities = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in rendered]
    assert len(identities) == len(set(identities))
    for manifest in rendered:
        found = manifest["metadata"]["labels"]
        assert found["app.kubernetes.io/managed-by"] == "Helm", manifest["metadata"]["name"]
        assert found["app.kubernetes.io/instance"] == "finetune", manifest["metadata"]["name"]


def test_common_labels_reach_everything_but_selectors(helm: Helm) -> None:
    manifests = helm.render("--set", "commonLabels.team=research")
    assert all(manifest["metadata"]["labels"]["team"] == "research" for manifest in manifests)
    for deployment in of_kind(manifests, "Deployment"):
        assert "team" not in deployment["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ((), "ghcr.io/finetune-operator/operator:0.1.0"),
        (("--set", "image.operator.tag=2.0"), "ghcr.io/finetune-operator/operator:2.0"),
        (
            ("--set", f"image.operator.tag=2.0,image.operator.digest=sha256:{'a' * 64}"),
            f"ghcr.io/finetune-operator/operator@sha256:{'a' * 64}",
        ),
        (PROFILES["cpu"], "localhost/finetune-operator/operator:dev"),
    ],
    ids=["default", "tag", "digest", "cpu"],
)
def test_image_by_tag_or_digest(helm: Helm, options: tuple[str, ...], image: str) -> None:
    manifests = helm.render(*options)
    assert {container(manifests, component)["image"] for component in VARIABLES} == {image}
    assert environment(manifests, "operator")["FINETUNE_OPERATOR_IMAGE"] == image


def test_pod_settings_reach_their_pod_only(helm: Helm, tmp_path: Path) -> None:
    settings = {
        "podAnnotations": {"example.com/scrape": "true"},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "important",
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    }
    values = tmp_path / "values.yaml"
    for component in VARIABLES:
        values.write_text(yaml.safe_dump({component: settings, "image": {"pullSecrets": ["registry"]}}))
        manifests = helm.render("--values", str(values))
        for other in VARIABLES:
            template = named(manifests, "Deployment", f"finetune-{other}")["spec"]["template"]
            is_set = other == component
            assert (template["metadata"].get("annotations") == settings["podAnnotations"]) is is_set
            assert ("HTTPS_PROXY" in environment(manifests, other)) is is_set
            for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
                assert (template["spec"].get(field) == settings[field]) is is_set, f"{other}.{field}"
            assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        workload = named(manifests, "ServiceAccount", "finetune-workload")
        assert workload["imagePullSecrets"] == [{"name": "registry"}]
