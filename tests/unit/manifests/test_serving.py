"""The vLLM engine that versions share."""

from typing import Any

import pytest

from finetune_operator.contract.adapters import AdapterList
from finetune_operator.contract.artifacts import MergedWeights
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.manifests.serving import (
    adapter_of,
    artifact_claim,
    engine_manifests,
    engine_name,
    merged_weights_of,
)
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import BASE_MODEL, COMMIT, CONFIG, DIGEST, HUB_MODEL, make_version, merged
from tests.golden_files import assert_golden
from tests.helm.pod_security import pod_violations

V1, V2 = make_version(1), make_version(2)
GPU = make_version(
    1,
    {
        "serving": {
            "replicas": 2,
            "tensorParallelSize": 2,
            "maxLoras": 8,
            "maxLoraRank": 64,
            "resources": {"limits": {"nvidia.com/gpu": 2}},
            "scheduling": {"nodeSelector": {"gpu": "a100"}},
        }
    },
)
MERGED = make_version(1, {"artifact": {"mergedDigest": "sha256:" + "b" * 64}, "serving": {"mergedWeights": True}})
ENGINES: dict[str, tuple[ModelVersion, ...]] = {"cpu": (V1, V2), "gpu": (GPU,), "merged": (MERGED,)}


def name_of(version: ModelVersion) -> str:
    assert version.spec.serving
    return engine_name(version.spec, version.spec.serving)


def manifests(*versions: ModelVersion) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    config_map, service, deployment = engine_manifests(name_of(versions[0]), versions, versions, CONFIG)
    return config_map, service, deployment


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_as_reviewed(name: str) -> None:
    assert_golden(f"engine-{name}", manifests(*ENGINES[name]))


@pytest.mark.parametrize("name", ENGINES)
def test_every_pod_is_restricted_and_runs_no_shell(name: str) -> None:
    pod = manifests(*ENGINES[name])[2]["spec"]["template"]["spec"]
    assert [line for line in pod_violations(pod) if "memory" not in line] == []
    (container,) = pod["containers"]
    assert "command" not in container
    assert not {"sh", "bash", "-c"} & set(container["args"])


def test_the_pod_template_does_not_depend_on_the_adapters() -> None:
    """A new version is hot-loaded: nothing restarts."""
    one, two = manifests(V1)[2], manifests(V1, V2)[2]
    assert one["spec"]["template"] == two["spec"]["template"]
    assert one["metadata"]["annotations"] != two["metadata"]["annotations"]


def test_a_restarted_pod_finds_every_adapter_in_its_list() -> None:
    config_map = manifests(V1, V2)[0]
    adapters = AdapterList.model_validate_json(config_map["data"]["adapters.json"])
    assert adapters.adapters == (adapter_of(V1), adapter_of(V2))
    assert (adapters.base_model_name, adapters.max_lora_rank) == ("tiny-llama", 16)


def test_an_adapters_name_and_path_are_computed() -> None:
    adapter = adapter_of(V1)
    assert (adapter.name, adapter.path) == ("plato-v1", "/artifacts/finetune/plato/job-1/adapter")
    assert adapter.digest == DIGEST
    assert artifact_claim(V1.spec.artifact.uri) == "artifacts"


FROZEN = {"source": {"hub": {"revision": COMMIT}}}
SHARED: dict[str, dict[str, Any]] = {
    "replicas": {"serving": {"replicas": 5}},
    "how long it may take to become ready": {"serving": {"progressDeadlineSeconds": 60}},
    "another model of the same base": {"model": "kant"},
    "notes, state and promotion": {"notes": "hello", "state": "Deployed", "promotion": "Always"},
    "a default that is written out": {"serving": {"maxLoras": 4}},
}
SEPARATE: dict[str, dict[str, Any]] = {
    "context length": {"serving": {"maxModelLen": 1024}},
    "rank": {"serving": {"maxLoraRank": 32}},
    "resources": {"serving": {"resources": {"limits": {"cpu": 1}}}},
    "nodes": {"serving": {"scheduling": {"nodeSelector": {"gpu": "a100"}}}},
    "base model": {"baseModel": merged(BASE_MODEL, {"name": "other"})},
    "where the same base model is": {"baseModel": merged(BASE_MODEL, {"source": {"volume": {"path": "other"}}})},
    "artifact volume": {"artifact": {"uri": "volume://elsewhere/finetune/plato/job-2/adapter"}},
}


@pytest.mark.parametrize("changes", SHARED.values(), ids=SHARED.keys())
def test_what_does_not_part_versions(changes: dict[str, Any]) -> None:
    assert name_of(make_version(2, changes)) == name_of(V1)


@pytest.mark.parametrize("changes", SEPARATE.values(), ids=SEPARATE.keys())
def test_what_parts_versions(changes: dict[str, Any]) -> None:
    assert name_of(make_version(2, changes)) != name_of(V1)


def asking(changes: dict[str, Any]) -> ModelVersion:
    """The version by its merged weights, changed."""
    return make_version(changes.get("version", 1), merged(MERGED.spec.to_dict(), changes))


def test_merged_weights_have_an_engine_of_their_own_whatever_adapters_may_need() -> None:
    name = name_of(MERGED)
    assert is_merged_engine(name)
    assert name not in {name_of(V1), name_of(asking({"version": 2}))}
    for serving in ({"maxLoras": 8}, {"maxLoraRank": 64}, {"replicas": 3}, {"progressDeadlineSeconds": 60}):
        assert name_of(asking({"serving": serving})) == name
    for changes in (
        {"model": "kant"},
        {"artifact": {"mergedDigest": "sha256:" + "c" * 64}},
        {"serving": {"maxModelLen": 1024}},
        {"baseModel": merged(BASE_MODEL, {"name": "other"})},
    ):
        assert name_of(asking(changes)) != name
    assert name_of(asking({"serving": {"mergedWeights": False}})) == name_of(V1), "as before there was such a field"


def test_a_server_of_merged_weights_is_told_what_to_find() -> None:
    config_map, _, deployment = manifests(MERGED)
    told = MergedWeights.model_validate_json(config_map["data"]["merged.json"])
    assert told == merged_weights_of(MERGED)
    assert told.path == "/artifacts/finetune/plato/job-1/merged"
    assert (told.name, told.digest, told.adapter_digest) == ("plato-v1", "sha256:" + "b" * 64, DIGEST)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {volume["name"] for volume in pod["volumes"]} == {"config", "artifacts", "tmp", "shm"}
    assert all(mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] in ("config", "artifacts"))
    arguments = container["args"]
    assert arguments[:3] == ["--merged", "/etc/finetune/merged.json", "--"]
    assert not {"--model", "--served-model-name"} & set(arguments), "the server serves what it was told to verify"
    assert not [argument for argument in arguments if "lora" in argument]
    assert not [variable for variable in container["env"] if "LORA" in variable["name"]]


def test_large_merged_weights_have_the_time_to_be_read_twice() -> None:
    """140 GB at 80 MB/s are hashed in half an hour, and then loaded."""

    def patience(version: ModelVersion) -> int:
        (container,) = manifests(version)[2]["spec"]["template"]["spec"]["containers"]
        probe = container["startupProbe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])

    assert patience(MERGED) >= 2 * 140e9 / 80e6
    assert patience(V1) == 1800, "a change would restart engines that are there"


def test_merged_weights_of_a_hub_model_need_no_download() -> None:
    version = make_version(1, merged(MERGED.spec.to_dict(), {"baseModel": merged(HUB_MODEL, FROZEN)}))
    assert "initContainers" not in manifests(version)[2]["spec"]["template"]["spec"]


def test_who_has_no_merged_weights_can_not_be_asked_for_them() -> None:
    with pytest.raises(ValueError, match="plato-v1 has no merged weights"):
        merged_weights_of(V1)


def test_the_engine_has_as_many_replicas_as_the_most_demanding_version_wants() -> None:
    assert manifests(V1, make_version(2, {"serving": {"replicas": 5}}))[2]["spec"]["replicas"] == 5


def test_the_engine_has_the_time_of_the_most_patient_version() -> None:
    deployment = manifests(V1, make_version(2, {"serving": {"progressDeadlineSeconds": 3600}}))[2]
    assert deployment["spec"]["progressDeadlineSeconds"] == 3600
    assert deployment["spec"]["template"] == manifests(V1)[2]["spec"]["template"], "more time restarts nothing"


def test_a_pod_that_goes_is_first_left_alone_then_drained() -> None:
    """Gateways hear of its end while it sleeps; vLLM ends what it has begun before the kubelet loses patience."""
    pod = manifests(V1)[2]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    sleep_seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_seconds = int(container["args"][container["args"].index("--shutdown-timeout") + 1])
    assert 0 < sleep_seconds < drain_seconds
    assert sleep_seconds + drain_seconds < pod["terminationGracePeriodSeconds"]
    assert pod["shareProcessNamespace"] is True, "else SIGTERM is lost before vLLM has its handler"


def test_who_is_only_served_until_it_has_moved_has_no_say_in_the_parameters() -> None:
    staying, moving = V1, make_version(2, {"serving": {"maxModelLen": 1024}})
    both = engine_manifests(name_of(staying), [staying, moving], [staying, moving], CONFIG)
    assert both[2]["spec"]["template"] == manifests(V1)[2]["spec"]["template"]
    assert "plato-v2" in both[0]["data"]["adapters.json"]


def test_it_lives_as_long_as_one_of_its_versions() -> None:
    for manifest in manifests(V1, V2):
        owners = manifest["metadata"]["ownerReferences"]
        assert [(owner["uid"], owner["controller"]) for owner in owners] == [
            ("uid-of-plato-v1", False),
            ("uid-of-plato-v2", False),
        ]


def test_labels_of_the_resource_are_not_copied() -> None:
    labelled = make_version(1, labels={"argocd.argoproj.io/instance": "demo"})
    assert manifests(labelled) == manifests(V1)


def test_every_change_of_any_part_changes_the_revision() -> None:
    changed = [
        manifests(V1),
        manifests(V1, V2),
        manifests(make_version(1, {"serving": {"replicas": 2}})),
        engine_manifests(name_of(V1), [V1], [V1, V2], CONFIG),
    ]
    revisions = {config[2]["metadata"]["annotations"]["finetune.dev/revision"] for config in changed}
    assert len(revisions) == len(changed)
    assert manifests(V1) == manifests(V1)
