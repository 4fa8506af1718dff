"""Every tier, as `make test` runs them: two groups that get along side by side, then the whole loop alone.

    python -m tests.all_tiers

The images' tests keep a processor busy while those of the API server mostly wait. The loop comes last and undisturbed,
since it also asserts how soon things happen. Exit code 1 if any test failed.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence

PYTEST = (sys.executable, "-m", "pytest", "--durations=25", "--durations-min=4")
BESIDE = ("tests/images",)
FIRST = ("tests/unit", "tests/local_cluster", "tests/helm", "tests/cluster")
LAST = ("tests/e2e",)
GROUPS = (FIRST, BESIDE, LAST)


def main() -> int:
    with tempfile.TemporaryFile("w+") as output:
        command = [*PYTEST, "-p", "no:cacheprovider", *BESIDE]
        beside = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            codes = [run(FIRST), beside.wait()]
        finally:
            beside.terminate()
            beside.wait()
        output.seek(0)
        sys.stdout.write(output.read())
    codes.append(run(LAST))
    failed = [name for group, code in zip(GROUPS, codes, strict=True) if code for name in group]
    if failed:
        sys.stderr.write(f"failures in: {' '.join(failed)}\n")
    return int(bool(failed))


def run(tests: Sequence[str]) -> int:
    sys.stdout.flush()
    return subprocess.run([*PYTEST, *tests], stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
