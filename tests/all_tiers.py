"""The cluster and every tier, as `make test` runs them: groups side by side, then the whole loop alone.

    python -m tests.all_tiers

Like `go test`, this keeps the pass of what depends on files alone by the digest of these files, and says so: of the
images' tests by everything that they can reach (tests/inputs.py), since they take half an hour of two cores and most
changes can't touch them; of the others by the whole tree. `make unit`, `make cluster` and `make images` run anyhow.
The loop depends on the node, too, and always runs: last and undisturbed, since it asserts how soon things happen.
Everything else begins as soon as what it needs is compiled, beside the rest of the compiling and of the building.

A few failures among tests that watch other programs are run again, once: on two shared cores one of 600 may be
overtaken by what it watches. What fails again has failed, and what does not is named at the end as unsteady, to be
mended. Exit code 1 if any test failed.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from local_cluster.layout import cache_root
from tests import inputs

PYTEST = (sys.executable, "-m", "pytest", "--durations=25", "--durations-min=4")
MOST_AGAIN = 3
"""More failures than these are no accident."""
SIDE_BY_SIDE = 2
"""Beside compiling, too: it leaves the cores idle while packages are downloaded and layers written."""


@dataclass(frozen=True)
class Group:
    """Tests that run one after the other in a process of their own."""

    name: str
    arguments: tuple[str, ...]
    watches: bool = False
    """Whether the tests wait for what other programs do."""


HALF = tuple(
    f"tests/images/test_{name}.py"
    for name in ("arguments", "axolotl", "axolotl_training", "interruptions", "server", "several_processes")
)
"""About half of what the images' tests take; whatever is not named here is in the other half."""
IMAGES = (
    Group("images", HALF),
    Group("images-others", ("tests/images", *(f"--ignore={name}" for name in HALF))),
)
API_SERVER = Group("api-server", ("tests/helm", "tests/cluster"), watches=True)
UNIT = Group("unit", ("tests/unit", "tests/local_cluster"))
AT_LOAD = ("tests/e2e/test_ten_thousand_requests.py", "tests/e2e/test_killed_pods.py")
"""`make load`: half an hour, on cores that nothing else uses."""
LOOP = Group("end-to-end", ("tests/e2e", *(f"--ignore={name}" for name in AT_LOAD)), watches=True)

printing = threading.Lock()
unsteady: list[str] = []
"""The tests that passed only when they ran again."""


def main() -> int:
    # Where a machine is set to keep no bytecode, each of a thousand processes would compile all that it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    of_images, of_all = inputs.digest(), inputs.digest_of_tree()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool, ThreadPoolExecutor(1) as with_api_server:
        running = {UNIT: pool.submit(run_unless_passed, UNIT, of_all)}
        running |= {group: pool.submit(run_unless_passed, group, of_images) for group in IMAGES}
        # Compiling takes longer than any test may.
        lacking = _python("local_cluster", "build", "--control-plane-only")
        if not lacking:
            running[API_SERVER] = with_api_server.submit(run_unless_passed, API_SERVER, of_all)
            lacking = _python("demo", "up")
        failures = [line for group, future in running.items() for line in named_failures(group, *future.result())]
    if lacking:
        unrun = LOOP.name if API_SERVER in running else f"{API_SERVER.name} and {LOOP.name}"
        failures.append(f"not run, for lack of a cluster: {unrun}; {lacking}")
    else:
        say(f"{LOOP.name}: running alone")
        code, output = run(LOOP)
        say(output)
        failures += named_failures(LOOP, code, output)
    # What ran first is far above by now, and may be cut off where only the end of the output is kept.
    if unsteady:
        say("\n  ".join(("unsteady, passed only when run again:", *unsteady)))
    if failures:
        say("\n  ".join(("failed:", *failures)))
    return int(bool(failures))


def _python(*arguments: str) -> str:
    """What the command said of its failure; nothing if it succeeded."""
    done = subprocess.run([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    return f"{' '.join(arguments)} (exit code {done.returncode}): {done.stderr.strip()}" if done.returncode else ""


def named_failures(group: Group, code: int, output: str) -> list[str]:
    """What of a group failed, as pytest's summary names it."""
    if not code:
        return []
    # Above its summary pytest shows logs, whose errors begin in the same way.
    summary = output.rpartition("short test summary info")[2]
    named = [line for line in summary.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return [f"{group.name}: {line}" for line in named or [f"exit code {code}"]]


def run_unless_passed(group: Group, digest: str) -> tuple[int, str]:
    record = passes() / f"{group.name}-{digest[:16]}"
    if record.exists():
        say(f"{group.name}: not run, since nothing it depends on has changed: {record.read_text().strip()}")
        return 0, ""
    say(f"{group.name}: running")
    code, output = run(group)
    say(output)
    if not code:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{output.splitlines()[-1].strip('= ')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
    return code, output


def run(group: Group) -> tuple[int, str]:
    """The exit code, and what pytest said: shown at the end, since groups run side by side."""
    code, output, failed = _pytest(group.arguments)
    if not (group.watches and 0 < len(failed) <= MOST_AGAIN):
        return code, output
    say(f"{output}\n{group.name}: running again what failed: {' '.join(failed)}")
    code, output, failed_again = _pytest(failed)
    unsteady.extend(sorted(set(failed) - set(failed_again)))
    return code, output


def _pytest(arguments: Sequence[str]) -> tuple[int, str, list[str]]:
    """The exit code, the output, and the tests that failed."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile("w+") as output:
        command = [*PYTEST, "-o", f"cache_dir={cache}", *arguments]
        ended = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False)
        output.seek(0)
        failures = Path(cache, "v/cache/lastfailed")
        failed = list(json.loads(failures.read_text())) if failures.exists() else []
        return ended.returncode, output.read(), failed


def passes() -> Path:
    return cache_root() / "passed-tests"


def say(text: str) -> None:
    with printing:
        sys.stdout.write(f"{text.rstrip()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
