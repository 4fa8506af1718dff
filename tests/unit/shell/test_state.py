"""What the operator knows of the cluster, whatever order the news comes in."""

from typing import Any

from finetune_operator.manifests.common import ENGINE_LABEL, JOB_UID_LABEL
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.shell.state import ClusterState
from tests.builders import NAMESPACE, deployment_body, job_body, pod_body, version_object


def version(resource_version: str, **options: Any) -> dict[str, Any]:
    return version_object(1, resource_version=resource_version, **options)


def known(state: ClusterState) -> str | None:
    body = state.get("modelversions", NAMESPACE, "plato-v1")
    return body["metadata"]["resourceVersion"] if body else None


def test_a_watch_that_lags_behind_our_own_write_changes_nothing() -> None:
    state = ClusterState()
    state.see("modelversions", version("20"))
    state.see("modelversions", version("9"))
    assert known(state) == "20"
    state.see("modelversions", version("21"))
    assert known(state) == "21"


def test_a_new_object_of_the_same_name_replaces_the_old_one() -> None:
    state = ClusterState()
    state.see("modelversions", version("20"))
    state.see("modelversions", version("21", uid="uid-of-another"))
    assert known(state) == "21"
    state.see("modelversions", version("20"))
    assert known(state) == "21"


def test_the_end_of_an_old_object_does_not_touch_the_new_one() -> None:
    state = ClusterState()
    state.see("modelversions", version("5", uid="uid-of-another"))
    state.forget("modelversions", version("20"))
    assert known(state) == "5"
    state.forget("modelversions", version("5", uid="uid-of-another"))
    assert known(state) is None
    state.forget("modelversions", version("5", uid="uid-of-another"))


def test_the_late_answer_to_a_write_brings_nothing_back() -> None:
    state = ClusterState()
    state.see("modelversions", version("20"))
    state.forget("modelversions", version("22"))
    state.see("modelversions", version("21"))
    assert known(state) is None
    state.see("modelversions", version("23", uid="uid-of-another"))
    assert known(state) == "23"


def test_what_was_made_after_a_listing_has_not_vanished() -> None:
    state = ClusterState()
    state.see("modelversions", version("20"))
    assert state.keep_only("modelversions", NAMESPACE, [], listed_at="19") == []
    assert known(state) == "20"
    assert len(state.keep_only("modelversions", NAMESPACE, [], listed_at="20")) == 1
    assert known(state) is None


def test_children_are_found_by_whom_they_belong_to() -> None:
    state = ClusterState()
    state.see("pods", pod_body("b", labels={JOB_UID_LABEL: "uid-1"}))
    state.see("pods", pod_body("a", labels={JOB_UID_LABEL: "uid-1"}))
    state.see("pods", pod_body("c", labels={ENGINE_LABEL: "vllm-1"}))
    state.see("pods", pod_body("d"))
    assert [body["metadata"]["name"] for body in state.group("pods", "uid-1")] == ["a", "b"]
    assert [body["metadata"]["name"] for body in state.group("pods", "vllm-1")] == ["c"]
    assert state.group("jobs", "uid-1") == []
    state.forget("pods", pod_body("a"))
    assert [body["metadata"]["name"] for body in state.group("pods", "uid-1")] == ["b"]


def test_a_child_that_changes_its_owner_leaves_the_old_one() -> None:
    state = ClusterState()
    state.see("pods", pod_body(labels={JOB_UID_LABEL: "uid-1"}))
    state.see("pods", pod_body(labels={JOB_UID_LABEL: "uid-2"}))
    assert state.group("pods", "uid-1") == []
    assert len(state.group("pods", "uid-2")) == 1


def test_a_listing_shows_what_vanished_without_an_event() -> None:
    state = ClusterState()
    for number in (1, 2):
        state.see("modelversions", version_object(number))
    state.see("modelversions", version_object(3) | {"metadata": version_object(3)["metadata"] | {"namespace": "other"}})
    (gone,) = state.keep_only("modelversions", NAMESPACE, [version_object(2), version_object(4)], "100")
    assert gone["metadata"]["name"] == "plato-v1"
    names = [item.metadata.name for item in state.resources(ModelVersion, "modelversions", NAMESPACE)]
    assert names == ["plato-v2", "plato-v4"]
    assert len(state.all("modelversions", "other")) == 1


def test_a_resource_is_parsed_once_per_version() -> None:
    state = ClusterState()
    state.see("modelversions", version("1"))
    first = state.resource(ModelVersion, "modelversions", NAMESPACE, "plato-v1")
    assert first is not None
    assert state.resource(ModelVersion, "modelversions", NAMESPACE, "plato-v1") is first
    state.see("modelversions", version("2", status={"message": "new"}))
    second = state.resource(ModelVersion, "modelversions", NAMESPACE, "plato-v1")
    assert second is not None
    assert second.status.message == "new"
    assert state.resource(ModelVersion, "modelversions", NAMESPACE, "unknown") is None


def test_what_no_reconcile_reads_is_not_kept() -> None:
    state = ClusterState()
    pod = pod_body("a", labels={JOB_UID_LABEL: "uid-1"})
    pod["metadata"] |= {"managedFields": [{}], "annotations": {"finetune.dev/training-config": "{}"}}
    pod["spec"] = {"containers": [{"name": "trainer"}]}
    job = job_body("uid-1", name="a", suspended=True, ttl_seconds=60)
    job["spec"]["template"] = {"spec": {}}
    deployment = deployment_body("a", revision="r1", replicas=2)
    deployment["spec"] |= {"template": {"spec": {}}, "progressDeadlineSeconds": 600}
    for plural, body in (("pods", pod), ("jobs", job), ("deployments", deployment)):
        state.see(plural, body)
    kept_pod = state.get("pods", NAMESPACE, "a")
    assert kept_pod is not None
    assert kept_pod.keys() == {"metadata", "status"}
    assert not {"managedFields", "annotations"} & kept_pod["metadata"].keys()
    kept_job, kept_deployment = state.get("jobs", NAMESPACE, "a"), state.get("deployments", NAMESPACE, "a")
    assert kept_job is not None
    assert kept_job["spec"] == {"suspend": True, "ttlSecondsAfterFinished": 60}
    assert kept_deployment is not None
    assert kept_deployment["spec"] == {"replicas": 2, "progressDeadlineSeconds": 600}
    assert kept_deployment["metadata"]["annotations"] == {"finetune.dev/revision": "r1"}


def test_of_a_versions_managers_those_of_its_state_and_promotion_are_kept() -> None:
    state = ClusterState()
    body = version("1")
    fields = {"f:spec": {"f:state": {}, "f:model": {}, "f:lineage": {"f:hyperparameters": {}}}}
    body["metadata"]["managedFields"] = [
        {"manager": "kubectl-patch", "operation": "Update", "time": "2026-01-01T10:00:00Z", "fieldsV1": fields},
        {"manager": "finetune-operator", "subresource": "status", "fieldsV1": {"f:status": {"f:state": {}}}},
    ]
    state.see("modelversions", body)
    kept = state.get("modelversions", NAMESPACE, "plato-v1")
    assert kept is not None
    assert kept["metadata"]["managedFields"] == [
        {"manager": "kubectl-patch", "time": "2026-01-01T10:00:00Z", "fieldsV1": {"f:spec": {"f:state": {}}}}
    ]
