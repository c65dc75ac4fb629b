"""Ships and fixed objects at sea, from the speckle's own statistics."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt, maximum_filter

from geoalign.chunked import neighbourhood, per_pixel, whole_image
from geoalign.detectors.patches import check_area
from geoalign.detectors.sar_input import check_share
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.cfar import (
    DARK_PX,
    DARK_REACH_PX,
    LAND_GROW_PX,
    LAND_PX,
    RING_PX,
    cells_of,
    floor_and_power,
    ground,
    looks_of,
    ratio_histogram,
    scene_histogram,
)
from geoalign.kernels.ships import AROUND_PX, LEVEL_PX, presence, targets
from geoalign.types.changes import CONFIRMED, ENDED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import SAR_BANDS, check_stack, pixel_size_m

SAMPLE = {"block": 1024, "most": 16}
"""Blocks from which a scene's floor and looks are taken: all of an image up to 4,096 px, a spread of a larger one."""
LOW_PFA = 1e-3
"""A target's outline takes in neighbours that clutter exceeds so often."""
LONGEST_M, LONGEST_PX = 600.0, 100
"""Length of the largest ship; in px where the grid has no size in metres."""
MOST_PX = 150
LOBES_M = 200.0
"""So far around a bright ship, what is much fainter is its side lobes; in coarse pixels it is a fainter ship."""
LEAST_AREA_M2, LEAST_CELLS = 300.0, 20
"""What `min_area_m2` means by default, with and without a size of pixels."""
LAND_BUFFER_M, LAND_BUFFER_PX = 250.0, 3
"""Default of `land_buffer_m` around land that is given, and around land that is derived."""
TOLERANCE_M, TOLERANCE_PX = 80.0, 4
"""Detections so near are of one fixed object."""
FIXED_DAYS, FIXED_SEEN = 60.0, 4
AMBIGUITY_M = (4300.0, 6000.0)
"""How far along the track azimuth ghosts lie, for Sentinel-1."""
EVIDENCE_PX = 3
SEEN, LAND, FEW = 1, 2, 3
"""Codes of a cell in a scene: judged, land, too little sea around it; 0 not observed."""


@dataclass(frozen=True)
class Ships:
    """Ships and fixed objects (platforms, turbines), each scene for itself and the fixed ones by their series.

    Every cell is held against the ring of sea around it (81 x 81 without the inner 21 x 21; bright cells censored). It
    passes where it exceeds alpha times their mean, with alpha exact for L-look speckle and N cells. Passing cells that
    hang together are a ship, unless they are smaller than `min_area_m2` or longer than 600 m. An object is fixed where
    at least half of the passes from its first to its last date, over at least 60 days, show something within 80 m.

    Parameters
    ----------
    pfa : float
        Chance that a cell of clutter passes, in one scene, shared by the bands.
    enl : float, optional
        Looks. None takes each band's `attrs["enl"]`, and estimates them from each scene where there is none.
    clutter : "gamma" or "k"
        "gamma": speckle; where the ring's own cells are clearly more uneven, its looks are lowered. "k": speckle of the
        known looks over a texture (K distribution) whose shape is the ring's own, for seas with swell at fine
        resolution; give `enl`.
    prior : float
        Share of cells with a ship at some date that `probability` assumes.
    land_buffer_m : float, optional
        Cells so near to land don't count. None: 250 m around land that is given, 3 cells around land that is derived.
    min_area_m2 : float, optional
        Smaller targets are left out. None: 300 m2, or 20 cells where the grid has no size in metres. 0 keeps single
        cells; then the share of cells flagged on clutter is `pfa` a scene.

    Notes
    -----
    Land is what the coordinate `land` (y, x) of the stack says (True = land). Without one it is derived from each
    scene: ground 3.5 times as bright as the darkest window near it and wide enough for a disc of 17 px. That serves
    for scenes of coasts; over towns and mountains give the mask. Whole numbers from 0 to 255 throughout are taken as an
    8-bit look of the amplitude, and squared. A lone band may have any name.

    `date` is that of the first detection at a pixel, or when the fixed object appeared; status 4 where something was
    and is gone (then `date_end` is the first scene without it), 3 where it is there in the last. `magnitude` is the
    largest contrast to the sea. Further layers: `fixed`, `n_seen` (scenes with a detection). A pixel seen once is
    observable. Land and its buffer are 255, `excluded`. Alignment makes no ship; `sigma_px` (time) widens the tolerance
    of fixed objects by 2 sigma. `ships.find` gives the single detections.

    References
    ----------
    Finn and Johnson (1968) for one look; F-distributed ratios of gamma means for many; Jakeman and Pusey (1976) for K.
    The rule for fixed objects is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.01 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, (2, 120, 120))
    >>> power[1, 60:64, 50:60] = 1.0
    >>> found = Ships(enl=4.4).detect(new_stack({"vv": power}, ["2024-01-01", "2024-01-13"]))
    >>> int((found.status == 3).sum()), str(found.date.values[61, 55])[:10]
    (40, '2024-01-13')
    """

    pfa: float = 1e-6
    enl: float | None = None
    clutter: str = "gamma"
    prior: float = 0.001
    land_buffer_m: float | None = None
    min_area_m2: float | None = None

    kind: ClassVar[str] = "ships"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_share("prior", self.prior)
        if isinstance(self.pfa, str) or not (np.isscalar(self.pfa) and 1e-12 <= self.pfa <= 0.1):
            raise ConfigError(f"pfa is {self.pfa!r}; it is a chance from 1e-12 to 0.1, as 1e-6.")
        if self.clutter not in ("gamma", "k"):
            raise ConfigError(f"clutter is {self.clutter!r}; it is 'gamma' or 'k'.")
        if self.enl is not None and not (np.isfinite(self.enl) and self.enl > 0):
            raise ConfigError(f"enl is {self.enl!r}; it is a number of looks above 0, or None to estimate it.")
        if self.land_buffer_m is not None and not self.land_buffer_m >= 0:
            raise ConfigError(f"land_buffer_m is {self.land_buffer_m!r}; it is a distance in m, or None.")
        if self.min_area_m2 is not None:
            check_area(self.min_area_m2)

    def detect(self, stack):
        """Changes (y, x): where something was seen at sea, since when; lazy where the stack is."""
        scenes = self.scenes(stack)
        time = stack.time.values
        found = per_pixel(
            _presence,
            scenes.code,
            scenes.ship,
            scenes.near,
            scenes.evidence,
            scenes.contrast,
            outputs={
                **dict.fromkeys(("n_obs", "n_seen"), "uint16"),
                **dict.fromkeys(("first", "before", "end"), "int32"),
                "fixed": bool,
                "probability": "float32",
                "magnitude": "float32",
                "why": "uint16",
            },
            days=(time - time[0]) / np.timedelta64(1, "D"),
            ln_prior=float(np.log(self.prior / (1 - self.prior))),
        )
        seen = found.n_obs > 0
        hit = found["first"] >= 0
        date = dates_at(found["first"], time)
        there = xr.where(found.end >= 0, ENDED, CONFIRMED)
        layers = {
            "status": xr.where(hit, there, xr.where(seen, NO_CHANGE, NOT_OBSERVABLE)),
            "date": date,
            "date_after": dates_at(found.before.where(hit, -1), time),
            "date_by": date,
            "magnitude": found.magnitude.where(hit),
            "direction": xr.where(hit, 1, 0),
            "probability": found.probability.where(seen),
            "n_obs": found.n_obs,
            "why": found.why,
            "date_end": dates_at(found.end.where(hit, -1), time),
            "fixed": found.fixed,
            "n_seen": found.n_seen,
        }
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units="dB",
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )

    def scenes(self, stack):
        """What each scene shows, Dataset (time, y, x), lazy where the stack is.

        ship : cells of accepted targets (bool); near : within the tolerance of one (bool)
        contrast : cell over its sea, dB (NaN where it can't be judged)
        evidence : ln of how much likelier a ship is than sea
        code : 1 judged, 2 land, 3 too little sea around it, 0 not observed
        """
        return xr.concat(list(self.one_by_one(stack)), "time")

    def one_by_one(self, stack):
        """The Datasets (y, x) that `scenes` puts together, made as they are asked for."""
        check_stack(stack)
        bands = bands_of(stack)
        size = pixel_size_m(stack)
        n_min = LEAST_CELLS if size is None else int(np.ceil(LEAST_AREA_M2 / size**2))
        if self.min_area_m2 is not None:
            n_min = LEAST_CELLS if size is None else int(np.ceil(self.min_area_m2 / size**2))
            n_min = 1 if self.min_area_m2 == 0 else n_min
        longest = LONGEST_PX if size is None else int(np.clip(np.ceil(LONGEST_M / size), 10, MOST_PX))
        near = TOLERANCE_PX if size is None else TOLERANCE_M / size
        wander = np.zeros(stack.sizes["time"])
        if "sigma_px" in stack.coords and stack.sigma_px.dims == ("time",):
            wander = np.nan_to_num(np.asarray(stack.sigma_px.values, float))
        for t in range(stack.sizes["time"]):
            yield self._scene(stack.isel(time=t), bands, size, max(1, n_min), longest, float(near + 2 * wander[t]))

    def _scene(self, scene, bands, size, n_min, longest, near):
        given = scene.land.reset_coords(drop=True).astype(bool) if "land" in scene.coords else None
        buffer_m = LAND_BUFFER_M if self.land_buffer_m is None and given is not None else self.land_buffer_m
        buffer_px = LAND_BUFFER_PX if buffer_m is None else buffer_m / (size or 1.0)
        plain = scene[bands].reset_coords(drop=True)
        judged = [self._band(plain[name], given, float(buffer_px), len(bands)) for name in bands]
        merged = judged[0]
        for other in judged[1:]:
            merged = _together(merged, other)
        return neighbourhood(
            _targets,
            *(merged[name] for name in ("hit", "weak", "bright", "ratio", "evidence", "code")),
            depth=LEVEL_PX + 2 + longest + 1 + AROUND_PX + EVIDENCE_PX + int(np.ceil(near)),
            outputs={"ship": bool, "near": bool, "contrast": "float32", "evidence": "float32", "code": "uint8"},
            n_min=n_min,
            max_px=longest,
            level_px=LEVEL_PX if size is None else int(np.clip(np.rint(LOBES_M / size), 1, LEVEL_PX)),
            tolerance=near,
        )

    def _band(self, band, given, buffer_px, n_band):
        """Hit, weak, bright, ratio, evidence and code of one band of one scene."""
        look = whole_image(scene_histogram, floor_and_power, band, size=2, **SAMPLE)
        floor, power = look.isel(stat=0), look.isel(stat=1)
        derive = given is None
        around = neighbourhood(
            partial(_ground, derive=derive),
            band,
            *([] if derive else [given]),
            depth=int(np.ceil(buffer_px)) + RING_PX + DARK_PX + DARK_REACH_PX + 2 * LAND_PX + LAND_GROW_PX + 2,
            outputs={"land": bool, "bright": bool, "sea": "float32", "ratio": "float32"},
            floor=floor,
            power=power,
            buffer_px=buffer_px,
        )
        looks = self.enl if self.enl is not None else band.attrs.get("enl")
        if looks is None:
            looks = whole_image(ratio_histogram, looks_of, around.ratio, **SAMPLE)
        elif not (np.isfinite(looks) and looks > 0):
            raise StackError(
                f"band {band.name!r} says enl = {looks!r}; it is a number of looks above 0. Correct attrs."
            )
        cells = neighbourhood(
            _cells,
            band,
            around.land,
            around.sea,
            depth=RING_PX,
            outputs={"hit": bool, "weak": bool, "ratio": "float32", "evidence": "float32", "code": "uint8"},
            floor=floor,
            power=power,
            looks=looks if isinstance(looks, xr.DataArray) else float(looks),
            pfa=float(self.pfa / n_band),
            low_pfa=float(max(self.pfa, LOW_PFA) / n_band),
            texture=self.clutter == "k",
        )
        return cells.assign(bright=around.bright)


def find(stack, *, ambiguity_m=AMBIGUITY_M, **options):
    """Every ship in every scene.

    Parameters
    ----------
    stack : Stack (time, y, x)
        SAR in linear power, or 8-bit looks; see `Ships`. One scene is enough. Lazy ones are read scene by scene.
    ambiguity_m : (least, most) or None
        Distance of azimuth ghosts along the columns, up to 16 degrees aside: what is 20 dB weaker than a target so far
        away is taken for its ghost and dropped. The default suits Sentinel-1 on a grid that points north; None, and
        grids without a size in metres, drop none.
    **options
        Fields of `Ships`.

    Returns
    -------
    GeoDataFrame, a row for each target, by time and from the top: geometry (point, centre of its brightness), `scene`,
    `time`, `peak` (largest value of a band), `snr_db` (largest contrast to the sea), `n_cells`, `area_m2`, `length_m`,
    `width_m`, `heading_deg` (axis from north, 0 to 180), `fixed`, `first_date` (of the fixed object, NaT else), and the
    box around its cells `xmin`, `ymin`, `xmax`, `ymax`, in the stack's coordinates. Sizes are NaN without a CRS in
    metres; boxes and points count pixels then (centres at whole numbers).

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.01 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, (1, 120, 120))
    >>> power[0, 60:64, 50:60] = 1.0
    >>> ships = find(new_stack({"vv": power}, ["2024-01-01"]), enl=4.4)
    >>> ships[["n_cells", "xmin", "ymin", "xmax", "ymax"]].values.tolist()
    [[40.0, 49.5, 59.5, 59.5, 63.5]]
    """
    from geoalign.detectors.ship_targets import frame_of, scene_targets

    unknown = [name for name in options if name not in {field.name for field in fields(Ships)}]
    if unknown:
        raise ConfigError(
            f"ships has no option {unknown[0]!r}; there are: ambiguity_m, {', '.join(f.name for f in fields(Ships))}."
        )
    check_stack(stack)
    shown = Ships(**options).scenes(stack)
    bands = bands_of(stack)
    tables = []
    for t in range(stack.sizes["time"]):
        brightest = xr.concat([stack[b].isel(time=t).reset_coords(drop=True) for b in bands], "band").max("band")
        layers = {name: shown[name].isel(time=t) for name in ("ship", "contrast")}
        tables.append(scene_targets(xr.Dataset(layers | {"peak": brightest})))
    size = pixel_size_m(stack)
    near = TOLERANCE_PX if size is None else TOLERANCE_M / size
    return frame_of(tables, stack, bands[0], near, ambiguity_m, fixed=(FIXED_DAYS, FIXED_SEEN))


def bands_of(stack):
    """The backscatter bands, or the only band there is; StackError otherwise."""
    bands = [name for name in stack.data_vars if name in SAR_BANDS]
    if not bands and len(stack.data_vars) == 1:
        bands = list(stack.data_vars)
    if not bands:
        raise StackError(
            f"no backscatter band is there (bands: {', '.join(map(str, stack.data_vars))}); expected one of "
            f"{', '.join(SAR_BANDS)} in linear power. Rename yours, as stack.rename(intensity='vv')."
        )
    return bands


def _ground(band, given=None, *, derive, floor, power, buffer_px):
    if not floor > 0:
        none = np.zeros(band.shape, bool)
        return none, none, np.full(band.shape, np.nan, np.float32), np.full(band.shape, np.nan, np.float32)
    return ground(band, None if derive else given, floor, power, buffer_px=buffer_px)


def _cells(band, land, mean, *, floor, power, looks, pfa, low_pfa, texture):
    seen = np.isfinite(band)
    if not floor > 0:
        none, nothing = np.zeros(band.shape, bool), np.full(band.shape, np.nan, np.float32)
        return none, none, nothing, nothing, np.where(seen, FEW, 0).astype(np.uint8)
    hit, weak, ratio, evidence = cells_of(
        band, land, mean, floor, power, looks, pfa=pfa, low_pfa=low_pfa, texture=texture
    )
    code = np.where(~seen, 0, np.where(land, LAND, np.where(np.isfinite(ratio), SEEN, FEW)))
    return hit, weak, ratio, evidence, code.astype(np.uint8)


def _together(one, other):
    """Two bands of a scene: what passes in either; land in either; the evidence of both where both were observed."""
    land = (one.code == LAND) | (other.code == LAND)
    known = (one.code == SEEN) | (other.code == SEEN)
    code = xr.where(land, LAND, xr.where(known, SEEN, np.maximum(one.code, other.code))).astype("uint8")
    return xr.Dataset(
        {
            **{name: one[name] | other[name] for name in ("hit", "weak", "bright")},
            "ratio": np.fmax(one.ratio, other.ratio),
            "evidence": one.evidence.fillna(0) + other.evidence.fillna(0),
            "code": code,
        }
    )


def _targets(hit, weak, bright, ratio, evidence, code, *, n_min, max_px, level_px, tolerance):
    water = code == SEEN
    ship = targets(ratio, hit & water, weak & water, bright, n_min=n_min, max_px=max_px, level_px=level_px) & water
    near = distance_transform_edt(~ship) <= tolerance if ship.any() else ship
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.where(water, 10 * np.log10(np.maximum(ratio, 1e-4)), np.nan)
    # a target's dim cells are as sure as its bright ones; what was refused as a target speaks for none
    best = maximum_filter(np.where(ship, np.nan_to_num(evidence, nan=-60.0), -60.0), 2 * EVIDENCE_PX + 1)
    evidence = np.where(ship, best, np.where(hit | weak, np.minimum(evidence, 0), evidence))
    return ship, near, contrast, np.where(water, evidence, np.nan), code


def _presence(code, ship, near, evidence, contrast, *, days, ln_prior):
    seen = code == SEEN
    n_obs, n_seen, first, before, end, fixed, probability = presence(
        ship, seen, near, days, evidence, ln_prior, FIXED_DAYS, FIXED_SEEN
    )
    size = np.where(ship & seen, contrast, -np.inf).max(axis=1, initial=-np.inf)
    lacks = n_obs == 0
    why = np.where(lacks & (code == LAND).any(axis=1), WHY["excluded"], 0)
    why = np.where(lacks & (code == FEW).any(axis=1), why | WHY["too_few"], why)
    why = np.where(lacks & (why == 0), WHY["no_data"], why)
    size = np.where(np.isfinite(size), size, np.nan)
    return n_obs, n_seen, first, before, end, fixed, probability, size.astype(np.float32), why.astype(np.uint16)
