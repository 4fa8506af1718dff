"""What can be named in the api that the contract is tried on: objects of the cluster, and what requests have made."""

from collections.abc import Mapping
from typing import Any

import httpx2

from tests.builders import batch_object, job_object, version_object
from tests.unit.web.conftest import ab_test
from tests.unit.web.rest.played_api_server import EDIT, OWN_TOKEN, PlayedApiServer, User

NAMESPACE, OTHER_NAMESPACE = "finetune", "other"
ROBOT = f"{NAMESPACE}/robot"
"""The ServiceAccount of API keys."""
NARROW = {("get", "finetunejobs"), ("list", "finetunejobs"), ("create", "abtests/votes")}
HISTORY = [{"time": "2026-11-22T12:00:00Z", "state": "Deployed", "why": "test", "previous": "plato-v1"}]
LOADED = {"type": "Loaded", "status": "True", "reason": "Test", "lastTransitionTime": "2026-11-22T12:00:00Z"}
ACTIVE = {"engine": "e", "promotedAt": "2026-11-22T12:00:00Z", "history": HISTORY, "conditions": [LOADED]}
ENDED = {"phase": "Succeeded", "modelVersion": "plato-v2", "progress": {"percent": 100, "step": 9, "totalSteps": 9}}
ROLES: dict[str, dict[str, str]] = {
    "anonymous": {},
    "narrow": {"Authorization": "Bearer narrow"},
    "token-holder": {"Authorization": "Bearer public-token"},
    "admin": {"Authorization": "Bearer admin"},
}
FILE = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n' * 10
KNOWN_VALUES: Mapping[str, tuple[str, ...]] = {
    "job_id": ("plato-1", "finetune.plato-2", "finetune.plato-3"),
    "fine_tuning_job_id": ("ftjob-plato-1", "ftjob-finetune.plato-2"),
    "model_id": ("plato-v2", "finetune.plato-v1"),
    "test_id": ("v1-v2", "finetune.v1-v2"),
    "batch_id": ("sums", "finetune.sums"),
    "uid": ("plato-1", "00000000-0000-4000-8000-000000000001"),
    "namespace": (NAMESPACE,),
    "name": ("v1-v2", "plato-v2"),
    "file": ("train.jsonl",),
}
"""What is there from the beginning: ids that are made up never name anything."""


def furnish(cluster: PlayedApiServer) -> None:
    """One of each kind, in every state that a request is told apart by."""
    cluster.accounts[ROBOT] = User("system:serviceaccount:finetune:robot", EDIT)
    cluster.users[OWN_TOKEN].accounts.add(ROBOT)
    cluster.users["narrow"] = User("system:serviceaccount:finetune:narrow", set(NARROW), {NAMESPACE})
    cluster.users["admin"] = User("admin", set(EDIT), accounts={ROBOT})
    cluster.put("finetunejobs", job_object(name="plato-1", status={"phase": "Training"}))
    cluster.put("finetunejobs", job_object({"suspend": True}, name="plato-2"))
    cluster.put("finetunejobs", job_object(name="plato-3", status=ENDED))
    cluster.put("modelversions", version_object(1))
    cluster.put("modelversions", version_object(2, status=ACTIVE))
    cluster.put("abtests", ab_test())
    cluster.put("batchinferences", batch_object(name="sums"))


def furnished(url: str) -> dict[str, tuple[str, ...]]:
    """Dataset, file, API key and an open comparison, by the parameter that names them."""
    with httpx2.Client(base_url=url, headers=ROLES["admin"], timeout=30) as client:

        def made(path: str, **request: Any) -> dict[str, Any]:
            answer = client.post(path, **request)
            assert answer.is_success, answer.text
            body: dict[str, Any] = answer.json()
            return body

        made("/v1/fine-tuning/ab-test/finetune.v1-v2/comparisons", json={})
        dataset = made("/v1/fine-tuning/datasets/export", json={"format": "chatml"})
        file = made("/v1/files", files={"file": ("train.jsonl", FILE)}, data={"purpose": "fine-tune"})
        key = made("/v1/api-keys", json={"name": "nightly", "service_account": "robot"})
    return {"dataset_id": (dataset["id"],), "file_id": (file["id"],), "key_id": (key["id"],)}
