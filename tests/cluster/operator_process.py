"""The real operator as a process of its own, started as its image starts it."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from tests.cluster.addresses import PORT, fresh_address
from tests.waiting import eventually

OPERATOR = Path(__file__).resolve().parents[2] / "operator"
INTERNAL_TOKEN = "internal-token-of-the-tests"  # noqa: S105 - opens nothing but this process's own servers
ENGINE_API_KEY = "engine-key-of-the-tests"
POLL_SECONDS = 0.5
STEADY_SECONDS = 3.0
LOG_TAIL_LINES = 40


class OperatorProcess:
    """`finetune-operator run` for one namespace, by pid."""

    def __init__(self, namespace: str, kubeconfig: Path, api_url: str, log: Path) -> None:
        self._namespace = namespace
        self._kubeconfig = kubeconfig
        self._api_url = api_url
        self._log = log
        self._liveness_endpoint = f"http://{fresh_address()}:{PORT}/healthz"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Returns once its liveness endpoint answers."""
        await self.launch()
        await eventually(self.is_live)

    async def launch(self) -> None:
        """Returns at once: whoever expects it to die may not live to see it live."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "finetune_operator", "run"),
                env=self._environment(),
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )

    async def is_live(self) -> bool:
        """Whether its liveness endpoint answers."""
        assert self.running, f"the operator has ended:\n{self.log_tail()}"
        try:
            async with aiohttp.ClientSession() as session, session.get(self._liveness_endpoint) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

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

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            # The operator of this tree, whichever one the environment was made for.
            "PYTHONPATH": str(OPERATOR),
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
            "FINETUNE_STEADY_SECONDS": str(STEADY_SECONDS),
            # A second costs one unit, so that a test sees it.
            "FINETUNE_PRICES": '{"perHour": {"nvidia.com/gpu": "3600"}}',
            "FINETUNE_LIVENESS_ENDPOINT": self._liveness_endpoint,
        }
