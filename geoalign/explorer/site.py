"""What is explored: stacks and layers of Changes, looked at window by window, in memory, lazy, or in a run's files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoalign.errors import NoUsableData, StackError
from geoalign.types.stack import geobox_of, is_sar, transform_of


@dataclass(frozen=True)
class SceneView:
    """One stack, looked at window by window.

    source : a Stack in memory or lazy, or an `io.look.SceneLook`; delivered : the same scenes before alignment and
    masking, as another Stack, optional; alignment : how they lie, optional; screen : options of `geoalign.mask`
    """

    name: str
    source: Any = field(repr=False)
    delivered: Any = field(default=None, repr=False)
    alignment: Any = field(default=None, repr=False)
    screen: dict[str, Any] = field(default_factory=dict)
    clear: dict[str, float] = field(default_factory=dict)  # share of each scene that was observed, where it is known

    @property
    def files(self) -> bool:
        return not hasattr(self.source, "data_vars")

    @property
    def bands(self) -> list[str]:
        return list(self.source.names) if self.files else list(map(str, self.source.data_vars))

    @property
    def time(self):
        return np.asarray(self.source.time if self.files else self.source.time.values, "datetime64[ns]")

    @property
    def scenes(self) -> list[str]:
        if self.files:
            return self.source.scene
        names = self.source.scene.values if "scene" in self.source.coords else self.time.astype("datetime64[s]")
        return [str(s) for s in np.asarray(names)]

    @property
    def shape(self):
        return self.source.shape if self.files else (self.source.sizes["y"], self.source.sizes["x"])

    @property
    def transform(self):
        return self.source.target.affine if self.files else transform_of(self.source)

    @property
    def crs(self):
        box = self.source.target if self.files else geobox_of(self.source)
        return None if box is None else box.crs

    @property
    def sar(self) -> bool:
        return all(name in ("vv", "vh", "hh", "hv") for name in self.bands) if self.files else is_sar(self.source)

    @property
    def rejected(self) -> dict[str, str]:
        """Scenes that could not be aligned, and why."""
        if self.alignment is None:
            return {}
        report = self.alignment.report
        bad = report[report["status"].isin(["failed", "rejected"])]
        return dict(zip(bad["scene"].astype(str), bad["reason"].astype(str)))

    def as_delivered(self) -> SceneView:
        """The scenes before alignment, those that could not be aligned among them; itself where they are not known."""
        return self if self.files or self.delivered is None else replace(self, source=self.delivered, delivered=None)

    def ends(self) -> tuple[int, int]:
        """Two scenes to begin with: the clearest of the first third of the series and of the last."""
        n = len(self.scenes)
        usable = [k for k in range(n) if self.scenes[k] not in self.rejected] or list(range(n))
        third = max(1, len(usable) // 3)
        share = {k: self._share(k) for k in {*usable[:third], *usable[-third:]}}
        return max(usable[:third], key=share.get), max(usable[-third:][::-1], key=share.get)

    def _share(self, k):
        if self.scenes[k] in self.clear:
            return round(float(np.nan_to_num(self.clear[self.scenes[k]])), 2)
        if self.files or hasattr(self.source[self.bands[0]].data, "dask"):
            return 0.0  # reading many scenes for this alone would take too long
        return float(np.isfinite(self.source[self.bands[0]].isel(time=k).values[::8, ::8]).mean())

    def window(self, k: int, names, rows, cols, step: int = 1, *, masked: bool = True, aligned: bool = True):
        """Bands of scene k, rows and cols (start, stop), every `step`-th pixel: (band, row, col) float32."""
        if self.files:
            values = self.source.window(k, names, rows, cols, step, masked=masked, aligned=aligned)
            return self._screened(values, names, masked)
        stack = self.source if (masked and aligned) or self.delivered is None else self.delivered
        part = stack[list(names)].isel(y=_every(rows, step), x=_every(cols, step))
        at = np.flatnonzero(stack.time.values == self.time[k])
        if at.size == 0:
            return np.full((len(names), part.sizes["y"], part.sizes["x"]), np.nan, np.float32)
        part = part.isel(time=int(at[0])).compute()
        return np.stack([part[name].transpose("y", "x").values for name in names]).astype(np.float32)

    def series(self, names, row: int, col: int):
        """Values of one pixel, as used and with what masks took out where that is known: two arrays (band, time)."""
        if self.files:
            used, every = self.source.series(names, row, col)
            return self._screened(used, names, True), every
        used = self._pixel(self.source, names, row, col)
        if self.delivered is None:
            return used, used
        every = np.full_like(used, np.nan)
        _, ours, theirs = np.intersect1d(self.time, self.delivered.time.values, return_indices=True)
        every[:, ours] = self._pixel(self.delivered, names, row, col)[:, theirs]
        return used, every

    @staticmethod
    def _pixel(stack, names, row, col):
        pixel = stack[list(names)].isel(y=row, x=col).compute()
        return np.stack([pixel[name].values for name in names]).astype(np.float32)

    def sigma(self, k: int, rows, cols, step: int = 1):
        """1-sigma error of the alignment of scene k, px: a number, a map (row, col), or None where it is not known."""
        if self.files or "sigma_px" not in self.source.coords:
            if self.alignment is None:
                return None
            report = self.alignment.report
            row = report[report["scene"].astype(str) == self.scenes[k]]
            return float(row["sigma_px"].iloc[0]) if len(row) else None
        sigma = self.source.sigma_px.isel(time=k)
        if sigma.ndim:
            sigma = sigma.isel(y=_every(rows, step), x=_every(cols, step))
        return sigma.values if sigma.ndim else float(sigma)

    def _screened(self, values, names, masked):
        """Reflectance that nothing on the ground has is screened as `geoalign.mask` does by default."""
        if not masked:
            return values
        floor = 10 ** (self.screen.get("floor_db", -50.0) / 10) if self.sar else None
        low, high = (floor, np.inf) if self.sar else self.screen.get("valid_range") or (-0.2, 1.6)
        with np.errstate(invalid="ignore"):
            bad = ((values < low) | (values > high)).any(axis=0)
        return np.where(bad, np.float32(np.nan), values)


@dataclass(frozen=True)
class LayerView:
    """The Changes of one detector, looked at window by window.

    source : Changes, or an `io.look.LayerLook`; stack : name of the stack it was found in; detector : its repr
    """

    name: str
    kind: str
    stack: str
    detector: str
    source: Any = field(repr=False)
    polygons: Any = field(default=None, repr=False)
    prior: float = float("nan")

    @property
    def names(self) -> list[str]:
        return list(self.source.data_vars) if hasattr(self.source, "data_vars") else list(self.source.layers)

    def window(self, name: str, rows, cols, step: int = 1):
        """One layer in rows and cols (start, stop), every `step`-th pixel."""
        if not hasattr(self.source, "data_vars"):
            return self.source.window(name, rows, cols, step)
        return self.source[name].isel(y=_every(rows, step), x=_every(cols, step)).values

    def pixel(self, row: int, col: int) -> dict[str, Any]:
        """All layers at one pixel, by name; layers with a further dimension as arrays."""
        out = {}
        for name in self.names:
            values = np.asarray(self.window(name, (row, row + 1), (col, col + 1)))
            out[name] = values[..., 0, 0] if values.ndim > 2 else values[0, 0]
        return out


@dataclass
class Site:
    """What is explored: stacks and layers on one grid, with what is known of the run."""

    title: str
    stacks: dict[str, SceneView]
    layers: dict[str, LayerView]
    folder: Path | None = None
    skipped: list[dict[str, str]] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, key, make):
        """What `make()` gives, kept for all pages that are opened."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    @property
    def first(self) -> SceneView:
        return next(iter(self.stacks.values()))

    def stack_of(self, layer: LayerView | None) -> SceneView:
        return self.first if layer is None else self.stacks.get(layer.stack, self.first)


def site_of(stack, changes=None, *, alignment=None, delivered=None, polygons=None, title="geoalign") -> Site:
    """A Site of what a notebook holds.

    Parameters
    ----------
    stack : Stack, or dict name -> Stack on one grid
    changes : Changes, or dict name -> Changes, optional
    alignment, delivered : of the stack, or dict by the stack's name, optional
    polygons : GeoDataFrame of `geoalign.polygons`, or dict by the name of the changes; made of them where not given
    title : of the page
    """
    stacks = stack if isinstance(stack, dict) else {"scenes": stack}
    ways = {name: (value if isinstance(value, dict) else dict.fromkeys(stacks, value))
            for name, value in (("alignment", alignment), ("delivered", delivered))}  # fmt: skip
    views = {
        name: SceneView(name, one, ways["delivered"].get(name), ways["alignment"].get(name))
        for name, one in stacks.items()
    }
    given = {} if changes is None else changes if isinstance(changes, dict) else {changes.attrs["kind"]: changes}
    known = polygons if isinstance(polygons, dict) else dict.fromkeys(given, polygons)
    shape = next(iter(views.values())).shape
    layers = {}
    for name, one in given.items():
        if (one.sizes["y"], one.sizes["x"]) != tuple(shape):
            raise StackError(
                f"the changes {name!r} are {one.sizes['y']} x {one.sizes['x']} px, the stack {shape[0]} x {shape[1]}; "
                "they must lie on one grid."
            )
        layers[name] = LayerView(name, str(one.attrs["kind"]), _stack_of(one, views), str(one.attrs["detector"]), one,
                                 _polygons(one) if known.get(name) is None else known[name],
                                 float(one.attrs["prior"]))  # fmt: skip
    return Site(title, views, layers)


def site_of_run(folder) -> Site:
    """A Site of a run's folder (or an output folder, whose latest run is taken). The scenes are read where they lie.

    Raises
    ------
    StateError
        There is no run. NoUsableData: none of its scenes is where the run found it.
    """
    import geopandas as gpd

    from geoalign import publish
    from geoalign.config import Config
    from geoalign.io.look import look_at, look_at_changes
    from geoalign.types.alignment import Alignment

    folder = publish.resolve(folder)
    document = publish.read_manifest(folder)
    given = document["configuration"]
    config = Config.model_validate({**given, "folder": Path(given["folder"])})
    grid, stacks, lost = _geobox(document["grid"]), {}, []
    for name, source in config.sources.items():
        place = folder / "registration" / f"{name}.json"
        alignment = Alignment.load(place) if place.is_file() else None
        try:
            look = look_at(source, like=grid, product=config.product_of(name), bands=config.bands_of(name),
                           time=config.time, orbit=config.orbit_of(name))  # fmt: skip
        except NoUsableData as err:
            lost.append(str(err))
            continue
        register = config.register_of(name)
        look = replace(look, alignment=alignment, resampling=register.resampling if register else "cubic")
        clear = {s["scene"]: s["clear"] for s in document["scenes"] if s["stack"] == name and s["clear"] is not None}
        stacks[name] = SceneView(name, look, None, alignment, config.mask_of(name), clear)
    if not stacks:
        raise NoUsableData(
            "the scenes of this run are not where it found them: " + " ".join(lost) + " Explore it where they lie."
        )
    layers = {}
    for name, record in document["layers"].items():
        place = folder / "layers" / name
        path = place / "changes.gpkg"
        frame = gpd.read_file(path, use_arrow=True) if path.is_file() else None
        prior = options_of(record["repr"]).get("prior", float("nan"))
        layers[name] = LayerView(name, record["kind"], record["stack"], record["repr"], look_at_changes(place), frame,
                                 float(prior or "nan"))  # fmt: skip
    return Site(document["name"], stacks, layers, folder, document["skipped"])


def _geobox(grid):
    from affine import Affine
    from odc.geo.geobox import GeoBox

    return GeoBox(tuple(grid["shape"]), Affine(*grid["transform"]), grid["crs"])


def _stack_of(changes, views):
    """The stack whose scenes the changes name as their inputs; the first where none does."""
    inputs = set(str(changes.attrs.get("inputs", "")).split())
    return max(views, key=lambda name: len(inputs & set(views[name].scenes)))


def _polygons(changes):
    from geoalign.vectors import polygons

    return polygons(changes)


def _every(span, step):
    """Numbers of every step-th row: the middle one of each block, as overviews have it."""
    return np.minimum(np.arange(span[0], span[1], step) + step // 2, span[1] - 1)


def options_of(text) -> dict[str, Any]:
    """Options in a detector's repr, as Flood(alpha=0.01): read as literals, nothing is run.

    Examples
    --------
    >>> options_of("Flood(alpha=0.01, since=None)")
    {'alpha': 0.01, 'since': None}
    """
    import ast

    try:
        call = ast.parse(text, mode="eval").body
        return {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError, AttributeError):  # a detector of someone else's may say anything
        return {}
