"""Figures people look at: when it changed, one pixel's series, how the scenes lie, what probabilities are worth.

Each function returns a `matplotlib.figure.Figure` that shows itself in a notebook and is saved with `.savefig(path)`;
no display is needed. Colours are safe for the colour-blind (viridis; Okabe and Ito 2008).
"""

from geoalign.plot.alignment import drift, registration, residuals, sigma
from geoalign.plot.blink import Flicker, flicker
from geoalign.plot.changes import change_dates, date_histogram, reliability, series
from geoalign.plot.sheet import BLUE, GREEN, GREY, ORANGE, RED

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "RED",
    "Flicker",
    "change_dates",
    "date_histogram",
    "drift",
    "flicker",
    "registration",
    "reliability",
    "residuals",
    "series",
    "sigma",
]
