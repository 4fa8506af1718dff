"""kubectl and helm as subprocesses: the demo does nothing that a person could not type."""

import json
import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5


class DemoError(Exception):
    """Something that the demo promised did not happen; the message says what was seen instead."""


@dataclass(frozen=True)
class Kubectl:
    """One cluster, one namespace."""

    kubeconfig: Path | None
    namespace: str
    program: str = "kubectl"
    helm_program: str = "helm"

    def run(self, *arguments: str, stdin: str | bytes | None = None, timeout_seconds: float = 300) -> str:
        """Standard output of a kubectl command; its error text when it fails."""
        return self._call([self.program, "--namespace", self.namespace, *arguments], stdin, timeout_seconds)

    def helm(self, *arguments: str, timeout_seconds: float = 600) -> str:
        """Standard output of a helm command."""
        return self._call([self.helm_program, "--namespace", self.namespace, *arguments], None, timeout_seconds)

    def get(self, *arguments: str) -> dict[str, Any]:
        """One object, or a list of them."""
        body: dict[str, Any] = json.loads(self.run("get", *arguments, "--output", "json"))
        return body

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object, or None."""
        text = self.run("get", kind, name, "--ignore-not-found", "--output", "json")
        return json.loads(text) if text.strip() else None

    def apply(self, manifest: Path | Mapping[str, Any]) -> str:
        """Server-side apply of a file or an object."""
        if isinstance(manifest, Path):
            return self.run("apply", "--server-side", "--force-conflicts", "--filename", str(manifest))
        return self.run("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=json.dumps(manifest))

    def wait_for(self, what: str, check: Any, timeout_seconds: float) -> Any:
        """Ask again until the check answers something true."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            if found := check():
                return found
            if time.monotonic() > deadline:
                raise DemoError(f"{what} did not happen within {timeout_seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    @contextmanager
    def port_forward(self, service: str, port: int = 80) -> Iterator[str]:
        """The base URL at which a Service answers on this machine, for the life of the block."""
        command = [self.program, "--namespace", self.namespace, "port-forward", f"service/{service}", f":{port}"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment()
        )
        try:
            yield f"http://127.0.0.1:{_forwarded_port(process)}"
        finally:
            process.terminate()
            process.wait()

    def environment(self) -> dict[str, str]:
        """The caller's environment, pointed at the cluster."""
        return dict(os.environ) | ({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {})

    def _call(self, command: list[str], stdin: str | bytes | None, timeout_seconds: float) -> str:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            command, input=data, capture_output=True, env=self.environment(), timeout=timeout_seconds, check=False
        )
        if done.returncode != 0:
            raise DemoError(f"`{' '.join(command)}` failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode(errors="replace")


def _forwarded_port(process: "subprocess.Popen[str]") -> int:
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    try:
        line = lines.get(timeout=30)
    except queue.Empty as error:
        raise DemoError("kubectl port-forward said nothing for 30 s") from error
    if found := re.search(r"127\.0\.0\.1:(\d+)", line):
        return int(found.group(1))
    raise DemoError(f"kubectl port-forward said {line.strip()!r}")
