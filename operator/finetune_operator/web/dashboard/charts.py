"""What a line chart of a page is drawn from."""

from pydantic import BaseModel, ConfigDict


class Line(BaseModel):
    """One line: a value, or a gap, for each of the curve's `x`."""

    model_config = ConfigDict(frozen=True)

    label: str
    y: tuple[float | None, ...]
    smooth: bool = False
    """Whether the page's slider smooths it; the measured values stay visible beneath."""
    is_bound: bool = False
    """Drawn thinly, in the colour of the first line."""
    is_reference: bool = False
    """Drawn dashed and grey: nothing that was measured."""


class Curve(BaseModel):
    """Lines over one ascending `x`."""

    model_config = ConfigDict(frozen=True)

    x_label: str
    x: tuple[float, ...]
    series: tuple[Line, ...]
    band: tuple[int, int] | None = None
    """Places of the upper and the lower line between which it is filled."""
    y_range: tuple[float, float] | None = None
    """Where the scale must not depend on what was measured."""
