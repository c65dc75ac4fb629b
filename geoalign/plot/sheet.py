"""What all figures share: colours that the colour-blind tell apart, and a Figure that a notebook shows."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#888888"
LONGEST = 1000
"""Longest side of a drawn map, px; larger layers are reduced so that no changed pixel is lost."""


class Sheet(Figure):
    """A Figure that a notebook shows without pyplot."""

    def _repr_png_(self):
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=110, bbox_inches="tight")
        return stream.getvalue()


def map_size(shape):
    """Size of a figure with one map of (rows, cols) and a bar beside it, inches."""
    height, width = shape
    return (6.4, float(np.clip(6.4 * 0.84 * height / width, 2.4, 9)))


def round_below(value):
    """The largest of 1, 2, 5 times a power of ten that is not above the value."""
    power = 10.0 ** np.floor(np.log10(value))
    return max(m * power for m in (1, 2, 5) if m * power <= value * 1.0001)
