"""One request on its way through the gateway, and what is told about it afterwards."""

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from finetune_operator.contract.experiments import Sample
from finetune_operator.core.chat_texts import StreamedText, Unusable, answered
from finetune_operator.core.request_ids import SEPARATOR, signed_request_id
from finetune_operator.core.routing import Answerer, Target
from finetune_operator.gateway.bodies import RequestBody
from finetune_operator.gateway.choice import ARM_HEADER, Choice
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.usage import UNKNOWN, StreamEnd, Usage, estimated_tokens, usage_of
from finetune_operator.logs import get_logger

REQUEST_ID_HEADER = "x-request-id"
VERSION_HEADER = "x-finetune-version"
EVENT_MARK = b"data:"
FAILED_STATUS = 500
CLIENT_GONE = 499
"""The client went away before the answer was whole; nginx's number for it, which no client sees."""

logger = get_logger(__name__)


def new_request_id() -> str:
    """A random UUID, which each request waits for: `uuid.uuid4` takes four times as long."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@dataclass
class Exchange:
    """Filled in step by step; `request_id` is always our own, since it makes samples unique, and tells from `choose` on
    which version was asked."""

    path: str
    client_request_id: str | None = None
    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=time.monotonic)
    asked: str | None = None
    choice: Choice | None = None
    body: RequestBody | None = None
    streamed: StreamedText | None = None
    """Puts a stream's text together, where people are to judge the answer."""
    counts_tokens: bool = False
    """Whether somebody beside an ABTest wants to know how many there are: a limit, or what a version's answers cost."""
    status: int = CLIENT_GONE
    """Of the answer as a whole: 502 also where a stream broke after its 200 had been sent."""
    attempts: int = 0
    engine_failed: bool = False
    """Whether an engine answered an attempt with a failure of its own; the client may have been spared it."""
    engine_pod: str | None = None
    """Whose answer began last; a Service leads to any of an engine's pods."""
    first_token_seconds: float | None = None
    error: str | None = None
    _events: int = 0
    _whole: bytes | None = None
    _stream_end: StreamEnd | None = None

    def choose(self, choice: Choice, key: str) -> None:
        """Who shall answer, maybe instead of another; without a `key` that the api has too, the id tells nothing."""
        self.choice = choice
        target = choice.answerer
        self.request_id = self.request_id.partition(SEPARATOR)[0]
        if key and isinstance(target, Target) and target.version_uid:
            self.request_id = signed_request_id(self.request_id, target.version_uid, key)

    def headers(self, *, answered: bool = False) -> dict[str, str]:
        """What every answer carries; the version only where it really answered."""
        headers = {REQUEST_ID_HEADER: self.request_id}
        if self.choice and self.choice.arm:
            headers[ARM_HEADER] = self.choice.arm.value
        if answered and self.choice and self.choice.served_name:
            headers[VERSION_HEADER] = self.choice.served_name
        return headers

    def note_first_token(self) -> None:
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self.started

    @property
    def is_sampled(self) -> bool:
        """Whether an ABTest wants to know of it."""
        return self.choice is not None and self.choice.arm is not None and self.choice.test_uid is not None

    @property
    def shadow(self) -> Answerer | None:
        """Who gets a copy: of answered requests only, since one that broke an engine shall break no other."""
        return self.choice.shadow if self.choice and self.status == 200 else None

    def note_whole(self, body: bytes) -> None:
        """Read later, and only if an ABTest wants to know."""
        self._whole = body

    def note_chunk(self, chunk: bytes) -> None:
        """Costs a copy of the stream's last few kilobytes, and that only while somebody wants to know."""
        if self.is_sampled or self.counts_tokens:
            self._stream_end = self._stream_end or StreamEnd()
            self._stream_end.add(chunk)
            self._events += chunk.count(EVENT_MARK)
        if self.streamed is not None:
            self.streamed.add(chunk)

    def answered_text(self) -> str | Unusable:
        """Of an answer that came whole; a stream's only where it was put together."""
        if self.status != 200:
            return Unusable.INCOMPLETE
        if self._whole is not None:
            return answered(self._whole)
        return self.streamed.text() if self.streamed is not None else Unusable.UNREADABLE

    @property
    def served_name(self) -> str:
        """Who answers; empty while that is not known."""
        return (self.choice.served_name if self.choice else None) or ""

    @property
    def tokens(self) -> int:
        """Of prompt and answer, as the engine tells.

        Where it does not (a stream whose client asks for no usage, an answer that its client did not wait for), those
        of the prompt are estimated, and of a stream its events count: vLLM sends one for each token or more.
        """
        usage = self.usage()
        told = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        if told or not self.attempts or self.status not in (200, CLIENT_GONE):
            return told
        return (estimated_tokens(self.body.text) if self.body else 0) + self._events

    def usage(self) -> Usage:
        if self.status != 200:
            return UNKNOWN
        if self._stream_end is not None:
            return self._stream_end.usage()
        return usage_of(self._whole) if self._whole is not None else UNKNOWN

    @property
    def version_uid(self) -> str | None:
        """Of the version that was asked; None of a base model."""
        target = self.choice.answerer if self.choice else None
        return target.version_uid if isinstance(target, Target) else None

    @property
    def answered_usage(self) -> Usage | None:
        """Of a whole answer, as far as the engine told; None where there is none."""
        return self.usage() if self.status == 200 else None

    def sample(self, seconds: float) -> Sample | None:
        """For an ABTest: an answer or a failure of the arm, not a client's mistake or departure. One that only another
        attempt made good is a failure: else a version that fails now and then would seem to be as good as any."""
        choice = self.choice
        if choice is None or choice.arm is None or choice.test_uid is None or 400 <= self.status < 500:
            return None
        usage = self.usage()
        return Sample(
            ab_test=choice.test_uid,
            arm=choice.arm.value,
            served_name=choice.served_name or "unknown",
            status=max(self.status, FAILED_STATUS) if self.engine_failed else self.status,
            latency_ms=round(seconds * 1000),
            request_id=self.request_id,
            time=datetime.now(UTC),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            subject=choice.subject,
            candidate_percent=choice.candidate_percent,
        )

    def finish(self, metrics: Metrics) -> Sample | None:
        """Count and log it; never a prompt, an answer, a token or a subject."""
        seconds = time.monotonic() - self.started
        served_name = self.served_name
        arm = self.choice.arm.value if self.choice and self.choice.arm else ""
        metrics.requests.labels(served_name, arm, str(self.status)).inc()
        metrics.duration.labels(served_name).observe(seconds)
        if self.first_token_seconds is not None:
            metrics.first_token.labels(served_name).observe(self.first_token_seconds)
        logger.info(
            "request",
            path=self.path,
            model=self.asked,
            served_name=served_name,
            arm=arm,
            status=self.status,
            duration_ms=round(seconds * 1000, 1),
            first_token_ms=round(self.first_token_seconds * 1000, 1) if self.first_token_seconds is not None else None,
            attempts=self.attempts,
            engine_pod=self.engine_pod,
            request_id=self.request_id,
            client_request_id=self.client_request_id,
            error=self.error,
        )
        return self.sample(seconds)
