"""Headers as they go over the wire, to engines and to clients."""

from collections.abc import Mapping


def header_lines(headers: Mapping[str, str]) -> str:
    """One line each; raises `ValueError` for a value that would become more than one."""
    return "".join(f"{name}: {_line(value)}\r\n" for name, value in headers.items())


def _line(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise ValueError("a header's value has one line")
    return value
