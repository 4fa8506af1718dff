"""Where the chart keeps databases, datasets, models and adapters, and what of it outlives the release."""

from typing import Any

import pytest
import yaml

from demo.target import RATINGS
from finetune_operator.web.settings import Settings as ApiSettings
from tests.helm.components import container, environment
from tests.helm.conftest import CHART, NAMESPACE, REPOSITORY, Helm, Manifest, named, of_kind

EXAMPLE = REPOSITORY / "examples" / "ratings-db.yaml"


def test_sqlite_keeps_its_file_on_a_volume(rendered: list[Manifest]) -> None:
    spec = named(rendered, "Deployment", "finetune-api")["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    assert environment(rendered, "api")["FINETUNE_DATABASE_URL"] == "sqlite+aiosqlite:////data/finetune.db"
    assert {"name": "data", "mountPath": "/data"} in container(rendered, "api")["volumeMounts"]
    claim = named(rendered, "PersistentVolumeClaim", "finetune-api")
    assert {"name": "data", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in (
        spec["template"]["spec"]["volumes"]
    )


def test_database_server_replaces_the_volume(helm: Helm) -> None:
    manifests = helm.render("--set", "api.database.existingSecret=postgres,api.replicas=3")
    assert environment(manifests, "api")["FINETUNE_DATABASE_URL"] == {
        "secretKeyRef": {"name": "postgres", "key": "url"}
    }
    assert named(manifests, "Deployment", "finetune-api")["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert {m["metadata"]["name"] for m in of_kind(manifests, "PersistentVolumeClaim")} == {"artifacts", "models"}


def test_ratings_url_is_a_file_that_may_come_later(helm: Helm) -> None:
    def volumes(*values: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
        manifests = helm.render(*(part for value in values for part in ("--set", value)))
        pod = named(manifests, "Deployment", "finetune-api")["spec"]["template"]["spec"]
        mounts = {mount["name"]: mount for mount in container(manifests, "api")["volumeMounts"]}
        return (
            environment(manifests, "api")["FINETUNE_RATINGS_URL_FILE"],
            mounts,
            {v["name"]: v for v in pod["volumes"]},
        )

    file, mounts, found = volumes()
    assert (
        file == str(ApiSettings.model_fields["ratings_url_file"].default) == f"{mounts['ratings-url']['mountPath']}/url"
    )
    secret = {"secretName": "ratings-db", "items": [{"key": "url", "path": "url"}], "optional": True}
    assert found["ratings-url"]["secret"] == secret
    assert "ratings" not in found
    _, mounts, found = volumes("api.ratings.existingSecret=pg", "api.ratings.existingSecretKey=dsn")
    assert found["ratings-url"]["secret"] | {"items": 0} == secret | {"secretName": "pg", "items": 0}
    assert found["ratings-url"]["secret"]["items"] == [{"key": "dsn", "path": "url"}]
    _, mounts, found = volumes("api.ratings.claimName=ratings")
    assert mounts["ratings"] == {"name": "ratings", "mountPath": "/ratings", "readOnly": True}
    assert found["ratings"]["persistentVolumeClaim"] == {"claimName": "ratings"}


def test_the_demos_api_reads_what_its_trainings_read(helm: Helm) -> None:
    """Where the demo has one node: the volume and the URL of the example that it fills."""
    settings = [part for item in RATINGS.items() for part in ("--set", "=".join(item))]
    manifests = helm.render("--values", str(CHART / "values-cpu.yaml"), *settings)
    pod = named(manifests, "Deployment", "finetune-api")["spec"]["template"]["spec"]
    (mount,) = (each for each in container(manifests, "api")["volumeMounts"] if each["name"] == "ratings")
    found = {volume["name"]: volume for volume in pod["volumes"]}
    example = {document["kind"]: document for document in yaml.safe_load_all(EXAMPLE.read_text())}
    claim = example["PersistentVolumeClaim"]["metadata"]["name"]
    assert found["ratings"]["persistentVolumeClaim"]["claimName"] == claim
    assert found["ratings-url"]["secret"]["secretName"] == example["Secret"]["metadata"]["name"]
    assert mount["readOnly"] is True
    assert example["Secret"]["stringData"]["url"] == f"sqlite:///{mount['mountPath']}/ratings.db"


@pytest.mark.parametrize(
    ("values", "directory"),
    [
        ((), "/data/datasets"),
        (("api.datasets.claimName=datasets",), "/datasets"),
        (("api.datasets.claimName=datasets", "api.database.existingSecret=pg"), "/datasets"),
        (("api.database.existingSecret=pg",), None),
    ],
)
def test_datasets_lie_on_a_volume_or_nowhere(helm: Helm, values: tuple[str, ...], directory: str | None) -> None:
    manifests = helm.render(*(part for value in values for part in ("--set", value)))
    found = environment(manifests, "api")
    settings = ApiSettings.from_environment(
        {name: value for name, value in found.items() if isinstance(value, str)}
        | {"FINETUNE_API_TOKEN": "t", "FINETUNE_INTERNAL_TOKEN": "t"}
    )
    assert (str(settings.datasets_directory) if settings.datasets_directory else None) == directory
    assert (settings.datasets_max_count, settings.datasets_max_bytes) == (100, 2**31)
    volumes = named(manifests, "Deployment", "finetune-api")["spec"]["template"]["spec"]["volumes"]
    lasting = [volume["name"] for volume in volumes if "persistentVolumeClaim" in volume]
    mounts = {mount["mountPath"]: mount["name"] for mount in container(manifests, "api")["volumeMounts"]}
    if directory:
        (place,) = (name for path, name in mounts.items() if f"{directory}/".startswith(f"{path}/") and name in lasting)
        assert place == ("datasets" if directory == "/datasets" else "data")
    # Of a volume that has the database, too, no job is told.
    assert settings.datasets_claim == (f"{NAMESPACE}/datasets" if directory == "/datasets" else None)


def test_data_outlives_the_release(rendered: list[Manifest]) -> None:
    lasting = of_kind(rendered, "PersistentVolumeClaim", "Secret", "CustomResourceDefinition")
    assert len(lasting) == 4 + 1 + 3
    for manifest in lasting:
        assert manifest["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", manifest["metadata"]["name"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), None),
        (("--set-string", "storage.models.storageClassName=fast"), "fast"),
        (("--set-string", "storage.models.storageClassName="), ""),
    ],
    ids=["default class", "named class", "no class"],
)
def test_storage_class(helm: Helm, options: tuple[str, ...], expected: str | None) -> None:
    claim = named(helm.render(*options), "PersistentVolumeClaim", "models")
    assert claim["spec"].get("storageClassName") == expected


def test_volumes_can_be_made_by_others(helm: Helm) -> None:
    manifests = helm.render("--set", "storage.models.create=false,storage.artifacts.claimName=adapters")
    claims = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "PersistentVolumeClaim")}
    assert claims == {"adapters", "finetune-api"}
    assert environment(manifests, "operator")["FINETUNE_ARTIFACTS_CLAIM"] == "adapters"
