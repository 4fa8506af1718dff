"""Seconds as people read them, for printer columns, which can't compute."""


def short_duration(seconds: int) -> str:
    """`45s`, `12m`, `3h20m`, `2d4h`, as kubectl prints ages."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    if minutes >= 10:
        return f"{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
