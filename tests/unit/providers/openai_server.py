"""A server that speaks the OpenAI fine-tuning API: strict about what it takes, and told by tests when to fail.

Requests are validated by the parameter types of the package `openai`, and each answer by its response types, with no
field that they do not have; test_openai_server.py also drives it with that package's own client.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from openai.types import FileObject, ModelDeleted
from openai.types.file_deleted import FileDeleted
from openai.types.fine_tuning import (
    DpoHyperparametersParam,
    FineTuningJob,
    FineTuningJobEvent,
    SupervisedHyperparametersParam,
    job_create_params,
)
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, with_config

API_KEY = "sk-test-1234567890abcdef"
MODELS = frozenset({"gpt-4.1-mini-2025-04-14", "gpt-4.1-nano-2025-04-14"})
MIN_ROWS = 10
TOKENS_A_ROW = 25
BAD_FILE = "The job failed due to an invalid training file."
HYPERPARAMETERS = {"supervised": SupervisedHyperparametersParam, "dpo": DpoHyperparametersParam}
CREATE = "/fine_tuning/jobs"
"""Where jobs are made and listed, as a `Fault` has it."""
Body = dict[str, Any]

_JOB_PARAMS: TypeAdapter[Any] = TypeAdapter(with_config(ConfigDict(extra="forbid"))(job_create_params.JobCreateParams))


@dataclass
class Fault:
    """What goes wrong with the next requests of this method whose path ends like this."""

    method: str
    path: str
    status: int = 0
    error: Body = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    lost: str = ""
    """`request`: the connection breaks before anything is done; `answer`: after it is done; `time`: it never ends."""
    text: str | None = None
    times: int = 1


def error_body(
    message: str, *, type_: str = "invalid_request_error", code: str | None = None, param: Any = None
) -> Body:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


class OpenAIServer:
    """One organization's account; each look at a job moves it on, unless it is held."""

    def __init__(self, *, keeps_metadata: bool = True) -> None:
        self.files: dict[str, Body] = {}
        self.contents: dict[str, bytes] = {}
        self.jobs: dict[str, Body] = {}
        self.events: dict[str, list[Body]] = {}
        self.models: set[str] = set()
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.created: list[Body] = []
        self.held = False
        self.hanging = asyncio.Event()
        self.end: Callable[[Body], None] | None = None
        self._keeps_metadata = keeps_metadata
        self._numbers = itertools.count(1)
        self._stages: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, method: str, path: str) -> int:
        """How many requests there were whose path ends like this."""
        return sum(1 for seen, where in self.requests if seen == method and where.endswith(path))

    async def start(self) -> None:
        app = web.Application(middlewares=[self._guard], client_max_size=64 * 1024 * 1024)
        app.add_routes(
            [
                web.post("/v1/files", self._upload),
                web.get("/v1/files", self._list_files),
                web.delete("/v1/files/{id}", self._delete_file),
                web.post("/v1/fine_tuning/jobs", self._create),
                web.get("/v1/fine_tuning/jobs", self._list_jobs),
                web.get("/v1/fine_tuning/jobs/{id}", self._retrieve),
                web.post("/v1/fine_tuning/jobs/{id}/cancel", self._cancel),
                web.get("/v1/fine_tuning/jobs/{id}/events", self._list_events),
                web.get("/v1/fine_tuning/jobs/{id}/checkpoints", self._list_checkpoints),
                web.delete("/v1/models/{id}", self._delete_model),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        fault = next((f for f in self.faults if f.method == request.method and request.path.endswith(f.path)), None)
        if fault:
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
            if fault.lost == "request":
                _break(request)
            if fault.text is not None:
                return web.Response(status=fault.status, text=fault.text, headers=fault.headers)
            if fault.status:
                await request.read()
                return web.json_response(fault.error, status=fault.status, headers=fault.headers)
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            # A careless server repeats the whole key.
            return web.json_response(
                error_body(f"Incorrect API key provided: {given}.", code="invalid_api_key"), status=401
            )
        response: web.StreamResponse = await handler(request)
        if fault and fault.lost == "answer":
            _break(request)
        if fault and fault.lost == "time":
            self.hanging.set()
            await asyncio.Event().wait()
        return response

    async def _upload(self, request: web.Request) -> web.Response:
        purpose, name, content = "", "", b""
        async for part in await request.multipart():
            if part.name == "purpose":
                purpose = await part.text()
            elif part.name == "file":
                name, content = part.filename or "", bytes(await part.read())
            else:
                return _refused(f"Unknown field {part.name}")
        if purpose != "fine-tune" or not name.endswith(".jsonl") or not content:
            return _refused("A .jsonl file with the purpose 'fine-tune' is needed", param="file")
        file_id = f"file-{next(self._numbers)}"
        self.contents[file_id] = content
        self.files[file_id] = {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        return _answer(FileObject, self.files[file_id])

    async def _list_files(self, request: web.Request) -> web.Response:
        wanted = [file for file in self.files.values() if request.query.get("purpose") in (None, file["purpose"])]
        return _page(FileObject, list(reversed(wanted)), request)

    async def _delete_file(self, request: web.Request) -> web.Response:
        file_id = request.match_info["id"]
        if self.files.pop(file_id, None) is None:
            return _refused(f"No such File object: {file_id}", status=404)
        return _answer(FileDeleted, {"id": file_id, "object": "file", "deleted": True})

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        try:
            _JOB_PARAMS.validate_python(body)
        except ValidationError as error:
            return _refused(str(error))
        if body["model"] not in MODELS and body["model"] not in self.models:
            return _refused(f"Model {body['model']} can't be fine-tuned", status=404, code="model_not_found")
        for name in ("training_file", "validation_file"):
            if name in body and body[name] not in self.files:
                return _refused(f"No such File object: {body[name]}", param=name)
        if len(body.get("suffix", "")) > 64 or len(body.get("metadata", {})) > 16:
            return _refused("The suffix or the metadata are too long")
        method = body["method"]
        chosen = method.get(method["type"], {}).get("hyperparameters", {})
        if unknown := chosen.keys() - HYPERPARAMETERS[method["type"]].__annotations__.keys():
            return _refused(f"Unknown hyperparameters {unknown}")
        self.created.append(body)
        job_id = f"ftjob-{next(self._numbers)}"
        self.jobs[job_id] = {
            "id": job_id,
            "object": "fine_tuning.job",
            "created_at": int(time.time()),
            "error": None,
            "fine_tuned_model": None,
            "finished_at": None,
            "hyperparameters": chosen if method["type"] == "supervised" else {},
            "model": body["model"],
            "organization_id": "org-test",
            "result_files": [],
            "seed": body.get("seed", 0),
            "status": "validating_files",
            "trained_tokens": None,
            "training_file": body["training_file"],
            "validation_file": body.get("validation_file"),
            "estimated_finish": None,
            "metadata": body.get("metadata") if self._keeps_metadata else None,
            "method": method,
        }
        self.events[job_id] = []
        self._stages[job_id] = 0
        self._tell(job_id, f"Created fine-tuning job: {job_id}")
        return _answer(FineTuningJob, self.jobs[job_id])

    async def _list_jobs(self, request: web.Request) -> web.Response:
        wanted = {key[9:-1]: value for key, value in request.query.items() if key.startswith("metadata[")}
        # A provider that drops the metadata does not filter by it either.
        found = [
            job
            for job in self.jobs.values()
            if not self._keeps_metadata or wanted.items() <= (job["metadata"] or {}).items()
        ]
        return _page(FineTuningJob, list(reversed(found)), request)

    async def _retrieve(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _refused("Could not find fine tune", status=404, code="fine_tune_not_found")
        if not self.held:
            self._move_on(job)
        return _answer(FineTuningJob, job)

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _refused("Could not find fine tune", status=404)
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return _refused(f"Job has already completed: {job['id']}")
        job |= {"status": "cancelled", "finished_at": int(time.time())}
        self._tell(job["id"], "Fine-tuning job cancelled")
        return _answer(FineTuningJob, job)

    async def _list_events(self, request: web.Request) -> web.Response:
        if request.match_info["id"] not in self.jobs:
            return _refused("Could not find fine tune", status=404)
        return _page(FineTuningJobEvent, list(reversed(self.events[request.match_info["id"]])), request)

    async def _list_checkpoints(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        checkpoints = []
        if job["status"] == "succeeded":
            for number, step in enumerate((10, 20, 30), start=1):
                metrics = {"step": step, "train_loss": 2.0 / number, "full_valid_loss": 2.5 / number}
                checkpoints.append(
                    {
                        "id": f"ftckpt-{number}",
                        "object": "fine_tuning.job.checkpoint",
                        "created_at": job["created_at"] + number,
                        "fine_tuned_model_checkpoint": f"{job['fine_tuned_model']}:ckpt-step-{step}",
                        "fine_tuning_job_id": job["id"],
                        "metrics": metrics,
                        "step_number": step,
                    }
                )
        return _page(FineTuningJobCheckpoint, list(reversed(checkpoints)), request)

    async def _delete_model(self, request: web.Request) -> web.Response:
        model = request.match_info["id"]
        if model not in self.models:
            return _refused(f"The model '{model}' does not exist", status=404, code="model_not_found")
        self.models.remove(model)
        return _answer(ModelDeleted, {"id": model, "object": "model", "deleted": True})

    def _move_on(self, job: Body) -> None:
        """One stage: files validated, queued, three times ten steps, done."""
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return
        stage = self._stages[job["id"]] = self._stages[job["id"]] + 1
        if stage == 1 and (problem := self._problem(job["training_file"], job["method"]["type"])):
            error = {"code": "invalid_training_file", "message": problem, "param": "training_file"}
            job |= {"status": "failed", "error": error, "finished_at": int(time.time())}
            self._tell(job["id"], problem, level="error")
        elif stage == 1:
            job["status"] = "queued"
            self._tell(job["id"], "Files validated, moving job to queued state")
        elif stage <= 4:
            if stage == 3 and self.end:
                self.end(job)
                return
            job |= {"status": "running", "estimated_finish": int(time.time()) + 60 * (5 - stage)}
            for step in range(10 * (stage - 2) + 1, 10 * (stage - 1) + 1):
                loss = {
                    "step": step,
                    "total_steps": 30,
                    "train_loss": 3.0 - step / 15,
                    "train_mean_token_accuracy": 0.5,
                }
                valid = {"full_valid_loss": 3.2 - step / 15} if step % 10 == 0 else {}
                self._tell(job["id"], f"Step {step}/30: training loss={loss['train_loss']:.2f}", data=loss | valid)
        else:
            suffix = next(body.get("suffix") for body in self.created if body["training_file"] == job["training_file"])
            model = f"ft:{job['model']}:org-test:{suffix}:{job['id'][-4:]}"
            rows = self.contents[job["training_file"]].count(b"\n")
            self.models.add(model)
            job |= {
                "status": "succeeded",
                "fine_tuned_model": model,
                "finished_at": job["created_at"] + 321,
                "trained_tokens": rows * TOKENS_A_ROW * 3,
                "estimated_finish": None,
            }
            self._tell(job["id"], f"New fine-tuned model created: {model}")

    def _problem(self, file_id: str, method: str) -> str | None:
        """What the provider's own validation says of the rows."""
        rows = [json.loads(line) for line in self.contents[file_id].splitlines()]
        if len(rows) < MIN_ROWS:
            return f"{BAD_FILE} Expected at least {MIN_ROWS} examples, got {len(rows)}"
        for number, row in enumerate(rows, start=1):
            fields = {"input", "preferred_output", "non_preferred_output"} if method == "dpo" else {"messages"}
            if row.keys() != fields:
                return f"{BAD_FILE} Line {number} has {sorted(row)}"
        return None

    def _tell(self, job_id: str, message: str, *, level: str = "info", data: Body | None = None) -> None:
        self.events[job_id].append(
            {
                "id": f"ftevent-{next(self._numbers)}",
                "object": "fine_tuning.job.event",
                "created_at": int(time.time()),
                "level": level,
                "message": message,
                "type": "metrics" if data else "message",
                "data": data or {},
            }
        )


def _break(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
    raise asyncio.CancelledError


def _honest(kind: type[BaseModel], body: Body) -> Body:
    unknown = body.keys() - kind.model_fields.keys()
    assert not unknown, f"{kind.__name__} has no {unknown}"
    kind.model_validate(body)
    return body


def _answer(kind: type[BaseModel], body: Body) -> web.Response:
    return web.json_response(_honest(kind, body))


def _refused(message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> web.Response:
    return web.json_response(error_body(message, code=code, param=param), status=status)


def _page(kind: type[BaseModel], items: list[Body], request: web.Request) -> web.Response:
    limit, after = int(request.query.get("limit", "20")), request.query.get("after")
    begin = next((i + 1 for i, item in enumerate(items) if item["id"] == after), 0) if after else 0
    part = items[begin : begin + limit]
    for item in part:
        _honest(kind, item)
    return web.json_response({"object": "list", "data": part, "has_more": begin + limit < len(items)})
