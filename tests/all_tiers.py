"""Every tier, as `make test` runs them: three groups that get along side by side, then the whole loop alone.

    python -m tests.all_tiers

The images' tests compute with one thread, while those of the API server mostly wait. The loop comes last and
undisturbed, since it also asserts how soon things happen. Exit code 1 if any test failed.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

PYTEST = (sys.executable, "-m", "pytest", "--durations=25", "--durations-min=4")
FIRST = ("tests/unit", "tests/local_cluster", "tests/helm", "tests/cluster")
APART = tuple(
    f"tests/images/test_{name}.py"
    for name in ("arguments", "axolotl", "axolotl_training", "interruptions", "server", "several_processes")
)
"""About half of what the images' tests take; whatever is not named here is in the other half."""
REST = ("tests/images", *(f"--ignore={name}" for name in APART))
BESIDE = (APART, REST)
LAST = ("tests/e2e",)


def main() -> int:
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in BESIDE]
        started = []
        for tests, output in zip(BESIDE, outputs, strict=True):
            command = [*PYTEST, "-p", "no:cacheprovider", *tests]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            started.append(process)
        codes = [run(FIRST), *(process.wait() for process in started)]
        for output in outputs:
            output.seek(0)
            sys.stdout.write(output.read())
    codes.append(run(LAST))
    failed = [tests for tests, code in zip((FIRST, *BESIDE, LAST), codes, strict=True) if code]
    if failed:
        sys.stderr.write("".join(f"failures in: {' '.join(tests)}\n" for tests in failed))
    return int(bool(failed))


def run(tests: Sequence[str]) -> int:
    sys.stdout.flush()
    return subprocess.run([*PYTEST, *tests], stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
