"""How a command ends: exit codes that scripts can rely on, and the errors behind them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Part of the interface: scripts branch on them."""

    DONE = 0
    FAILED = 1
    """What was asked about, or asked for, has failed."""
    USAGE = 2
    """The command or its files are wrong."""
    REFUSED = 3
    """Not found, or not allowed."""
    UNAVAILABLE = 4
    """The API server or the api does not answer; trying again may help."""
    TIMED_OUT = 124
    """Not yet: as `timeout` has it."""
    INTERRUPTED = 130


class Failed(Exception):
    """Ends a command; the text is for people, in a sentence or two, and says what to change."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def usage(message: str) -> Failed:
    return Failed(message, ExitCode.USAGE)


def refused(message: str) -> Failed:
    return Failed(message, ExitCode.REFUSED)


def unavailable(message: str) -> Failed:
    return Failed(message, ExitCode.UNAVAILABLE)
