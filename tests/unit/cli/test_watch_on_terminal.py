"""`ftctl watch` on a terminal: the tree is drawn, follows what changes, fits the window and ends with Ctrl-C."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Ftctl
from tests.unit.cli.played_cluster import PlayedCluster, job
from tests.waiting import eventually

ROWS, COLUMNS = 40, 100
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
REDRAWN = re.compile(r"\x1b\[\d*A|\x1b\[2K")
ENDED_BY_CTRL_C = 130


class Terminal:
    """What a person sees, and the keyboard."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._master = master
        self._written = bytearray()
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def raw(self) -> str:
        return self._written.decode(errors="replace")

    @property
    def last_page(self) -> list[str]:
        """The lines from the last head on."""
        pages = CONTROL.sub("", self.raw).replace("\r", "").split("Ctrl-C ends")
        return pages[-1].splitlines()[1:]

    def shows(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.last_page)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    def _read(self) -> None:
        try:
            self._written += os.read(self._master, 65_536)
        except OSError:
            # Linux says so when the last process has closed the other end.
            asyncio.get_running_loop().remove_reader(self._master)


@asynccontextmanager
async def watching(kubeconfig: Path) -> AsyncIterator[Terminal]:
    """`ftctl watch`, whose controlling terminal is ours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = await asyncio.create_subprocess_exec(
        # A session whose terminal this is, so that Ctrl-C reaches it as from a keyboard; a shell has what it starts in
        # the background, such as these tests, ignore it.
        "env", "--default-signal=INT",
        "setsid", "--ctty", "--wait", sys.executable, "-m", "finetune_operator.cli.main", "watch",
        stdin=slave, stdout=slave, stderr=slave,
        env=variables | {"KUBECONFIG": str(kubeconfig), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    os.close(slave)
    terminal = Terminal(master, process)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        terminal.close()


@pytest.fixture
async def kubeconfig(ftctl: Ftctl, cluster: PlayedCluster, tmp_path: Path) -> Path:
    await ftctl("get", "jobs")
    return tmp_path / "editor.kubeconfig"


async def test_the_tree_follows_what_changes_and_ends_with_ctrl_c(kubeconfig: Path, cluster: PlayedCluster) -> None:
    async with watching(kubeconfig) as terminal:
        await eventually(lambda: terminal.shows("job plato-2", "48%"))
        for words in (("plato", "answered by plato-v1"), ("engine vllm-a", "1/1 pods"), ("job plato-3",)):
            assert terminal.shows(*words), terminal.last_page
        assert max(len(line) for line in terminal.last_page) <= COLUMNS

        await cluster.tell("finetunejobs", "finetune", "plato-2", phase="Succeeded")
        await eventually(lambda: terminal.shows("✔", "job plato-2"))
        cluster.put("finetunejobs", job("plato-7", "Failed", message="\x1b]0;owned\x07 CUDA out of memory"))
        await cluster.tell("finetunejobs", "finetune", "plato-7", phase="Failed")
        await eventually(lambda: terminal.shows("✘", "job plato-7"))
        assert "\x1b]0;owned" not in terminal.raw, "a message can not speak to the terminal"

        assert REDRAWN.search(terminal.raw), "it is drawn over, not below"
        assert re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.raw), "with colours"
        terminal.press(b"\x03")
        async with asyncio.timeout(30):
            assert await terminal.process.wait() == ENDED_BY_CTRL_C
        assert "Traceback" not in terminal.raw


async def test_while_the_api_server_is_away_the_tree_stays_and_says_so(
    kubeconfig: Path, cluster: PlayedCluster
) -> None:
    async with watching(kubeconfig) as terminal:
        await eventually(lambda: terminal.shows("job plato-2"))
        await eventually(lambda: cluster.watches)
        cluster.away, cluster.watch_ends_after = True, 0
        await cluster.tell("finetunejobs", "finetune", "plato-2", message="nobody hears this yet")
        await eventually(lambda: terminal.shows("etcd is away"))
        assert terminal.shows("job plato-2")
        cluster.away, cluster.watch_ends_after = False, None
        await eventually(lambda: terminal.last_page and not terminal.shows("etcd is away"))
        assert terminal.shows("job plato-2")
