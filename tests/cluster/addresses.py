"""Loopback addresses that nobody else listens at: a server can come back to its own, and needs no port that is free."""

import itertools

from finetune_operator.contract.places import ENGINE_PORT

PORT = ENGINE_PORT

_numbers = itertools.count()


def fresh_address() -> str:
    """Of one server; there is one session of these tests at a time."""
    number = next(_numbers)
    return f"127.77.{number // 250}.{number % 250 + 1}"
