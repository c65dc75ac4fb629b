"""A scene: the bands that one acquisition has, in whatever files they lie, each ready to be read window by window."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import dask.array as da
import numpy as np
from odc.geo.geobox import GeoBox

from geoalign.errors import GeoalignError, StackError
from geoalign.io import products
from geoalign.io.dates import Facts, describe
from geoalign.io.geotiff import Header, read_header, read_window, sample
from geoalign.types.grid import GridMap
from geoalign.types.stack import SAR_BANDS

log = logging.getLogger("geoalign")

_READ = 512
"""Side (px) of what is read at once, rounded to the file's blocks."""


@dataclass(frozen=True)
class MaskLayer:
    """A layer of codes and the rule for them, on its own grid."""

    path: str
    band: int
    geobox: GeoBox
    stamp: tuple[int, int]
    rule: products.MaskRule
    step: int = 1  # of the file's pixels, where `geobox` is that of an overview

    def bad(self, geobox, rows, cols, read=read_window):
        """True where not observed, on rows and cols (start, stop) of another grid: the nearest code, True outside.

        read : what reads the codes, as `geotiff.read_window`
        """
        if geobox == self.geobox:
            return self.rule.bad(self._codes(rows, cols, read))
        r, c = np.meshgrid(np.arange(*rows, dtype=float), np.arange(*cols, dtype=float), indexing="ij")
        r, c = (np.floor(v + 0.5).astype(np.int64) for v in GridMap(geobox, self.geobox).pull(r, c))
        height, width = self.geobox.shape
        inside = (r >= 0) & (c >= 0) & (r < height) & (c < width)
        out = np.ones(r.shape, bool)
        if inside.any():
            r0, c0 = int(r[inside].min()), int(c[inside].min())
            ends = int(r[inside].max()) + 1, int(c[inside].max()) + 1
            codes = self._codes((r0, ends[0]), (c0, ends[1]), read)
            out[inside] = self.rule.bad(codes)[r[inside] - r0, c[inside] - c0]
        return out

    def _codes(self, rows, cols, read):
        rows, cols = ((span[0] * self.step, span[1] * self.step) for span in (rows, cols))
        return read(self.path, self.band, rows, cols, stamp=self.stamp, step=self.step)


@dataclass(frozen=True)
class FileBand:
    """One band of one file as an array of float32: calibrated, NaN where nodata or masked. Read when it is sliced."""

    path: str
    band: int
    geobox: GeoBox
    stamp: tuple[int, int]
    block: tuple[int, int]
    calibration: products.Calibration
    masks: tuple[MaskLayer, ...] = ()

    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def shape(self):
        return tuple(self.geobox.shape)

    def __getitem__(self, index):
        rows, cols = ((s.start or 0, n if s.stop is None else s.stop) for s, n in zip(index, self.shape))
        values = self.calibration.apply(read_window(self.path, self.band, rows, cols, stamp=self.stamp))
        for layer in self.masks:
            values[layer.bad(self.geobox, rows, cols)] = np.nan
        return values

    def lazy(self):
        """The band as a dask array in chunks of whole blocks of the file, with the same name for the same file."""
        width = self.shape[1]
        tall, wide = (min(b, n) for b, n in zip(self.block, self.shape))
        if wide == width and width > _READ:  # strips: a narrow window would decode each of them again
            chunk = (max(tall, 4 * _READ * _READ // width // tall * tall), width)
        else:
            chunk = (tall * max(1, _READ // tall), wide * max(1, _READ // wide))
        name = f"geoalign-band-{da.core.tokenize(*self._key())}"
        return da.from_array(
            self, chunks=chunk, name=name, lock=False, asarray=False, meta=np.empty((0, 0), np.float32)
        )

    def _key(self):
        layers = [(m.path, m.band, m.stamp, repr(m.rule)) for m in self.masks]
        return (str(Path(self.path)), self.band, self.stamp, repr(self.calibration), layers)

    def __dask_tokenize__(self):
        return ("geoalign.FileBand", *self._key())


@dataclass(frozen=True)
class ArrayBand:
    """A band that is an array already (NetCDF, Zarr)."""

    data: object
    geobox: GeoBox

    def lazy(self):
        return self.data


@dataclass(frozen=True)
class Scene:
    """One acquisition. `bands`: name -> sources on their own grids; several of one band are tiles of a mosaic."""

    facts: Facts
    profile: products.Profile
    bands: dict[str, tuple]
    paths: tuple[str, ...]
    applied: dict = field(default_factory=dict)

    @property
    def kind(self):
        return "sar" if any(name in SAR_BANDS for name in self.bands) else "optical"

    @property
    def geobox(self):
        """The finest of its bands' grids (of its first tile)."""
        return min((sources[0].geobox for sources in self.bands.values()), key=lambda box: abs(box.resolution.x))

    def geoboxes(self):
        return {source.geobox for sources in self.bands.values() for source in sources}


@dataclass(frozen=True)
class Layer:
    """One band of one file, before it is known what to do with it. `name` is ours; "" is left out."""

    header: Header
    band: int
    name: str
    facts: Facts
    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple = ()


class Skipped:
    """What was refused while the rest goes on; raises at once where strict."""

    def __init__(self, strict: bool):
        self.strict = strict
        self.records: list[dict] = []

    def add(self, path, reason, scene=""):
        text = str(reason)
        if self.strict:
            raise reason if isinstance(reason, GeoalignError) else StackError(text)
        if str(path) in text:
            log.warning("left out: %s", text)
        else:
            log.warning("left out: %s: %s", scene or path, text)
        self.records.append({"scene": scene, "path": str(path), "reason": text})

    def reasons(self, limit: int = 20):
        lines = [
            f"  {r['reason']}" if r["path"] in r["reason"] else f"  {r['scene'] or r['path']}: {r['reason']}"
            for r in self.records[:limit]
        ]
        if len(self.records) > limit:
            lines.append(f"  ... and {len(self.records) - limit} more")
        return "\n".join(lines)


def scenes_of_files(paths, product, skipped: Skipped) -> list[Scene]:
    """Scenes of GeoTIFF, COG or JPEG 2000 files: files that share a scene id are bands of one scene.

    A file that is refused takes its scene with it: without its mask or one of its bands it would be something else.
    """
    groups: dict[str, list[Layer]] = {}
    refused: dict[str, str] = {}
    for path in paths:
        try:
            header = read_header(path)
            facts = describe(path, header.tags)
            layers, group = file_layers(header, facts, product), groups.setdefault(facts.scene, [])
            twin = _twin(layers, group)
            if twin is None:
                group.extend(layers)
            else:
                skipped.add(path, f"scene {facts.scene} is in {twin} already, which is used; remove one", facts.scene)
        except StackError as err:
            scene = scene_by_name(path)
            skipped.add(path, err, scene)
            refused[scene] = Path(path).name
    out = []
    for scene, layers in groups.items():
        if scene in refused:
            skipped.add(layers[0].header.shown, f"its file {refused[scene]} was refused", scene)
            continue
        try:
            out.append(make_scene(layers, product))
        except StackError as err:
            skipped.add(layers[0].header.shown, err, scene)
    return out


def _twin(layers, group):
    """The file that holds all these bands of the scene already, on as fine a grid; None where there is none."""
    have = {(layer.name, layer.header.geobox.resolution): layer.header.shown for layer in group if layer.name}
    keys = [(layer.name, layer.header.geobox.resolution) for layer in layers if layer.name]
    return have[keys[0]] if keys and all(key in have for key in keys) else None


def scene_by_name(path) -> str:
    """The scene that a file belongs to by its name alone; "" where the name does not say."""
    try:
        return describe(path).scene
    except StackError:
        return ""


def file_layers(header: Header, facts: Facts, product) -> list[Layer]:
    """The layers of one file with our band names, from its band descriptions or its own name."""
    try:
        profile = products.profile_of(product, facts.product)
    except StackError as err:
        raise StackError(f"{header.shown}: {err}") from err
    if profile.name in ("sentinel1-grd", "sentinel1-slc") and np.dtype(header.dtypes[0]).kind in "iu":
        raise StackError(
            f"{header.shown} is a Sentinel-1 {profile.name[-3:].upper()} with {header.dtypes[0]} counts: uncalibrated, "
            "not terrain-corrected. Give radiometrically terrain-corrected (RTC) power instead."
        )
    layers = []
    for k in range(header.count):
        text = header.descriptions[k] or (facts.band if header.count == 1 else "")
        if header.count == 1 and facts.band and not products.band_name(text, profile.name, facts.sensor):
            text = facts.band
        name = products.band_name(text, profile.name, facts.sensor) if text else ""
        if not text and profile.name == "generic":
            name = f"band{k + 1}"
        missing = (header.nodata[k],) if header.nodata[k] is not None else ()
        layers.append(Layer(header, k + 1, name, facts, header.scales[k], header.offsets[k], missing))
    if header.count > 1 and not any(layer.name for layer in layers):
        raise StackError(
            f"{header.shown} has {header.count} bands and none has a name that {profile.name} knows "
            f"({', '.join(d or '?' for d in header.descriptions[:8])}). Set the band descriptions (blue, red, vv, ...)."
        )
    return layers


def make_scene(layers: list[Layer], product) -> Scene:
    """One scene of all its layers: calibrated, masked and checked against some of its values."""
    first = layers[0].facts
    facts = _together(layers)
    profile = products.profile_of(product, facts.product)
    named = _finest([layer for layer in layers if layer.name])
    rules = {rule.layer: rule for rule in (products.SCL, products.QA_PIXEL, products.FMASK)}
    if profile.name != "generic":
        rules = {profile.mask.layer: profile.mask} if profile.mask else {}
    codes = {name: layer for name, layer in named.items() if name in rules}
    bands = {name: layer for name, layer in named.items() if name not in rules and _is_band(name, profile)}
    if not bands:
        seen = ", ".join(sorted({layer.facts.band or layer.name or "?" for layer in layers}))
        raise StackError(f"scene {first.scene} has no band that {profile.name} knows (found: {seen}).")
    if profile.name == "generic" and any(name in SAR_BANDS for name in bands):
        profile = replace(profile, kind="sar")
    notes: list[str] = []
    try:
        calibrated = {}
        for name, layer in bands.items():
            calibrated[name], found = products.calibration(
                profile,
                replace(facts, units=facts.units or layer.header.units[layer.band - 1]),
                dtype=layer.header.dtypes[layer.band - 1],
                scale=layer.scale,
                offset=layer.offset,
                nodata=layer.nodata,
            )
            notes += [n for n in found if n not in notes]
        calibrated = _checked(bands, calibrated, profile, facts, notes)
    except StackError as err:
        shown = layers[0].header.shown
        where = "" if shown in str(err) else f"{shown}: "
        raise StackError(f"{where}{err}") from err
    if profile.mask is not None and profile.name != "generic" and not codes:
        doubt = products.DOUBT if profile.kind == "optical" else ""
        notes.append(f"{doubt}no {profile.mask.layer} layer was found: only nodata is masked")
    masks = tuple(MaskLayer(c.header.path, c.band, c.header.geobox, c.header.stamp, rules[n]) for n, c in codes.items())
    sources = {
        name: (
            FileBand(x.header.path, x.band, x.header.geobox, x.header.stamp, x.header.block, calibrated[name], masks),
        )
        for name, x in bands.items()
    }
    applied = record(facts, profile, calibrated, [m.rule.meaning for m in masks], notes)
    paths = tuple(dict.fromkeys(layer.header.shown for layer in layers))
    return Scene(facts, profile, sources, paths, applied)


def record(facts, profile, calibrated, masks, notes) -> dict:
    """What was applied to a scene, as it goes into `stack.attrs["applied"]`."""

    def one(key):
        values = {name: getattr(c, key) for name, c in calibrated.items()}
        distinct = list(dict.fromkeys(values.values()))
        return distinct[0] if len(distinct) == 1 else values

    nodata = one("nodata")
    return {
        "scene": facts.scene,
        "product": profile.name,
        "scale": one("scale"),
        "offset": one("offset"),
        "nodata": list(nodata) if isinstance(nodata, tuple) else nodata,
        "units": one("units"),
        "mask": "; ".join(masks),
        "source": facts.source,
        "notes": list(notes),
    }


def _together(layers):
    facts = [layer.facts for layer in layers]
    times = {f.time for f in facts}
    if len(times) > 1:
        raise StackError(
            f"the files of scene {facts[0].scene} have different times ({', '.join(sorted(str(t) for t in times))})."
        )
    merged = facts[0]
    for key in ("sensor", "product", "tile", "baseline", "units"):
        values = {getattr(f, key) for f in facts} - {""}
        if len(values) > 1:
            raise StackError(f"the files of scene {merged.scene} disagree on {key}: {', '.join(sorted(values))}.")
        merged = replace(merged, **{key: next(iter(values), "")})
    return merged


def _finest(layers):
    """One layer a name: of several resolutions the finest; two of one resolution are ambiguous."""
    out: dict[str, Layer] = {}
    for layer in layers:
        other = out.get(layer.name)
        if other is None or abs(layer.header.geobox.resolution.x) < abs(other.header.geobox.resolution.x):
            out[layer.name] = layer
        elif layer.header.geobox.resolution == other.header.geobox.resolution:
            raise StackError(
                f"scene {layer.facts.scene} has band {layer.name} twice: {other.header.shown} (band {other.band}) and "
                f"{layer.header.shown} (band {layer.band}). Remove one, or give the scenes different names."
            )
    return out


def _is_band(name, profile):
    if profile.kind == "sar":
        return name in SAR_BANDS
    return profile.kind == "any" or name in products.OPTICAL_BANDS or name == "nir_broad"


def _checked(bands, calibrated, profile, facts, notes):
    preferred = ("vv", "vh", "hh", "hv", "blue", "red", "nir", "swir1")
    chosen = [n for n in preferred if n in bands] or list(bands)[:2]
    taken_off = False
    for name in chosen:
        layer = bands[name]
        values = sample(layer.header.path, layer.band, layer.header)
        new, found = products.check_values(values, band=name, profile=profile, facts=facts, calibrated=calibrated[name])
        taken_off |= new != calibrated[name]
        notes += [n for n in found if n not in notes]
    return {n: replace(c, offset=0.0) for n, c in calibrated.items()} if taken_off else calibrated


def as_json(records) -> str:
    """Records as they go into a Stack's attrs (NetCDF and Zarr take text, not lists of dicts)."""
    return json.dumps(records, default=str)
