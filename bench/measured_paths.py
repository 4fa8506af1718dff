"""Which lists and pages are measured, and why the others are not; a test holds the two to the application's routes."""

from collections.abc import Iterable, Mapping

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match

from bench.many_resources import NAMESPACE
from bench.many_things import DATASET
from finetune_operator.contract.places import TALLY_PATH

TEST = f"{NAMESPACE}.duel"
TEST_PATH = f"/v1/fine-tuning/ab-test/{TEST}"
TEST_PAGE = f"/model-comparison/tests/{TEST}"
TRAINING, VERSION, BATCH = "training-000500", "family-7-v2", "batch-000500"
CHOSEN = "base_model=Qwen%2FQwen3-0.6B&domain=law"
PATHS: tuple[str, ...] = (
    "/v1/fine-tuning/jobs",
    "/v1/fine-tuning/jobs?status=failed",
    "/v1/fine-tuning/jobs?status=training",
    "/v1/fine-tuning/jobs?model=family-7&limit=20",
    f"/v1/fine-tuning/jobs?after={NAMESPACE}.{TRAINING}",
    f"/v1/fine-tuning/jobs/{NAMESPACE}.{TRAINING}",
    f"/v1/fine-tuning/jobs/{NAMESPACE}.{TRAINING}/progress",
    "/api/training/jobs?vertical=law&status=completed",
    f"/api/training/jobs/{NAMESPACE}.{TRAINING}",
    f"/api/training/jobs/{NAMESPACE}.{TRAINING}/metrics",
    "/v1/fine_tuning/jobs",
    f"/v1/fine_tuning/jobs/ftjob-{NAMESPACE}.{TRAINING}",
    f"/v1/fine_tuning/jobs/ftjob-{NAMESPACE}.{TRAINING}/events",
    "/v1/fine-tuning/models",
    "/v1/fine-tuning/models?philosopher=p3&domain=law",
    f"/v1/fine-tuning/models/{NAMESPACE}.{VERSION}",
    "/v1/fine-tuning/base-models",
    "/v1/models",
    f"/v1/models/{VERSION}",
    "/v1/fine-tuning/costs",
    "/v1/fine-tuning/costs/jobs",
    "/v1/fine-tuning/costs/jobs?deleted=true",
    "/v1/fine-tuning/costs/models",
    "/v1/fine-tuning/costs/models?deleted=true",
    f"/v1/fine-tuning/costs/roi?version={VERSION}",
    "/v1/fine-tuning/ab-test",
    TEST_PATH,
    f"{TEST_PATH}/comparisons",
    f"{TEST_PATH}/samples",
    f"{TEST_PATH}/voters",
    f"{TEST_PATH}/win-rates",
    "/v1/fine-tuning/comparisons",
    "/v1/fine-tuning/batches",
    f"/v1/fine-tuning/batches/{NAMESPACE}.{BATCH}",
    f"/v1/fine-tuning/batches/{NAMESPACE}.{BATCH}/answers",
    "/v1/fine-tuning/datasets",
    f"/v1/fine-tuning/datasets/{DATASET}",
    f"/v1/fine-tuning/datasets/{DATASET}/rows",
    "/v1/api-keys",
    "/fine-tuning",
    "/fine-tuning?status=training",
    "/fine-tuning?status=failed",
    "/fine-tuning/gold-stars",
    "/fine-tuning/datasets",
    f"/fine-tuning/datasets/{DATASET}",
    "/fine-tuning/base-models",
    f"/fine-tuning/jobs/{NAMESPACE}/{TRAINING}",
    f"/fine-tuning/jobs/{NAMESPACE}/{TRAINING}/card",
    f"/fine-tuning/jobs/{NAMESPACE}/{TRAINING}/curve",
    "/fine-tuning/new",
    "/fine-tuning/models",
    "/fine-tuning/models?state=Deployed",
    f"/fine-tuning/models/{NAMESPACE}/{VERSION}",
    "/model-comparison",
    f"/model-comparison?right={NAMESPACE}.{VERSION}",
    "/model-comparison/tests/new",
    TEST_PAGE,
    f"{TEST_PAGE}/state",
    f"{TEST_PAGE}/win-rates",
    f"{TEST_PAGE}/vote",
    "/wizard",
    f"/wizard/data?{CHOSEN}",
    f"/wizard/train?{CHOSEN}",
    f"/wizard/training/{NAMESPACE}.{TRAINING}",
    f"/wizard/compare/{NAMESPACE}.{VERSION}",
    f"/wizard/deploy/{NAMESPACE}.{VERSION}",
    "/batches",
    f"/batches/{NAMESPACE}.{BATCH}",
    "/batches/new",
    "/cost",
    "/cost/trainings",
    "/cost/trainings?deleted=true",
    "/cost/models",
    "/cost/models?deleted=true",
    f"/cost/roi?version={VERSION}",
    f"/cost/roi/result?version={VERSION}",
    f"/cost/roi/curve?version={VERSION}",
    "/api-keys",
)
"""The cursor's training is one of the oldest, so that its page is far down the list."""
ASKED_BY_US: tuple[str, ...] = (TALLY_PATH.format(uid="test-uid"),)
"""By the operator; no page."""

ONE_POD = "what one pod, or one job's log file, says: as long with few resources as with many"
ONE_FILE = "a file as it is, whose length is the time"
ONE_READ = "one row by its key, or one read of the API server"
SAME = "the same function as its address by `<namespace>.<name>`"
UNMEASURED: Mapping[str, str] = {
    "/internal/v1/progress": ONE_READ,
    "/internal/v1/versions/{uid}/ratings": "for the operator alone; the same query as the metrics of a version",
    "/internal/v1/datasets/{namespace}/{id}/{file}": ONE_FILE,
    "/v1/fine-tuning/ab-test/{namespace}/{name}": SAME,
    "/v1/fine-tuning/ab-test/{namespace}/{name}/voters": SAME,
    "/v1/fine-tuning/ab-test/{namespace}/{name}/win-rates": SAME,
    "/v1/fine-tuning/jobs/{job_id}/events": "a stream that ends with its job",
    "/v1/fine-tuning/jobs/{job_id}/logs": ONE_POD,
    "/v1/fine-tuning/datasets/{dataset_id}/files/{file}": ONE_FILE,
    "/api/training/formats": "a constant",
    "/api/training/stats": "the same directory as /v1/fine-tuning/datasets",
    "/api/training/jobs/{job_id}/artifacts": ONE_READ,
    "/v1/fine-tuning/model-versions/{namespace}/{name}/evaluations": ONE_READ,
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints": ONE_READ,
    "/v1/files": "as many files as files_max_bytes lets in, of which there is a page",
    "/v1/files/{file_id}": ONE_READ,
    "/v1/files/{file_id}/content": ONE_FILE,
    "/batches/{batch_id}/answers.jsonl": "as the page's answers, and no more than the api keeps of a batch",
    "/login": "a form that asks nobody",
    "/login/oidc": "leads to the issuer",
    "/login/oidc/callback": "waits for the issuer",
    "/live": "a stream without an end",
    "/fine-tuning/jobs/{namespace}/{name}/log": ONE_POD,
    "/fine-tuning/datasets/{dataset_id}/files/{file}": ONE_FILE,
}
"""Routes that are read, by why they are not measured."""


def route_of(path: str, routes: Iterable[BaseRoute]) -> str | None:
    """The path, as it is written in the application, of the route that answers."""
    scope = {"type": "http", "method": "GET", "path": path.partition("?")[0], "headers": [], "root_path": ""}
    answering = (route for route in routes if route.matches(scope)[0] is Match.FULL)
    return next((route.path for route in answering if isinstance(route, APIRoute)), None)
