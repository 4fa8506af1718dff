"""On whose behalf the api asks the gateway: limits and arms are then the caller's, not those of the api as one.

The header has a pseudonym, so that no name goes over the wire or into a log. The code at its end has it that nobody
makes one who does not hold the internal token; it vouches for who asks, and opens nothing by itself.
"""

import hmac

CALLER_HEADER = "x-finetune-caller"
PSEUDONYM_DIGITS = 32
SEPARATOR = "."


def vouched(caller: str, key: str) -> str:
    """The header's value; `key` is what gateway and api share."""
    pseudonym = _digits(f"caller-name {caller}", key)
    return f"{pseudonym}{SEPARATOR}{_digits(f'caller {pseudonym}', key)}"


def vouched_caller(value: str, key: str) -> str | None:
    """The pseudonym; None for what the api has not written, and where there is no `key` to tell."""
    pseudonym, _, code = value.partition(SEPARATOR)
    if not key or not hmac.compare_digest(code.encode(), _digits(f"caller {pseudonym}", key).encode()):
        return None
    return f"caller {pseudonym}"


def _digits(text: str, key: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()[:PSEUDONYM_DIGITS]
