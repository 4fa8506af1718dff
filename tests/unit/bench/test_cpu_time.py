"""Where the CPU time of pods and processes is read."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cpu_time import pod_seconds, process_seconds

UID = "0d652d7a-93cb-4279-8c87-da42844cd8e9"
UNDERLINED = UID.replace("-", "_")
OTHER = "3bf21a01-93cb-4279-8c87-da42844cd8e9"
PLACES: dict[str, tuple[str, str]] = {
    "version 1, cgroupfs, burstable": (f"cpuacct/kubepods/burstable/pod{UID}/cpuacct.usage", "2500000000\n"),
    "version 1, cgroupfs, guaranteed": (f"cpuacct/kubepods/pod{UID}/cpuacct.usage", "2500000000\n"),
    "version 2, cgroupfs": (f"kubepods/besteffort/pod{UID}/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
    "version 2, systemd, guaranteed": (
        f"kubepods.slice/kubepods-pod{UNDERLINED}.slice/cpu.stat",
        "usage_usec 2500000\n",
    ),
    "version 2, systemd, burstable": (
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERLINED}.slice/cpu.stat",
        "usage_usec 2500000\n",
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_the_time_of_a_pod(tmp_path: Path, case: str) -> None:
    place, text = PLACES[case]
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(text)
    assert pod_seconds(UID, tmp_path) == 2.5
    assert pod_seconds(OTHER, tmp_path) is None


BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
FAMILIES = {
    "itself": BURN,
    "a child that has ended": f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])\n",
    "a child that lives": "import subprocess, sys, time\n"
    f"subprocess.run([sys.executable, '-c', {BURN + 'print(1, flush=True); time.sleep(600)'!r}])\n",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_time_of_a_process_is_that_of_its_family(family: str) -> None:
    command = [sys.executable, "-c", f"{FAMILIES[family]}\nimport time; print(1, flush=True); time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            # The kernel counts in hundredths.
            assert 0.25 <= process_seconds(process.pid) < 5
        finally:
            os.killpg(process.pid, signal.SIGKILL)
