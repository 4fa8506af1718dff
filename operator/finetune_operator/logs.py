"""Structured logs of all processes: one JSON object a line on standard error, whatever library wrote it.

The command line, which writes no logs, shares the Kubernetes client and is installed without structlog.
"""

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import structlog


COPIES: list[Callable[[str], None]] = []
"""Who else gets each line."""


class NamedLogger:
    """Writes whole lines to what is standard error by then; `name` is what `add_logger_name` reads."""

    def __init__(self, name: str) -> None:
        self.name = name

    def msg(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")
        for copy in COPIES:
            copy(message)

    debug = info = warning = error = critical = msg


class _Handler(logging.StreamHandler[TextIO]):
    """Of the standard library's records; one that can't be written never fails who logs it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            self.stream.write(f"{line}{self.terminator}")
            self.flush()
            for copy in COPIES:
                copy(line)
        except Exception:  # noqa: BLE001 - a library may log whatever it likes
            self.handleError(record)


def configure_logging(level: str = "INFO") -> None:
    """Send structlog's and the standard library's records through one JSON renderer; call it once, first thing.

    Our own records don't pass through the standard library, where one costs two and a half times as much: the gateway
    writes one for each request.
    """
    import structlog

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=NamedLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)


def cause(error: BaseException) -> str:
    """An exception as text. Not its `repr`: that of aiohttp's has the request's headers, and with them a token."""
    words = str(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def get_logger(name: str) -> "structlog.typing.FilteringBoundLogger":
    """A logger whose keyword arguments become fields."""
    import structlog

    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return logger
