"""Truth: what was planted, and its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine as Transform
from odc.geo.geobox import GeoBox

from geoalign.errors import StateError
from geoalign.simulation.recipe import EVENT_KINDS
from geoalign.simulation.render import event_pixels
from geoalign.types.alignment import _warp_from_plain, _warp_to_plain
from geoalign.types.stack import grid_coords
from geoalign.types.warp import Chain, Warp


@dataclass(frozen=True, eq=False)
class Truth:
    """What was planted.

    warps : dict scene -> Warp: where the scene, opened on the project grid, shows the ground of a project pixel
    warp_kinds : dict scene -> "none", "shift", "affine" or "field"
    dates : Dataset (y, x), datetime64 of flood, clearing, building: the day from which it shows, NaT where nothing
    flood_end : DataArray (y, x), datetime64: the day from which the flood is gone
    events : GeoDataFrame, a row an event: kind, date, end, area_ha, n_pixels, geometry (the changed pixels)
    geobox : the project grid, in the frame of the ground
    references : dict sensor -> the scene without misregistration
    """

    warps: dict[str, Warp]
    warp_kinds: dict[str, str]
    dates: xr.Dataset
    flood_end: xr.DataArray
    events: object
    geobox: GeoBox
    references: dict[str, str]

    @classmethod
    def load(cls, folder) -> Truth:
        """Read what `Simulation.write` wrote, from the simulation's folder or its `truth` folder.

        Raises
        ------
        StateError : no truth there, or one that can't be read
        """
        import geopandas as gpd
        import rasterio

        folder = Path(folder)
        folder = folder / "truth" if (folder / "truth" / "truth.json").exists() else folder
        try:
            document = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise StateError(
                f"{folder} holds no truth that can be read: {err}. Give a folder `simulate` wrote."
            ) from err
        if document.get("format") != "geoalign.truth":
            raise StateError(f"{folder / 'truth.json'} is not a truth written by geoalign.")
        geobox = GeoBox(document["shape"], Transform(*document["geobox"]["transform"]), document["geobox"]["crs"])
        coords = grid_coords(geobox, geobox.shape)
        layers = {}
        for name in (*EVENT_KINDS, "flood_end"):
            with rasterio.open(folder / f"{name}.tif") as file:
                layers[name] = (("y", "x"), _stamps(file.read(1)))
        end = layers.pop("flood_end")[1]
        events = gpd.read_file(folder / "events.geojson").to_crs(document["geobox"]["crs"])
        events["date"], events["end"] = pd.to_datetime(events["date"]), pd.to_datetime(events["end"])
        return cls(
            {scene: _warp_from_plain(plain) for scene, plain in document["warps"].items()},
            document["warp_kinds"],
            xr.Dataset(layers, coords=coords),
            xr.DataArray(end, dims=("y", "x"), coords=coords, name="flood_end"),
            events,
            geobox,
            document["references"],
        )

    def relative(self, reference: str, scene: str) -> Warp:
        """Where `scene` shows what `reference` shows at a pixel: what an alignment on `reference` should find."""
        return Chain((self.warps[reference].inverse(), self.warps[scene]))

    def on(self, reference: str) -> xr.Dataset:
        """`dates` as they lie in the frame of the scene `reference` (nearest pixel)."""
        n_row, n_col = self.geobox.shape
        rows, cols = self.warps[reference].inverse().pull(*np.mgrid[0:n_row, 0:n_col].astype(float))
        i, j = np.rint(rows).astype(int), np.rint(cols).astype(int)
        within = (i >= 0) & (i < n_row) & (j >= 0) & (j < n_col)
        i, j = np.clip(i, 0, n_row - 1), np.clip(j, 0, n_col - 1)
        none = np.datetime64("NaT", "ns")
        return self.dates.map(lambda layer: layer.copy(data=np.where(within, layer.values[i, j], none)))


def day_table(recipe, kind, which="start"):
    """Days since 1970-01-01 by event number, 0 where the event is of another kind."""
    zero = (recipe.start - pd.Timestamp(0)).days
    days = [int(zero + (getattr(e, which) or 0)) if e.kind == kind else 0 for e in recipe.events]
    return np.array([0, *days], np.int32)


def truth_of(recipe) -> Truth:
    """The truth of a recipe, without any file."""
    labels = event_pixels(recipe)
    coords = grid_coords(recipe.geobox, labels.shape)
    dates = {kind: (("y", "x"), _stamps(day_table(recipe, kind)[labels])) for kind in EVENT_KINDS}
    end = _stamps(day_table(recipe, "flood", "end")[labels])
    return Truth(
        {s.name: s.warp for s in recipe.scenes},
        {s.name: s.warp_kind for s in recipe.scenes},
        xr.Dataset(dates, coords=coords),
        xr.DataArray(end, dims=("y", "x"), coords=coords, name="flood_end"),
        event_frame(recipe, labels),
        recipe.geobox,
        dict(recipe.references),
    )


def truth_document(recipe) -> dict:
    """What `truth.json` holds: grid, references, warps and the events with their outlines as planned."""
    return {
        "format": "geoalign.truth",
        "version": 1,
        "shape": list(recipe.geobox.shape),
        "geobox": {"crs": str(recipe.geobox.crs), "transform": list(recipe.geobox.affine[:6])},
        "seed": recipe.seed,
        "looks": recipe.looks,
        "references": dict(recipe.references),
        "warp_kinds": {s.name: s.warp_kind for s in recipe.scenes},
        "warps": {s.name: _warp_to_plain(s.warp) for s in recipe.scenes},
        "events": [
            {
                "kind": event.kind,
                "date": f"{recipe.start + pd.Timedelta(days=event.start):%Y-%m-%d}",
                "end": None if event.end is None else f"{recipe.start + pd.Timedelta(days=event.end):%Y-%m-%d}",
                "outline_px": event.outline.round(3).tolist(),
            }
            for event in recipe.events
        ],
    }


def _stamps(days):
    """Days since 1970-01-01, 0 = none, as datetime64[ns] with NaT."""
    return np.where(days > 0, days.astype("datetime64[D]").astype("datetime64[ns]"), np.datetime64("NaT", "ns"))


def event_frame(recipe, labels):
    """The events as polygons of the pixels they hold, from `event_pixels`: GeoDataFrame in the project CRS."""
    import geopandas as gpd
    from rasterio.features import shapes
    from shapely.geometry import shape
    from shapely.ops import unary_union

    parts = {}
    for geometry, number in shapes(labels, mask=labels > 0, transform=recipe.geobox.affine, connectivity=8):
        parts.setdefault(int(number), []).append(shape(geometry))
    rows = []
    for number in sorted(parts):
        event = recipe.events[number - 1]
        days = [None if d is None else recipe.start + pd.Timedelta(days=d) for d in (event.start, event.end)]
        outline = unary_union(parts[number])
        rows.append(
            {
                "kind": event.kind,
                "date": days[0],
                "end": days[1],
                "area_ha": outline.area / 1e4,
                "n_pixels": int((labels == number).sum()),
                "geometry": outline,
            }
        )
    columns = ["kind", "date", "end", "area_ha", "n_pixels", "geometry"]
    frame = gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=str(recipe.geobox.crs))
    frame["date"], frame["end"] = pd.to_datetime(frame["date"]), pd.to_datetime(frame["end"])
    return frame
