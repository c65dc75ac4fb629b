"""Match: how one image lies on another. Alignment: how a whole stack lies on its reference, and how well."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from geoalign.errors import StateError
from geoalign.types.warp import Affine, Chain, Field, Projective, Shift, Warp

TIE_POINT_COLUMNS = {
    "row": float,  # reference pixel
    "col": float,
    "row_moving": float,  # where it was found in the moving image
    "col_moving": float,
    "dy_residual": float,  # found minus the warp's answer, px
    "dx_residual": float,
    "sigma_px": float,  # 1-sigma error of the point itself, an axis
    "score": float,  # 0..1
    "use": str,  # fit | check | rejected
    "reason": str,  # why it was rejected, "" otherwise
}

REPORT_COLUMNS = (
    "scene",
    "status",
    "dy",
    "dx",
    "rmse_px",
    "cv_px",
    "n_points",
    "sigma_px",
    "rmse_m",
    "cv_m",
    "ce90_px",
    "ce90_m",
    "closure_px",
    "method",
    "model",
    "reason",
)


@dataclass(frozen=True)
class Match:
    """How a moving image lies on a reference.

    warp : the Warp (pull: reference pixel -> moving pixel)
    covariance : error covariance of the warp's parameters: (2, 2) for Shift (dy, dx); (6, 6) for Affine, row-major of
        the matrix; (8, 8) for Projective; for Field the (node_row, node_col) variance of an axis at the nodes, px^2
    score : 0..1, how much alike the images are once aligned
    rmse_px : root mean square length of the residuals of the points used in the fit (FRE), px
    n_points : points used in the fit
    method : the matcher's name
    tie_points : DataFrame, columns `TIE_POINT_COLUMNS`
    cv_px : root mean square residual of the points held out of the fit (TRE), px; NaN where none were
    """

    warp: Warp
    covariance: np.ndarray
    score: float
    rmse_px: float
    n_points: int
    method: str
    tie_points: pd.DataFrame = field(repr=False)
    cv_px: float = float("nan")

    @property
    def ce90_px(self) -> float:
        """Circular error: the length (px) that 90 % of the residuals of held-out points do not exceed.

        Of the points used in the fit where none were held out, which is optimistic; NaN without either.
        """
        for use in ("check", "fit"):
            points = self.tie_points[self.tie_points["use"] == use] if len(self.tie_points) else self.tie_points
            length = np.asarray(np.hypot(*(points.get(f"d{axis}_residual", ()) for axis in "yx")), float)
            if np.isfinite(length).any():
                return float(np.nanpercentile(length, 90))
        return float("nan")

    def sigma_px(self, rows, cols):
        """Predicted 1-sigma error of the warp, an axis, at reference (rows, cols); px, same shape."""
        rows, cols = np.broadcast_arrays(np.asarray(rows, float), np.asarray(cols, float))
        cov = np.asarray(self.covariance, float)
        if isinstance(self.warp, Shift):
            return np.full(rows.shape, np.sqrt(max(np.trace(cov) / 2, 0.0)))
        if isinstance(self.warp, Field):
            from geoalign.kernels.spline import spline_eval

            w = self.warp
            nodes = np.maximum(cov, 0.0)
            u, v = (rows - w.row0) / w.step_row, (cols - w.col0) / w.step_col
            return np.sqrt(np.maximum(spline_eval(nodes, u, v), 0.0))
        design = _design(self.warp, rows, cols)  # (..., 2, k)
        variance = np.einsum("...ik,kl,...il->...i", design, cov, design)
        return np.sqrt(np.maximum(variance.mean(axis=-1), 0.0))


def _design(warp, rows, cols):
    """d(pull) / d(parameters), (..., 2, k)."""
    one, zero = np.ones(rows.shape), np.zeros(rows.shape)
    if isinstance(warp, Affine):
        top = np.stack([rows, cols, one, zero, zero, zero], axis=-1)
        low = np.stack([zero, zero, zero, rows, cols, one], axis=-1)
        return np.stack([top, low], axis=-2)
    if isinstance(warp, Projective):
        m = np.array(warp.matrix)
        w = m[2, 0] * rows + m[2, 1] * cols + 1.0
        r, c = warp.pull(rows, cols)
        top = np.stack([rows, cols, one, zero, zero, zero, -r * rows, -r * cols], axis=-1) / w[..., None]
        low = np.stack([zero, zero, zero, rows, cols, one, -c * rows, -c * cols], axis=-1) / w[..., None]
        return np.stack([top, low], axis=-2)
    raise StateError(f"no error model is known for a warp of type {type(warp).__name__}.")


@dataclass(frozen=True)
class Alignment:
    """How every scene of a stack lies on the reference, made by `coregister`.

    reference : scene id, "median", or what was given
    warps : dict scene id -> Warp, in pixels of `geobox`; scenes that failed or were rejected are not in it
    report : DataFrame, a row a scene, columns `REPORT_COLUMNS`. status: aligned | reference | failed | rejected;
        dy, dx mean displacement over the valid area (px); rmse_px FRE on the points used, cv_px TRE on points held
        out (px); ce90_px circular error, the length that 90 % of the residuals of held-out points do not exceed (of
        points used where none were held out); closure_px rms of the loops over neighbouring scenes that the scene is in
        (NaN where it is in none); rmse_m, cv_m, ce90_m the same in metres (NaN without a CRS in metres)
    geobox : the grid the warps' pixels belong to, None for arrays without one
    shape : (row, col) of that grid
    points : DataFrame of tie points, `TIE_POINT_COLUMNS` with `scene` first
    band : the band the scenes were matched in ("sar": the mean of vv and vh in dB); "" where that is not known
    """

    reference: str
    warps: dict[str, Warp]
    report: pd.DataFrame
    geobox: object | None = None
    shape: tuple[int, int] = (0, 0)
    points: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["scene", *TIE_POINT_COLUMNS]), repr=False
    )
    band: str = ""

    def __repr__(self):
        return f"<Alignment: {'; '.join(self._lines())}>"

    def _repr_html_(self):
        from geoalign.types.show import card, table

        names = ["scene", "status", "dy", "dx", "rmse_px", "cv_px", "sigma_px", "n_points", "model", "reason"]
        rows = [[getattr(row, name) for name in names] for row in self.report.itertuples()]
        shown = rows if len(rows) <= 40 else rows[:40]
        more = [] if len(rows) == len(shown) else [f"the first 40 of {len(rows)} scenes; all are in .report"]
        return card("Alignment", [*self._lines(), *more], [table(names, shown)])

    def _lines(self) -> list[str]:
        """What matters, in short: how many lie, on what, how well, and which do not."""
        counts = self.report["status"].value_counts()
        told = [f"{counts[name]} {name}" for name in ("aligned", "rejected", "failed") if name in counts]
        lines = [f"{len(self.report)} scenes on {self.reference} ({', '.join(told) or 'none aligned'})"]
        errors = self.report.loc[self.report["status"] == "aligned", "cv_px"].dropna()
        if len(errors):
            lines.append(f"held-out points within {errors.median():.2f} px (median), {errors.max():.2f} px (worst)")
        bad = self.report[self.report["status"].isin(["rejected", "failed"])]
        lines += [f"{row.scene}: {row.reason}" for row in bad.head(3).itertuples()]
        return lines

    def apply(self, stack, *, resampling: str = "cubic"):
        """The stack on the reference grid, each scene resampled once and lazily; see `registration.apply`."""
        from geoalign.registration.apply import apply

        return apply(self, stack, resampling=resampling)

    def propagate(self, frame, *, scene: str, inverse: bool = False):
        """Digitised points, lines or polygons of the reference as they lie in a scene; `inverse` brings them back.

        A GeoDataFrame in any CRS, whose rows, attributes and CRS stay; see `registration.carry.propagate`.
        """
        from geoalign.registration.carry import propagate

        return propagate(self, frame, scene=scene, inverse=inverse)

    def transfer(self, labels, *, scene: str, inverse: bool = False, method: str = "nearest", **options):
        """A label raster of the reference as it lies in a scene; `inverse` brings one of a scene to the reference.

        method: "nearest", or "probability" (memberships resampled linearly, the largest wins); options: `nodata`,
        `return_probability`; see `registration.carry.transfer`.
        """
        from geoalign.registration.carry import transfer

        return transfer(self, labels, scene=scene, inverse=inverse, method=method, **options)

    def accumulate(self, layers, *, per_pixel: bool):
        """Sum in the reference frame of quantities mapped in scenes' own frames, with the number of observations.

        per_pixel: True for what a pixel holds (counts, areas; totals are conserved), False for densities; see
        `registration.carry.accumulate`.
        """
        from geoalign.registration.carry import accumulate

        return accumulate(self, layers, per_pixel=per_pixel)

    def tie_points(self):
        """Tie points of all scenes as a GeoDataFrame a GIS can show: the point in the reference, and its residual.

        With a grid in metres the residual is also there as `east_m` and `north_m`, ready for arrows on a map.
        """
        import geopandas as gpd

        frame = self.points.reset_index(drop=True)
        # of an alignment without points the columns would be objects, which a file would take for text
        frame = frame.astype(
            {name: kind for name, kind in TIE_POINT_COLUMNS.items() if kind is float and name in frame}
        )
        cols, rows = frame["col"].to_numpy(float), frame["row"].to_numpy(float)
        if self.geobox is None:
            return gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(cols, rows))
        a = self.geobox.affine
        x, y = a.a * (cols + 0.5) + a.b * (rows + 0.5) + a.c, a.d * (cols + 0.5) + a.e * (rows + 0.5) + a.f
        frame = gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(x, y), crs=str(self.geobox.crs))
        if frame.crs.is_projected:
            metre = frame.crs.axis_info[0].unit_conversion_factor
            dy, dx = frame["dy_residual"].to_numpy(float), frame["dx_residual"].to_numpy(float)
            frame["east_m"], frame["north_m"] = (a.a * dx + a.b * dy) * metre, (a.d * dx + a.e * dy) * metre
        return frame

    def displacement(self):
        """`pull` minus identity for every aligned scene: Dataset with dy, dx (scene, y, x), px."""
        import xarray as xr

        from geoalign.types.stack import grid_coords

        rows, cols = np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(float)
        parts = {name: warp.pull(rows, cols) for name, warp in self.warps.items()}
        dims = ("scene", "y", "x")
        empty = np.empty((0, *self.shape), np.float32)
        dy = np.stack([p[0] - rows for p in parts.values()]).astype(np.float32) if parts else empty
        dx = np.stack([p[1] - cols for p in parts.values()]).astype(np.float32) if parts else empty
        coords = {"scene": list(parts), **grid_coords(self.geobox, self.shape)}
        units = {"units": "px"}
        return xr.Dataset({"dy": (dims, dy, units), "dx": (dims, dx, units)}, coords=coords)

    def save(self, path) -> Path:
        """Write the alignment as one JSON file, atomically."""
        path = Path(path)
        document = {
            "format": "geoalign.alignment",
            "version": 1,
            "reference": self.reference,
            "shape": list(self.shape),
            "band": self.band,
            "geobox": None
            if self.geobox is None
            else {"crs": self.geobox.crs.to_wkt(), "transform": list(self.geobox.affine[:6])},
            "warps": {scene: _warp_to_plain(warp) for scene, warp in self.warps.items()},
            "report": json.loads(self.report.to_json(orient="records", double_precision=15)),
            "points": json.loads(self.points.to_json(orient="split", index=False, double_precision=12)),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(partial, "w", encoding="utf-8") as stream:
                json.dump(document, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path) -> Alignment:
        """Read what `save` wrote. StateError where the file is not an alignment or from a newer version."""
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise StateError(f"{path} can't be read as an alignment: {err}.") from err
        if not isinstance(document, dict) or document.get("format") != "geoalign.alignment":
            raise StateError(f"{path} is not an alignment written by Alignment.save.")
        if document["version"] > 1:
            raise StateError(
                f"{path} is of version {document['version']}; this geoalign reads up to 1. Upgrade geoalign."
            )
        geobox = None
        shape = tuple(document["shape"])
        if document["geobox"] is not None:
            from affine import Affine as Transform
            from odc.geo.geobox import GeoBox

            geobox = GeoBox(shape, Transform(*document["geobox"]["transform"]), document["geobox"]["crs"])
        points = pd.read_json(io.StringIO(json.dumps(document["points"])), orient="split")
        points = points.astype({k: v for k, v in TIE_POINT_COLUMNS.items() if v is float and k in points})
        report = pd.DataFrame(document["report"], columns=list(REPORT_COLUMNS))
        floats = ["dy", "dx", "rmse_px", "cv_px", "sigma_px", "rmse_m", "cv_m", "ce90_px", "ce90_m", "closure_px"]
        report[floats] = report[floats].astype(float)
        warps = {scene: _warp_from_plain(plain) for scene, plain in document["warps"].items()}
        return cls(document["reference"], warps, report, geobox, shape, points, document.get("band", ""))


def _warp_to_plain(warp):
    if isinstance(warp, Shift):
        return {"type": "Shift", "dy": warp.dy, "dx": warp.dx}
    if isinstance(warp, Affine | Projective):
        return {"type": type(warp).__name__, "matrix": [list(row) for row in warp.matrix]}
    if isinstance(warp, Field):
        place = {k: getattr(warp, k) for k in ("row0", "col0", "step_row", "step_col", "inverted")}
        return {"type": "Field", "dy": warp.dy.tolist(), "dx": warp.dx.tolist(), **place}
    if isinstance(warp, Chain):
        return {"type": "Chain", "warps": [_warp_to_plain(w) for w in warp.warps]}
    raise StateError(f"a warp of type {type(warp).__name__} can't be saved.")


def _warp_from_plain(plain):
    kind = plain["type"]
    rest = {k: v for k, v in plain.items() if k != "type"}
    if kind == "Chain":
        return Chain(tuple(_warp_from_plain(w) for w in rest["warps"]))
    makers = {"Shift": Shift, "Affine": Affine, "Projective": Projective, "Field": Field}
    if kind not in makers:
        raise StateError(f"warp type {kind!r} is unknown to this version.")
    return makers[kind](**rest)
