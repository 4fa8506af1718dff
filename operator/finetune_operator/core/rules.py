"""The CRDs' rules in CEL, so that a file can be judged without an API server. Pure; https://github.com/google/cel-spec.

Rules on changes (`oldSelf`) need an old object, and are none of a file's.
"""

from functools import lru_cache

import cel


def holds(rule: str, subject: object) -> bool:
    """Whether a rule is true of `self`. Raises `ValueError` where it is no CEL."""
    program = compiled(rule)
    context = cel.Context()
    context.add_function("substring", _substring)
    context.add_variable("self", subject)
    try:
        return program.execute(context) is True
    except (KeyError, RuntimeError, TypeError, ValueError):
        # As at the API server, a rule that can't be computed is one that does not hold.
        return False


@lru_cache(maxsize=512)
def compiled(rule: str) -> cel.Program:
    """Raises `ValueError` where the rule is no CEL."""
    return cel.compile(rule)


def _substring(text: str, begin: int, end: int | None = None) -> str:
    """Of Kubernetes' own functions for texts."""
    return text[begin:end]
