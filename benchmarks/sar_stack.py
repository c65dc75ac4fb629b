"""The simulated SAR stack of the benchmarks and tests: gamma speckle, and a step of known size and date in some pixels."""

from dataclasses import dataclass

import numpy as np

VV, VH = 0.1, 0.02
DROPS_DB = (1.5, 3.0, 5.0, 8.0)
TOLERANCE_DAYS = 180
REVISIT_DAYS = 12


@dataclass(frozen=True)
class SarStack:
    """vv, vh : (time, row, col) float32; time (time,); changed (row, col) bool; drop_db in vh, half of it in vv; first
    changed date (its number), -1 none"""

    vv: np.ndarray
    vh: np.ndarray
    time: np.ndarray
    changed: np.ndarray
    drop_db: np.ndarray
    first: np.ndarray

    def stack(self, enl=None):
        """As a Stack; enl in the bands' attributes where given."""
        import geoalign

        out = geoalign.new_stack({"vv": self.vv, "vh": self.vh}, self.time)
        for band in out.data_vars if enl is not None else ():
            out[band].attrs["enl"] = enl
        return out


def sar_stack(shape, *, n=90, looks=4.4, share=0.3, window=(1 / 3, 2 / 3), lag=0.0, seed=0):
    """`share` of the pixels drop by one of DROPS_DB on a date within `window` (shares of the series) and stay there.

    lag : correlation of successive dates (of the normal deviates that the gamma values are made from)
    """
    rng = np.random.default_rng(seed)
    changed = rng.random(shape) < share
    drop = np.where(changed, rng.choice(DROPS_DB, shape), 0.0)
    first = np.where(changed, rng.integers(round(window[0] * n), round(window[1] * n), shape), -1)
    on = changed & (np.arange(n)[:, None, None] >= first)
    bands = []
    for level, part in ((VV, 0.5), (VH, 1.0)):
        noise = speckle(rng, (n, *shape), looks, lag)
        bands.append((noise * level * np.where(on, 10 ** (-part * drop / 10), 1)).astype(np.float32))
    time = np.datetime64("2020-01-03") + np.arange(n) * REVISIT_DAYS
    return SarStack(*bands, time, changed, drop, first)


def speckle(rng, shape, looks, lag=0.0):
    """Gamma noise of mean 1 along the first axis, (time, row, col)."""
    if lag == 0:
        return rng.gamma(looks, 1 / looks, shape)
    from scipy import stats

    deviate = rng.normal(size=shape)
    for t in range(1, shape[0]):
        deviate[t] = lag * deviate[t - 1] + np.sqrt(1 - lag**2) * deviate[t]
    return stats.gamma.ppf(stats.norm.cdf(deviate), looks) / looks


def score(hit, date, truth):
    """Flagged pixels against the truth: (P, R, F1, median |days|, share of stable flagged, recall by drop).

    hit : (row, col) bool; date : (row, col) datetime64; a change counts within TOLERANCE_DAYS
    """
    when = truth.time[np.maximum(truth.first, 0)].astype("datetime64[D]")
    days = np.abs((date.astype("datetime64[D]") - when).astype("timedelta64[D]").astype(float))
    good = hit & truth.changed & (days <= TOLERANCE_DAYS)
    precision = good.sum() / max(hit.sum(), 1)
    recall = good.sum() / truth.changed.sum()
    by_drop = {db: float(good[truth.drop_db == db].mean()) for db in DROPS_DB}
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-9),
        "days": float(np.median(days[good])) if good.any() else np.nan,
        "false": float(hit[~truth.changed].mean()),
        "by_drop": by_drop,
    }


def wishart(shape, looks, covariance, seed=0):
    """c11, c22, Re c12, Im c12 (..., 4, n_time) of matrices of whole looks; shape (..., n_time)."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(2, looks, 2, *shape))
    s = (normal[0] + 1j * normal[1]) / np.sqrt(2)
    root = np.linalg.cholesky(np.asarray(covariance, complex))
    s = np.einsum("ij,lj...->li...", root, s)
    c = np.einsum("li...,lj...->ij...", s, s.conj()) / looks
    return np.stack([c[0, 0].real, c[1, 1].real, c[0, 1].real, c[0, 1].imag], axis=-2)
