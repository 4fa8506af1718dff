"""What a line chart of a page is drawn from."""

from pydantic import BaseModel, ConfigDict


class Line(BaseModel):
    """One line: a value, or a gap, for each of the curve's `x`."""

    model_config = ConfigDict(frozen=True)

    label: str
    y: tuple[float | None, ...]
    smooth: bool = False
    """Whether the page's slider smooths it; the measured values stay visible beneath."""


class Curve(BaseModel):
    """Lines over one ascending `x`."""

    model_config = ConfigDict(frozen=True)

    x_label: str
    x: tuple[float, ...]
    series: tuple[Line, ...]
