"""Every tier, as `make test` runs them: groups side by side, and beside them, before them all, the loop on the node.

    python -m tests.all_tiers

The images' tests take half an hour of two cores and hardly ever have a new reason to fail: like `go test`, this keeps
their passes by everything that they can depend on (tests/inputs.py), says so, and `make images` runs them in any case.
The loop asserts how soon things happen: it begins when nothing computes beside it, and the others, which mostly wait
for an API server or for one process, leave it the processor. Exit code 1 if any test failed.
"""

import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from local_cluster.layout import cache_root
from tests import inputs

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=25", "--durations-min=4")
YIELDING = ("nice", "-n", "10")
SIDE_BY_SIDE = 3
"""More than two cores' worth: of these, only the images' tests compute all the time, with one thread each."""


@dataclass(frozen=True)
class Group:
    """Tests that run one after the other in a process of their own."""

    name: str
    arguments: tuple[str, ...]
    keeps_its_pass: bool = False


HALF = tuple(
    f"tests/images/test_{name}.py"
    for name in ("arguments", "axolotl", "axolotl_training", "interruptions", "server", "several_processes")
)
"""About half of what the images' tests take; whatever is not named here is in the other half."""
IMAGES = (
    Group("images", HALF, keeps_its_pass=True),
    Group("images-others", ("tests/images", *(f"--ignore={name}" for name in HALF)), keeps_its_pass=True),
)
OTHERS = (
    Group("api-server", ("tests/helm", "tests/cluster")),
    Group("unit", ("tests/unit", "tests/local_cluster")),
)
LOOP = Group("end-to-end", ("tests/e2e",))

printing = threading.Lock()


def main() -> int:
    digest = inputs.digest()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        groups = (*IMAGES, *OTHERS)
        running = {group.name: pool.submit(run_unless_passed, group, digest) for group in groups}
        for group in IMAGES:
            running[group.name].result()
        say(f"{LOOP.name}: running")
        code, output = run(LOOP, yielding=False)
        codes = {name: future.result() for name, future in running.items()} | {LOOP.name: code}
    say(output)
    failed = [name for name, code in codes.items() if code]
    if failed:
        sys.stderr.write(f"failures in: {', '.join(failed)}\n")
    return int(bool(failed))


def run_unless_passed(group: Group, digest: str) -> int:
    record = passes() / f"{group.name}-{digest[:16]}"
    if group.keeps_its_pass and record.exists():
        say(f"{group.name}: not run, since nothing it depends on has changed: {record.read_text().strip()}")
        return 0
    say(f"{group.name}: running")
    code, output = run(group)
    say(output)
    if group.keeps_its_pass and not code:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{output.splitlines()[-1].strip('= ')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
    return code


def run(group: Group, *, yielding: bool = True) -> tuple[int, str]:
    """The exit code, and what pytest said: shown at the end, since groups run side by side."""
    with tempfile.TemporaryFile("w+") as output:
        command = [*(YIELDING if yielding else ()), *PYTEST, *group.arguments]
        ended = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False)
        output.seek(0)
        return ended.returncode, output.read()


def passes() -> Path:
    return cache_root() / "passed-tests"


def say(text: str) -> None:
    with printing:
        sys.stdout.write(f"{text.rstrip()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
