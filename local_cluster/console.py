"""What a person sees: steps with their duration, notes, a line now and then while something long runs."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRESS_INTERVAL_SECONDS = 15.0


class Refused(Exception):
    """The cluster can't do what was asked; the message says what to change."""


def note(message: str) -> None:
    print(f"  {message}", flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints the title, then how long the work took."""
    print(f"==> {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"    {title}: {time.monotonic() - started:.1f} s", flush=True)


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log file, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def run_long(
    argv: Sequence[str], title: str, log: Path, *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Runs a command into a log file, with a progress line now and then; Refused with the log's end if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd, env=environment
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=PROGRESS_INTERVAL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    last = tail(log, 1).strip()[:100]
                    note(f"{title}: {time.monotonic() - started:.0f} s so far  {last}")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code != 0:
        raise Refused(f"{title} failed (exit {code}); the end of {log}:\n{tail(log)}")


def output_of(argv: Sequence[str], *, environment: Mapping[str, str] | None = None, text: str | None = None) -> str:
    """The standard output of a short command; Refused with its standard error if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, input=text, check=False)
    if done.returncode != 0:
        raise Refused(f"{' '.join(argv)} failed (exit {done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return 1
