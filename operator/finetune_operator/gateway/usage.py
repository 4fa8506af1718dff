"""How many tokens an engine says that its answer has; the answer itself passes untouched.

A stream tells it in its last event, and only where the client asked for it (`stream_options.include_usage`). So as not
to read each event, only the end of a stream is kept, and is read once the client has it all.
"""

import re
from dataclasses import dataclass

from finetune_operator.contract.experiments import TOKENS_MAX
from finetune_operator.gateway.bodies import members_of

WHOLE_MAX_BYTES = 256 * 1024
"""Longer answers, such as those of many embeddings, are not read: that would keep other requests waiting."""
STREAM_END_BYTES = 4096
"""An event with a usage takes a few hundred bytes."""

CHARACTERS_PER_TOKEN = 4
_DATA_URL = re.compile(r'"data:[\w.+-]++/[\w.+-]++;base64,[A-Za-z0-9+/=\\]*+"')


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, None where the engine did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


UNKNOWN = Usage()


def usage_of(body: bytes) -> Usage:
    """From a whole JSON answer, or the data of one event; nothing where it is something else."""
    if len(body) > WHOLE_MAX_BYTES or b'"usage"' not in body:
        return UNKNOWN
    try:
        found = {member.name: member.value for member in members_of(body.decode())}.get("usage")
    except ValueError:
        return UNKNOWN
    if not isinstance(found, dict):
        return UNKNOWN
    return Usage(_tokens(found.get("prompt_tokens")), _tokens(found.get("completion_tokens")))


def estimated_tokens(request: str) -> int:
    """Of a request's texts: about four characters each, as OpenAI's rule of thumb has it for English; pictures and
    sounds, which are data URLs, are left out."""
    return (len(request) - sum(len(found) for found in _DATA_URL.findall(request))) // CHARACTERS_PER_TOKEN


def _tokens(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= TOKENS_MAX else None


class StreamEnd:
    """The last bytes of a stream of server-sent events."""

    def __init__(self) -> None:
        self._end = b""

    def add(self, chunk: bytes) -> None:
        self._end = (self._end + chunk)[-STREAM_END_BYTES:]

    def usage(self) -> Usage:
        """Of the last event before `[DONE]`."""
        for line in reversed(self._end.splitlines()):
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                return usage_of(data)
        return UNKNOWN
