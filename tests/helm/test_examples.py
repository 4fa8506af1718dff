"""The files that users apply first: what they say must be what the product understands."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import BatchInference
from finetune_operator.resources.common import API_VERSION, Resource
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from tests.helm.conftest import REPOSITORY, Manifest
from tests.helm.pod_security import pod_violations

DIRECTORY = REPOSITORY / "examples"
KINDS: dict[str, type[Resource]] = {kind.__name__: kind for kind in (FineTuneJob, ModelVersion, ABTest, BatchInference)}
DOCUMENTS: dict[str, Manifest] = {
    f"{path.relative_to(DIRECTORY)}:{document['kind']}": document
    for path in sorted(DIRECTORY.rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
}
RESOURCES = {name: document for name, document in DOCUMENTS.items() if document["apiVersion"] == API_VERSION}
JOBS = {name: document for name, document in DOCUMENTS.items() if document["kind"] == "Job"}


def unknown_fields(given: Any, understood: Any, path: str = "") -> list[str]:
    """Paths in the file that the models have dropped; the API server would drop them as silently."""
    if isinstance(given, Mapping) and isinstance(understood, Mapping):
        missing = [f"{path}.{key}" for key in given.keys() - understood.keys()]
        return missing + [
            found for key in given.keys() & understood.keys()
            for found in unknown_fields(given[key], understood[key], f"{path}.{key}")
        ]  # fmt: skip
    if isinstance(given, list) and isinstance(understood, list):
        return [
            found
            for index, (one, other) in enumerate(zip(given, understood, strict=True))
            for found in unknown_fields(one, other, f"{path}[{index}]")
        ]
    return []


def spec_of(file: str, kind: str) -> Any:
    document = DOCUMENTS[f"{file}:{kind}"]
    body = document | {"metadata": {"namespace": "finetune", "uid": "uid", **document["metadata"]}}
    return KINDS[kind].parse(body).spec  # type: ignore[attr-defined]


def test_there_is_one_of_each_kind() -> None:
    assert {document["kind"] for document in RESOURCES.values()} == KINDS.keys()
    assert JOBS


@pytest.mark.parametrize("name", RESOURCES)
def test_resource_is_understood_whole(name: str) -> None:
    file, kind = name.split(":")
    assert unknown_fields(RESOURCES[name]["spec"], spec_of(file, kind).to_dict()) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_no_namespace(name: str) -> None:
    assert "namespace" not in DOCUMENTS[name]["metadata"]


@pytest.mark.parametrize("name", JOBS)
def test_jobs_pass_restricted(name: str) -> None:
    pod = JOBS[name]["spec"]["template"]["spec"]
    assert pod_violations(pod) == []
    assert pod["automountServiceAccountToken"] is False


def test_base_model_is_made_where_the_jobs_look_for_it() -> None:
    args = DOCUMENTS["base-model.yaml:Job"]["spec"]["template"]["spec"]["containers"][0]["args"]
    source = spec_of("finetunejob-sft.yaml", "FineTuneJob").base_model.source.volume
    assert args[args.index("--output") + 1] == f"/models/{source.path}"


@pytest.mark.parametrize("file", ["finetunejob-second-domain.yaml", "finetunejob-dpo.yaml"])
def test_later_versions_share_the_engine_of_the_first(file: str) -> None:
    first, later = spec_of("finetunejob-sft.yaml", "FineTuneJob"), spec_of(file, "FineTuneJob")
    assert (later.model, later.base_model, later.serving) == (first.model, first.base_model, first.serving)


def test_ratings_come_from_the_secret_and_volume_beside_them() -> None:
    ratings = spec_of("finetunejob-sft.yaml", "FineTuneJob").dataset.ratings
    secret = DOCUMENTS["ratings-db.yaml:Secret"]
    assert ratings.secret_ref.name == secret["metadata"]["name"]
    assert ratings.secret_ref.key in secret["stringData"]
    assert ratings.claim_name == DOCUMENTS["ratings-db.yaml:PersistentVolumeClaim"]["metadata"]["name"]


def test_readme_lists_every_file() -> None:
    text = (DIRECTORY / "README.md").read_text()
    assert [path.name for path in DIRECTORY.glob("*.yaml") if f"| {path.name} |" not in text] == []
