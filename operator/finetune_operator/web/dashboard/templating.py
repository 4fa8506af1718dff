"""Templates and how values are shown: what is unknown is a dash and never 0. Pure, but for reading the templates."""

import math
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finetune_operator.core.durations import short_duration
from finetune_operator.core.training_estimates import Range, shown_cost, shown_time
from finetune_operator.web.dashboard import changed_yaml, commands
from finetune_operator.web.dashboard.assets import asset

UNKNOWN = "\u2013"
SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
SIZE_STEP = 1024
HUNDREDTH = 0.01
SAID_BY_TEMPLATES = (
    commands.active_commands, commands.budget_commands, commands.curl, commands.dataset_list_commands,
    commands.namespace_flag, commands.pair_commands, commands.vote_commands, changed_yaml.active_yaml,
    changed_yaml.budget_yaml,
)  # fmt: skip
"""What is at the foot of a page alone, and of which its handler knows nothing."""


def number(value: float | None, digits: int = 0) -> str:
    """With thin spaces between thousands."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


def loss(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Of a share from 0 to 1."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}\u202f%"


def money(amount: float | None, currency: str | None) -> str:
    if amount is None:
        return UNKNOWN
    # Two digits that say something, also of a fraction of a cent.
    digits = math.ceil(-math.log10(abs(amount))) + 1 if 0 < abs(amount) < HUNDREDTH else 2
    shown = f"{amount:,.{digits}f}"
    return f"{shown.replace(',', chr(0x202F))} {currency or ''}".strip()


def size(size_bytes: float | None) -> str:
    if size_bytes is None:
        return UNKNOWN
    left, unit = float(size_bytes), 0
    while left >= SIZE_STEP and unit < len(SIZES) - 1:
        left, unit = left / SIZE_STEP, unit + 1
    return f"{left:.0f} {SIZES[unit]}" if unit == 0 else f"{left:.1f} {SIZES[unit]}"


def duration(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else short_duration(round(seconds))


def moment(time: datetime | None) -> str | Markup:
    """As a `<time>` that says the day, the minute and, for programs, all of it."""
    if time is None:
        return UNKNOWN
    at = time.astimezone(UTC)
    pattern = '<time datetime="{}" title="{}">{}</time>'
    return Markup(pattern).format(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%d %H:%M:%S} UTC", f"{at:%d %b %Y, %H:%M}")  # noqa: S704


def time_range(seconds: Range | None) -> str:
    return UNKNOWN if seconds is None else shown_time(seconds)


def cost_range(cost: Range | None, currency: str | None) -> str:
    return UNKNOWN if cost is None else shown_cost(cost, currency)


def negated(amount: float | None) -> float | None:
    return None if amount is None else -amount


def capitalize_first(text: str) -> str:
    """The rest stays as it is, unlike by `capitalize`."""
    return text[:1].upper() + text[1:]


def zip_same(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Options of a choice that are called what they are."""
    return [(text, text) for text in texts]


def orelse(value: object) -> object:
    """The value, or a dash for what is unknown or empty."""
    return UNKNOWN if value is None or value == "" else value


def environment() -> Environment:
    """One for the process: it keeps what it has compiled."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "number": number,
        "loss": loss,
        "percent": percent,
        "money": money,
        "size": size,
        "duration": duration,
        "moment": moment,
        "time_range": time_range,
        "cost_range": cost_range,
        "orelse": orelse,
        "negated": negated,
        "capitalize_first": capitalize_first,
        "zip_same": zip_same,
        "shell": shlex.quote,
    }
    made.filters.update(filters)
    made.globals["asset"] = asset
    for each in SAID_BY_TEMPLATES:
        made.globals[each.__name__] = each
    return made


TEMPLATES = environment()
