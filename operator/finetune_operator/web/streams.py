"""How many answers may go on for hours: each holds a connection to the API server."""

from collections.abc import Iterator
from contextlib import contextmanager

from finetune_operator.web.problems import Problem

MAX_STREAMS = 256


class Streams:
    """Counts what is open; whoever comes when there are `max_streams` is told to come later."""

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self._max_streams = max_streams
        self.open = 0

    def require_room(self) -> None:
        """Raises a 503 problem, before there is an answer that could not say it any more."""
        if self.open >= self._max_streams:
            detail = f"{self.open} clients follow trainings already; try again after Retry-After, or ask now and then"
            raise Problem(503, "too-many-streams", detail)

    @contextmanager
    def one(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
