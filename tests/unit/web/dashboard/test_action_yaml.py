"""Each page that makes or changes a resource shows YAML of it, and the API server would take that."""

from typing import Any

import pytest
import yaml

from finetune_operator.cli.documents import Document, findings
from tests.builders import merged
from tests.unit.web.contract.page_places import VOTE
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.test_action_commands import (
    ACTIONS,
    JOBS,
    MODEL,
    NO_ACTIONS,
    PAGES,
    blocks_of,
    opened,
    part_of,
)

PLURALS = {"FineTuneJob": "finetunejobs", "ModelVersion": "modelversions"}
"""Of those that a page shows a part of."""
RESOURCES: dict[str, str] = {
    f"{JOBS}/cancel": "FineTuneJob",
    f"{JOBS}/suspend": "FineTuneJob",
    f"{JOBS}/resume": "FineTuneJob",
    f"{JOBS}/retry": "FineTuneJob",
    f"{MODEL}/deploy": "ModelVersion",
    f"{MODEL}/rollback": "ModelVersion",
    f"{MODEL}/serve": "ModelVersion",
    f"{MODEL}/evaluate": "ModelVersion",
    "/model-comparison/deploy": "ModelVersion",
    "/model-comparison/rollback": "ModelVersion",
    "/model-comparison/tests": "ABTest",
    "/model-comparison/tests/{test_id}/cancel": "ABTest",
    "/wizard/compare/{version_id}": "ABTest",
    "/cost/trainings/{namespace}/{name}/budget": "FineTuneJob",
    "/fine-tuning/new": "FineTuneJob",
    "/wizard/train": "FineTuneJob",
    "/batches": "BatchInference",
    "/batches/{batch_id}/suspend": "BatchInference",
    "/batches/{batch_id}/resume": "BatchInference",
    "/batches/{batch_id}/cancel": "BatchInference",
    "/batches/{batch_id}/delete": "BatchInference",
    "/fine-tuning/datasets": "FineTuneJob",
    "/fine-tuning/datasets/{dataset_id}/delete": "FineTuneJob",
}
"""What an action makes or changes; of datasets, which are no resources, what trains on them."""
NO_RESOURCES = {
    "/api-keys": "kept by the api",
    "/api-keys/{key_id}/revoke": "kept by the api",
    f"{VOTE}/pair": "votes are kept by the api",
    f"{VOTE}/cast": "votes are kept by the api",
    f"{VOTE}/name": "votes are kept by the api",
}


def test_every_action_is_of_a_resource_or_says_why_not() -> None:
    assert set(RESOURCES) | set(NO_RESOURCES) == set(ACTIONS)
    assert not set(RESOURCES) & set(NO_RESOURCES)


@pytest.mark.parametrize("path", PAGES)
async def test_what_a_page_does_is_there_as_yaml(editor: Browser, path: str) -> None:
    page, actions = await opened(editor, path)
    for action in sorted(actions - set(NO_ACTIONS) - set(NO_RESOURCES)):
        shown = documents_of(page + await part_of(editor, action))
        assert RESOURCES[action] in {body["kind"] for body in shown}, f"{path} has no YAML of {action}"
        for body in shown:
            is_part = body["kind"] in PLURALS and "model" not in body["spec"]
            whole = over(editor, body) if is_part else body
            assert findings(Document(path, whole, {})) == []


def documents_of(page: str) -> list[dict[str, Any]]:
    blocks = (block for block in blocks_of(page) if block.startswith("apiVersion:"))
    return [body for block in blocks for body in yaml.safe_load_all(block)]


def over(editor: Browser, body: dict[str, Any]) -> dict[str, Any]:
    """The object of this name as it would become."""
    metadata = body["metadata"]
    there = editor.rest.cluster.objects[PLURALS[body["kind"]], metadata["namespace"], metadata["name"]]
    return merged({"spec": there["spec"]}, body)
