"""A good body for each operation that takes one, and what it speaks of."""

from typing import Any

from finetune_operator.web.openai_api.errors import COMPLETION_PATHS

TESTS, JOBS, TRAINING, OPENAI = (
    "/v1/fine-tuning/ab-test",
    "/v1/fine-tuning/jobs",
    "/api/training/jobs",
    "/v1/fine_tuning/jobs",
)
TEST, ONE = f"{TESTS}/{{namespace}}/{{name}}", f"{TESTS}/{{test_id}}"
DATASETS, KEYS, BATCHES = "/v1/fine-tuning/datasets", "/v1/api-keys", "/v1/fine-tuning/batches"
HISTORY = [{"time": "2026-11-22T12:00:00Z", "state": "Deployed", "why": "test", "previous": "plato-v1"}]
LOADED = {"type": "Loaded", "status": "True", "reason": "Test", "lastTransitionTime": "2026-11-22T12:00:00Z"}
ACTIVE = {"engine": "e", "promotedAt": "2026-11-22T12:00:00Z", "history": HISTORY, "conditions": [LOADED]}
FLAT_JOB = {"model": "plato", "base_model": "volume://models/tiny"}
ADA = {"evaluator": "ada"}
BODIES: dict[str, Any] = {
    f"POST {JOBS}": FLAT_JOB,
    f"POST {TRAINING}": FLAT_JOB,
    f"POST {OPENAI}": {"model": "volume://models/tiny", "training_file": "ratings"},
    f"POST {TESTS}": {"candidate": "plato-v2"},
    f"POST {BATCHES}": {"model_version": "plato-v2"},
    f"PUT {JOBS}/{{job_id}}/budget": {"max_cost": "25.00"},
    f"POST {TEST}/comparisons": ADA,
    f"POST {ONE}/comparisons": ADA,
    f"POST {TEST}/vote": ADA | {"comparison_id": "0", "vote": "tie"},
    f"POST {ONE}/vote": ADA | {"comparison_id": "0", "vote": "tie"},
    "POST /v1/fine-tuning/feedback": {"request_id": "r", "thumbs": "up"},
    f"POST {KEYS}": {"name": "nightly", "service_account": "robot"},
    f"POST {DATASETS}/export": {},
    **{f"POST {path}": {"model": "plato"} for path in COMPLETION_PATHS},
    f"POST {DATASETS}/statistics": {},
}
