"""The scales of pictures whose values may be alike or may span decades."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

_MOST_LINEAR: Final = 20  # beyond this ratio the small ones cannot be told from 0 on a linear scale
_MOST_TICKS: Final = 4  # of a logarithmic scale: 0.00001 is a long word


def set_scales(ax: Axes, *, x: pd.Series | None = None, y: pd.Series | None = None) -> None:
    """Make the x or the y axis logarithmic where its values, drawn already, span more than a decade; else it begins at 0.

    The numbers at a logarithmic axis are plain: 0.00001, no power of 10. Values that are not positive have no place on it.
    """
    for axis, values in ((ax.xaxis, x), (ax.yaxis, y)):
        if values is None:
            continue
        positive = values[values > 0]
        if len(positive) and positive.max() > _MOST_LINEAR * positive.min():
            ax.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_major_locator(LogLocator(numticks=_MOST_TICKS))
            axis.set_major_formatter(lambda x, _: np.format_float_positional(float(f"{x:.6g}"), trim="-"))
        else:
            high = axis.get_view_interval()[1]
            ax.set(**{f"{axis.axis_name}lim": (0, high if high > 0 else 1)})
