"""The part of MLflow's REST API that its client uses for a run, on a real port."""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class MLflowServer:
    """Keeps experiments, runs and metrics; with a token, refuses who doesn't bring it."""

    def __init__(self, token: str | None) -> None:
        self.experiments: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.metrics: list[tuple[str, int]] = []
        self.refused = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                self._answer(query)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(json.loads(body or b"{}"))

            def _answer(self, values: dict[str, Any]) -> None:
                method = urllib.parse.urlsplit(self.path).path.partition("/mlflow/")[2]
                if token and self.headers.get("Authorization") != f"Bearer {token}":
                    outer.refused += 1
                    status, answer = 401, {"error_code": "UNAUTHENTICATED", "message": "no token"}
                else:
                    status, answer = outer.handle(method, values)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def handle(self, method: str, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(status, answer)"""
        match method:
            case "experiments/get-by-name" if values["experiment_name"] not in self.experiments:
                return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
            case "experiments/get-by-name":
                return 200, {"experiment": self._experiment(values["experiment_name"])}
            case "experiments/create":
                self.experiments.append(values["name"])
                return 200, {"experiment_id": str(len(self.experiments))}
            case "experiments/get":
                return 200, {"experiment": self._experiment(self.experiments[int(values["experiment_id"]) - 1])}
            case "runs/create":
                run_id = f"run{len(self.runs)}"
                self.runs[run_id] = {"run_name": values.get("run_name"), "status": "RUNNING"}
                return 200, {"run": self._run(run_id)}
            case "runs/get":
                return 200, {"run": self._run(values["run_id"])}
            case "runs/update":
                self.runs[values["run_id"]]["status"] = values.get("status", "RUNNING")
                return 200, {"run_info": self._run(values["run_id"])["info"]}
            case "runs/log-batch":
                self.metrics += [(metric["key"], int(metric.get("step", 0))) for metric in values.get("metrics", [])]
                return 200, {}
            case "runs/set-tag" | "runs/log-parameter":
                return 200, {}
            case _:
                return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"no {method} here"}

    def _experiment(self, name: str) -> dict[str, Any]:
        number = str(self.experiments.index(name) + 1)
        return {"experiment_id": number, "name": name, "lifecycle_stage": "active", "artifact_location": "file:///tmp"}

    def _run(self, run_id: str) -> dict[str, Any]:
        info = {
            "run_id": run_id,
            "run_uuid": run_id,
            "experiment_id": "1",
            "lifecycle_stage": "active",
            "start_time": 1,
        }
        return {"info": info | self.runs[run_id] | {"artifact_uri": "file:///tmp"}, "data": {}}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def mlflow_server(token: str | None = None) -> Iterator[MLflowServer]:
    server = MLflowServer(token)
    try:
        yield server
    finally:
        server.close()
