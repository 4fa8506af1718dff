"""The last lines of a training's log, which the api keeps for those who may read the training."""

from typing import Any

from finetune_operator.contract.places import PROGRESS_LOG_PATH
from tests.builders import job_object
from tests.unit.web.conftest import INTERNAL
from tests.unit.web.rest.conftest import READER, Rest
from tests.unit.web.test_access import is_problem

JOBS = "/v1/fine-tuning/jobs"


async def told(rest: Rest, job: dict[str, Any], container: str, text: str, time: str = "2026-11-20T12:00:00Z") -> int:
    metadata = {name: job["metadata"][name] for name in ("namespace", "name", "uid")}
    body = {"job": metadata, "container": container, "text": text, "time": time}
    return (await rest.client.post(PROGRESS_LOG_PATH, json=body, headers=INTERNAL)).status_code


async def test_logs_outlive_the_pods(rest: Rest) -> None:
    job = rest.cluster.put("finetunejobs", job_object(name="plato-1"))
    assert (await rest.get(f"{JOBS}/finetune.plato-1/logs", READER)).json() == {"logs": []}
    assert await told(rest, job, "trainer", "step 1\nstep 2\n") == 204
    assert await told(rest, job, "prepare", "134 rows\n") == 204
    assert await told(rest, job, "trainer", "late\n", "2026-11-20T11:59:59Z") == 204
    found = (await rest.get(f"{JOBS}/finetune.plato-1/logs", READER)).json()["logs"]
    assert [(log["container"], log["text"]) for log in found] == [
        ("prepare", "134 rows\n"),
        ("trainer", "step 1\nstep 2\n"),
    ]


async def test_they_are_told_by_our_own_processes_alone_and_bounded(rest: Rest) -> None:
    job = rest.cluster.put("finetunejobs", job_object(name="plato-1"))
    assert await told(rest, job, "trainer", "x" * 65_537) == 422
    assert await told(rest, job, "sh", "x") == 422
    assert (await rest.client.post(PROGRESS_LOG_PATH, json={}, headers={})).status_code == 401
    assert is_problem(await rest.get(f"{JOBS}/finetune.plato-2/logs", READER), 404, "unknown-job")
