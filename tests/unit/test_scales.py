"""Scales that fit what is drawn."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from forktrace.views.pictures.scales import set_scales


def test_scales_by_span() -> None:
    """Linear from 0 for what is alike, logarithmic with plain numbers for what spans more than a decade; the other stays."""
    ax = Figure().add_subplot()
    wide, narrow = pd.Series([0.00001, 0, None, 100]), pd.Series([5, 6, 0, 7])
    ax.plot(wide, narrow)
    set_scales(ax, y=narrow)
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 7
    assert ax.get_xlim()[0] < 0
    set_scales(ax, x=wide)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert "0.01" in labels
    assert not [text for text in labels if "$" in text or "e" in text]


def test_scale_of_nothing() -> None:
    """Where nothing is drawn, or only zeros, the axis begins at 0 and has a length."""
    for values in (pd.Series([], dtype="float64"), pd.Series([0.0])):
        ax = Figure().add_subplot()
        ax.plot(values, values)
        set_scales(ax, x=values, y=values)
        assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] > 0
