"""The registry as a document: complete as a record, and nothing in it that keeps `kubectl apply` from restoring it."""

from typing import Any

import yaml

from finetune_operator.core.registry import registry
from finetune_operator.kube.yaml_text import yaml_text
from tests.unit.resource_builders import version_object

OTHERS = [
    version_object("plato-v10"),
    version_object("plato-v2", promoted=5),
    version_object("plato-v1", promoted=1),
    version_object("kant-v1", namespace="another", promoted=1),
    version_object("hume-v1", loaded=False, promoted=1),
]


def entries(**options: Any) -> dict[str, dict[str, Any]]:
    return {entry["metadata"]["name"]: entry for entry in registry(OTHERS, **options)["items"]}


def test_they_are_in_a_stable_order() -> None:
    assert list(entries()) == ["kant-v1", "hume-v1", "plato-v1", "plato-v2", "plato-v10"]
    assert registry(OTHERS) == registry(OTHERS[::-1])


def test_an_entry_has_what_a_restore_needs_and_nothing_of_the_old_cluster() -> None:
    body = version_object("plato-v1", promoted=1, message="every engine pod answers for it")
    body["metadata"] |= {
        "resourceVersion": "7",
        "generation": 3,
        "labels": {"finetune.dev/model": "plato"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "ethics"},
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:state": {}}}}],
    }
    body["spec"]["lineage"] = {"hyperparameters": {"learningRate": "2e-4", "epochs": "3"}}
    history = [{"time": "2026-01-01T12:00:00Z", "state": "Deployed", "who": "kubectl", "why": "spec.state is Deployed"}]
    body["status"] |= {"history": history, "state": "Deployed"}
    (entry,) = registry([body])["items"]
    assert entry["metadata"] == {
        "name": "plato-v1",
        "namespace": "finetune",
        "labels": {"finetune.dev/model": "plato"},
        "annotations": {"team": "ethics"},
    }
    assert entry["spec"]["artifact"] == body["spec"]["artifact"]
    assert entry["spec"]["lineage"]["hyperparameters"] == {"learningRate": "2e-4", "epochs": "3"}
    assert entry["status"]["history"] == history
    assert entry["status"].keys() == {"state", "message", "servedName", "promotedAt", "history"}


def test_the_active_versions_are_pinned_where_that_is_asked_for() -> None:
    assert {name for name, entry in entries().items() if "state" in entry["spec"]} == set()
    pinned = {name for name, entry in entries(pin_active=True).items() if entry["spec"].get("state") == "Deployed"}
    assert pinned == {"plato-v2", "kant-v1"}


def test_as_yaml_text_stays_text() -> None:
    """The Kubernetes parser takes 2e-4 and 1.0 for numbers unless they are quoted."""
    text = yaml_text({"learningRate": "2e-4", "epochs": "3", "share": "0.9"})
    assert text.splitlines() == ["learningRate: '2e-4'", "epochs: '3'", "share: '0.9'"]
    assert yaml.safe_load(text) == {"learningRate": "2e-4", "epochs": "3", "share": "0.9"}
