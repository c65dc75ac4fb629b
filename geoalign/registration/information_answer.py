"""What a maximum of mutual information tells: the warp's error, the model the data allow, tie points, the Match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from geoalign.errors import MatchError
from geoalign.kernels import mutual_information as kernel
from geoalign.kernels.fit import tukey
from geoalign.registration import quality
from geoalign.registration.affine_models import TANGENTS, centred, frame, matrix_of, plain
from geoalign.registration.information_pair import CELLS, SMOOTHING, Pair
from geoalign.registration.select import distance_px
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Shift

FLOOR_PX = 0.0003
"""Error of a shift that no amount of structure removes (aliasing, interpolation), an axis."""
SIMPLER = 0.99
"""A simpler model is preferred where the affine's departure from it is within this quantile of its own error."""


def best_smoothing(pair, warp, model):
    """The smoothing of the interpolated image that makes the answer most certain, and the warp found with it."""
    model = "affine" if model == "auto" else model
    best = None
    for sigma in SMOOTHING:
        if sigma < pair.smooth:
            continue
        here = pair if sigma == pair.smooth else pair.smoothed(sigma)
        rough = here.thinned(max(1, here.level.size // 60_000))
        found = rough.climb(warp, model, close=0.01, steps=4)
        error = Answer.at(rough, found, model).sigma_px
        if best is None or error < 0.85 * best[0]:
            best = (error, here, found)
        elif error > 1.2 * best[0]:
            break
    return best[1:]


@dataclass
class Answer:
    """A warp at a maximum of information, with what the blocks say about it."""

    pair: Pair
    warp: Affine
    model: str
    b: np.ndarray  # the affine about the centre
    gradient: np.ndarray  # (cell, 6)
    curvature: np.ndarray  # (6, 6), as it was found by probing
    local: np.ndarray  # (block, 8)
    response: float
    information: float
    block_information: np.ndarray

    PROBE_PX = 0.25

    @classmethod
    def at(cls, pair, warp, model):
        centre, size = frame(pair.shape)
        matrix = matrix_of(warp)
        information, _, values, joint, rest = pair.at(matrix)
        gradient, curvature, local = pair.scores(values, rest)
        pull = []
        for h in (cls.PROBE_PX, -cls.PROBE_PX):
            aside = matrix.copy()
            aside[:, 2] += h
            _, _, there, _, tables = pair.at(aside)
            pull.append(pair.scores(there, tables)[0].sum(axis=0)[[2, 5]].sum())
        # noise in the interpolated image's gradient looks like knowledge; what bends the information is the truth
        expected = curvature[np.ix_([2, 5], [2, 5])].sum()
        response = float(np.clip((pull[1] - pull[0]) / (2 * cls.PROBE_PX * expected), 0.05, 2.0))
        total, count = kernel.by_block(pair.level, values, pair.cell, pair.n_cell, joint, pair.low, pair.width)
        total, count, local = (pair.blocks(part) for part in (total, count, local))
        local[:, 5:7] /= np.maximum(local[:, 2] + local[:, 4], 1e-300)[:, None]
        spread = (pair.bins - 1) ** 2 / (2 * max(count.sum(), 1))
        block_information = np.maximum(total / np.maximum(count, 1) - spread, 0.0)
        b = centred(matrix, centre, size)
        parts = gradient, curvature * response, local, response, information - spread, block_information
        return cls(pair, warp, model, b, *parts)

    @property
    def covariance(self):
        """(6, 6) of the affine about the centre: the scatter of the blocks' scores between two inverse curvatures."""
        tangent = TANGENTS[self.model](self.b)
        k = tangent.shape[1]
        normal = tangent.T @ self.curvature @ tangent
        scores, grid = self.gradient @ tangent, self.pair.grid
        scatter = scores.T @ scores if grid is None else kernel.scatter(scores, grid, CELLS)
        n = int((self.local[:, 7] > 0).sum())
        inverse = np.linalg.inv(normal)
        inner = inverse @ scatter @ inverse * n / max(n - k, 1)
        cov = tangent @ inner @ tangent.T
        cov[[2, 5], [2, 5]] += FLOOR_PX**2
        return cov

    @property
    def sigma_px(self):
        """1-sigma error over the image, an axis; px. The mean square of (row - centre) / size is a sixth or so."""
        d = np.diag(self.covariance)
        return float(np.sqrt(0.5 * (d[2] + d[5] + (d[0] + d[1] + d[3] + d[4]) / 6)))

    def simplest(self):
        """The simplest model from which this affine departs by no more than its error allows."""
        size = frame(self.pair.shape)[1]
        cov = self.covariance
        b = (self.b - np.array([[size, 0, 0], [0, size, 0]])).ravel()
        rules = {
            "shift": np.eye(6)[[0, 1, 3, 4]],
            "similarity": np.array([[1, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0]], float),
        }
        for model, rule in rules.items():
            departs = rule @ b
            apart = rule @ cov @ rule.T + (2 * FLOOR_PX) ** 2 * np.eye(len(rule))
            if departs @ np.linalg.solve(apart, departs) < chi2.ppf(SIMPLER, len(rule)):
                return model
        return "affine"

    def match(self, swap, shape, limit, seed) -> Match:
        pair, local = self.pair, self.local
        still = np.eye(2, 3)
        moved = distance_px(self.warp, Shift(0.0, 0.0), shape)
        if moved > max(0.3, 4 * self.sigma_px):
            try:
                before = pair.at(still)[0]
            except MatchError:
                before = 0.0
            now = pair.at(matrix_of(self.warp))[0]
            if now <= before:
                raise MatchError(
                    f"the warp found ({moved:.2f} px) shares no more information than no motion "
                    f"({now:.4f} against {before:.4f} nats)."
                )
        middle = (np.array(shape) - 1) / 2
        out = self.warp.inverse() if swap else self.warp
        far = float(np.hypot(*(np.array(out.pull(*middle)) - middle)))
        if far > limit:
            raise MatchError(f"the motion found is {far:.1f} px, beyond the {limit:.1f} px searched.")
        steps, inverse, use = self._steps()
        length2 = np.where(use, np.einsum("ni,nij,nj->n", steps, np.linalg.inv(inverse), steps), 0.0)
        weight, factor = tukey(length2, use, TANGENTS[self.model](self.b).shape[1])
        check = quality.check_points(use, seed)
        apart = steps - self._without(check, local[:, 5:7]) * check[:, None]
        name = np.where(check, "check", np.where(use, "fit", "rejected")).astype(object)
        reason = np.where(use, "", np.where(local[:, 7] < 32, "masked or outside", "no structure")).astype(object)
        lost = use & (weight <= 0)
        name[lost], reason[lost] = "rejected", "outlier"
        in_fit, in_check = name == "fit", name == "check"
        if in_fit.sum() < 3:
            raise MatchError(
                f"only {int(in_fit.sum())} blocks of the image agree on a warp; 3 are needed at the least."
            )
        at = local[:, 5:7]
        found = np.stack(self.warp.pull(*at.T), 1) + steps
        if swap:
            at, found = found, at
            apart = -apart @ np.linalg.inv(matrix_of(self.warp)[:, :2]).T
        sigma = np.sqrt(np.trace(inverse, axis1=1, axis2=2) / 2 * factor)
        score = np.sqrt(1 - np.exp(-2 * self.block_information))
        table = quality.point_table(at, found, apart, sigma, score, name, reason)
        warp, covariance = self._public(swap)
        return Match(
            warp=warp,
            covariance=covariance,
            score=float(np.sqrt(1 - np.exp(-2 * max(self.information, 1e-6)))),
            rmse_px=quality.rms_length(apart, in_fit),
            n_points=int(in_fit.sum()),
            method="mutual_information",
            tie_points=table,
            cv_px=quality.rms_length(apart, in_check),
        )

    def _steps(self):
        """Where each block by itself would lie, px from the warp (n, 2), the error of that (n, 2, 2), and its use."""
        local = self.local
        normal = np.stack([local[:, 2], local[:, 3], local[:, 3], local[:, 4]], 1).reshape(-1, 2, 2)
        trace, det = normal[:, 0, 0] + normal[:, 1, 1], np.linalg.det(normal)
        use = (local[:, 7] >= 32) & (det > 1e-6 * trace**2) & (trace > 0)
        inverse = np.linalg.inv(np.where(use[:, None, None], normal, np.eye(2)))
        steps = np.einsum("nij,nj->ni", inverse, local[:, :2]) / self.response
        inverse = inverse / self.response
        use &= (0.5 * np.trace(inverse, axis1=1, axis2=2) < 9.0) & (np.abs(steps).max(axis=1) < 3.0)
        inverse[~use], steps[~use] = np.eye(2), 0.0
        return steps, inverse, use

    def _without(self, check, at):
        """How far the warp would move at some points, had the blocks in `check` not taken part: to first order, px."""
        tangent = TANGENTS[self.model](self.b)
        normal = tangent.T @ self.curvature @ tangent
        kept = 1 - self.local[check][:, [2, 4]].sum() / max(self.local[:, [2, 4]].sum(), 1e-300)
        change = -tangent @ np.linalg.solve(
            normal * max(kept, 0.1), tangent.T @ self.pair.blocks(self.gradient)[check].sum(axis=0)
        )
        centre, size = frame(self.pair.shape)
        design = np.column_stack([(at - centre) / size, np.ones(len(at))])
        return design @ change.reshape(2, 3).T

    def _public(self, swap):
        """(warp reference -> moving, covariance as Match wants it)."""
        centre, size = frame(self.pair.shape)
        if self.model == "shift":
            sign = -1 if swap else 1
            return Shift(*(sign * (self.b[:, 2] - centre)).tolist()), self.covariance[np.ix_([2, 5], [2, 5])]

        def numbers(b):
            m = plain(b.reshape(2, 3), centre, size)
            return np.array((Affine(m).inverse() if swap else Affine(m)).matrix).ravel()

        flat = self.b.ravel()
        jac = np.stack([(numbers(flat + h) - numbers(flat - h)) / 2e-4 for h in np.eye(6) * 1e-4], axis=1)
        return Affine(numbers(flat).reshape(2, 3)), jac @ self.covariance @ jac.T
