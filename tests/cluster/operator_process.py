"""The real operator as a process of its own, started as its image starts it."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from tests.waiting import eventually

INTERNAL_TOKEN = "internal-token-of-the-tests"  # noqa: S105 - opens nothing but this process's own servers
ENGINE_API_KEY = "engine-key-of-the-tests"
POLL_SECONDS = 0.5
LOG_TAIL_LINES = 40


class OperatorProcess:
    """`finetune-operator run` for one namespace, by pid."""

    def __init__(self, namespace: str, kubeconfig: Path, api_url: str, log: Path) -> None:
        self._namespace = namespace
        self._kubeconfig = kubeconfig
        self._api_url = api_url
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Returns once its liveness endpoint answers."""
        port = await self.launch()
        await eventually(lambda: self._is_live(port), timeout_seconds=60)

    async def launch(self) -> int:
        """Returns at once, with the liveness endpoint's port: whoever expects it to die may not live to see it live."""
        port = _free_port()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "finetune_operator", "run"),
                env=self._environment(port),
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        return port

    async def kill(self) -> None:
        """As a node that loses power: no chance to say goodbye."""
        await self._end(signal.SIGKILL)

    async def ended(self) -> None:
        """Returns when the process has ended, whoever ended it."""
        if self._process:
            await self._process.wait()

    async def stop(self) -> None:
        """As Kubernetes ends a pod."""
        await self._end(signal.SIGTERM)

    def log_tail(self) -> str:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return "\n".join(lines[-LOG_TAIL_LINES:])

    async def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        os.kill(self._process.pid, how)
        try:
            await asyncio.wait_for(self._process.wait(), timeout=20)
        except TimeoutError:
            os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            raise AssertionError(f"the operator did not end within 20 s of {how.name}:\n{self.log_tail()}") from None

    async def _is_live(self, port: int) -> bool:
        assert self.running, f"the operator ended at once:\n{self.log_tail()}"
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def _environment(self, port: int) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._kubeconfig.parent),
            "KUBECONFIG": str(self._kubeconfig),
            "FINETUNE_NAMESPACES": self._namespace,
            "FINETUNE_OPERATOR_IMAGE": "localhost/finetune-operator/operator:test",
            "FINETUNE_TRAINER_IMAGE": "localhost/finetune-operator/trainer:test",
            "FINETUNE_AXOLOTL_IMAGE": "localhost/finetune-operator/trainer-axolotl:test",
            "FINETUNE_SERVER_IMAGE": "localhost/finetune-operator/server:test",
            "FINETUNE_API_URL": self._api_url,
            "FINETUNE_INTERNAL_TOKEN": INTERNAL_TOKEN,
            "VLLM_API_KEY": ENGINE_API_KEY,
            "FINETUNE_POLL_SECONDS": str(POLL_SECONDS),
            # A second costs one unit, so that a test sees it.
            "FINETUNE_PRICES": '{"perHour": {"nvidia.com/gpu": "3600"}}',
            "FINETUNE_LIVENESS_ENDPOINT": f"http://127.0.0.1:{port}/healthz",
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
