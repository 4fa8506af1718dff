"""Numbers with a fraction as requests have them: bounded, so that none is written with more digits than it was sent."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

MAX_CHARACTERS = 24
"""As many as a resource takes."""
MIN_EXPONENT, MAX_EXPONENT = -12, 6
_BOUNDS = f"write at most {MAX_CHARACTERS} characters, and a number between 1e{MIN_EXPONENT} and 1e{MAX_EXPONENT}"


def _short(value: object) -> object:
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        raise ValueError(_BOUNDS)
    return value


def _bounded(value: Decimal) -> Decimal:
    if not value:
        return Decimal(0)
    exponent = value.as_tuple().exponent
    known = isinstance(exponent, int) and exponent >= -MAX_CHARACTERS and len(value.as_tuple().digits) <= MAX_CHARACTERS
    if not known or not MIN_EXPONENT <= value.adjusted() <= MAX_EXPONENT or len(decimal_text(value)) > MAX_CHARACTERS:
        raise ValueError(_BOUNDS)
    return value


def decimal_text(value: Decimal) -> str:
    """As a FineTuneJob has numbers with a fraction: no exponent and no zeros at the end."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


BoundedDecimal = Annotated[
    Decimal, BeforeValidator(_short), Field(strict=False, allow_inf_nan=False), AfterValidator(_bounded)
]
"""A JSON number, or one in a string."""
