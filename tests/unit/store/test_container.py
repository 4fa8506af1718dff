"""The one-shot containers of the operator's image, as the processes that they are."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from finetune_operator.core.endings import TERMINATED_EXIT_CODE
from tests.waiting import eventually


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("prepare",), id="prepare"),
        pytest.param(("fetch-base-model", "owner/name", "main", "--job"), id="fetch"),
        pytest.param(("train-remote", "--cancel"), id="cancel"),
        pytest.param(("evaluate",), id="evaluate"),
    ],
)
async def test_asked_to_leave_it_leaves_and_says_that_it_was_asked(arguments: tuple[str, ...], tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    os.mkfifo(config)
    command = [sys.executable, "-m", "finetune_operator", *arguments, str(config)]
    process = await asyncio.create_subprocess_exec(*command)

    def reads_its_config() -> int | None:
        with suppress(OSError):  # until somebody reads
            return os.open(config, os.O_WRONLY | os.O_NONBLOCK)
        return None

    keeps_it_waiting = await eventually(reads_its_config, 60)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == TERMINATED_EXIT_CODE
    os.close(keeps_it_waiting)
