"""A small watched site on disk, made by hand: scenes with texture, noise, clouds and one clearing that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from scipy.ndimage import gaussian_filter, shift

ORIGIN = (500000.0, 5400000.0)


@dataclass(frozen=True)
class Watched:
    """A site of `size` px: `n_history` scenes before `since`, `n_watched` after, `gap` days apart; a clearing from the
    `clearing`-th watched scene on, rows and columns `hole`."""

    folder: Path
    size: int = 48
    n_history: int = 18
    n_watched: int = 12
    gap: int = 10
    clearing: int = 4
    hole: tuple[int, int, int, int] = (12, 24, 20, 34)
    seed: int = 0
    register: bool = False
    moved_px: float = 0.0
    extra: str = ""

    @property
    def n(self):
        return self.n_history + self.n_watched

    @property
    def times(self):
        return np.datetime64("2022-01-03T10:00:00") + np.arange(self.n) * np.timedelta64(self.gap, "D")

    @property
    def since(self):
        return str(self.times[self.n_history] - np.timedelta64(1, "D"))[:10]

    @property
    def site(self):
        return self.folder / "site.toml"

    def write_site(self, text: str = "", output: str = "out", theme: str = "") -> Path:
        box = [ORIGIN[0], ORIGIN[1] - 10 * self.size, ORIGIN[0] + 10 * self.size, ORIGIN[1]]
        theme = theme or '[[detect]]\ndetector = "watch"\nindex = "ndvi"\norder = 0\nname = "clearing"\n'
        register = "register = false\n" if not self.register else ""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "scenes").mkdir(exist_ok=True)
        self.site.write_text(
            f'name = "small"\nscenes = "scenes"\noutput = "{output}"\n{register}'
            f'[grid]\ncrs = "EPSG:32633"\nresolution_m = 10\nbbox = {box}\n'
            f"[vectors]\nmin_area_m2 = 500\n{theme}"
            f'[monitor]\nsince = "{self.since}"\n{text}{self.extra}'
        )
        return self.site

    def ground(self):
        rng = np.random.default_rng(self.seed)
        texture = gaussian_filter(rng.normal(size=(self.size + 16, self.size + 16)), 1.5)
        return 0.30 + 0.05 * texture / texture.std()

    def bands(self, k: int) -> dict[str, np.ndarray]:
        """red and nir of scene k, NaN under cloud."""
        rng = np.random.default_rng([self.seed, k])
        nir = self.ground()
        red = np.full_like(nir, 0.05)
        if k >= self.n_history + self.clearing:
            r0, r1, c0, c1 = self.hole
            place = slice(r0 + 8, r1 + 8), slice(c0 + 8, c1 + 8)
            red[place], nir[place] = 0.15, 0.20
        if self.moved_px:
            move = rng.uniform(-self.moved_px, self.moved_px, 2)
            red, nir = shift(red, move, order=3), shift(nir, move, order=3)
        red, nir = (b[8:-8, 8:-8] + rng.normal(0, 0.004, (self.size, self.size)) for b in (red, nir))
        if k % 3 == 2:
            r, c = rng.integers(0, self.size - 8, 2)
            red[r : r + 10, c : c + 12] = np.nan
            nir[r : r + 10, c : c + 12] = np.nan
        return {"red": red.astype("f4"), "nir": nir.astype("f4")}

    def name(self, k: int) -> str:
        return f"scene_{str(self.times[k])[:10].replace('-', '')}"

    def write(self, k: int, *, name: str = "", processing: str = "", bands=None, cloud: bool = False) -> Path:
        """Write scene k; `processing` makes it another delivery with slightly other values."""
        values = bands or self.bands(k)
        if processing:
            values = {b: v + np.float32(0.0005 * float(processing)) for b, v in values.items()}
        if cloud:
            values = {b: np.full_like(v, np.nan) for b, v in values.items()}
        path = self.folder / "scenes" / f"{name or self.name(k)}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = {"datetime": f"{self.times[k]}Z", "sensor": "S2A"}
        if processing:
            tags["processing_baseline"] = processing
        write_tif(path, values, tags)
        return path

    def write_many(self, ks) -> None:
        for k in ks:
            self.write(k)

    def history(self):
        return range(self.n_history)

    def watched(self):
        return range(self.n_history, self.n)


def write_tif(path, bands, tags, *, crs="EPSG:32633", nodata=float("nan")) -> None:
    first = next(iter(bands.values()))
    options = {
        "driver": "GTiff", "height": first.shape[0], "width": first.shape[1], "count": len(bands), "dtype": first.dtype,
        "crs": crs, "transform": rasterio.Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1]), "nodata": nodata,
        "tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **options) as file:
        for k, (name, values) in enumerate(bands.items(), start=1):
            file.write(values, k)
            file.set_band_description(k, name)
        file.update_tags(**tags)
