"""Zarr and NetCDF in; a Stack out as Zarr, written chunk by chunk."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import dask.array as da
import numpy as np
from odc.geo.geobox import GeoBox

from geoalign.errors import ConfigError, StackError
from geoalign.io import products
from geoalign.io.dates import Facts, describe, safe_name, sensor_name
from geoalign.io.scenes import ArrayBand, Scene, record
from geoalign.types.stack import SAR_BANDS, check_stack, utc_naive

log = logging.getLogger("geoalign")

_CODECS = {
    "zlib", "gzip", "blosc", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset", "quantize",
    "bitround", "packbits", "astype", "crc32", "crc32c", "adler32", "fletcher32", "vlen-utf8", "bytes", "transpose",
    "sharding_indexed",
}  # fmt: skip
"""Codecs that only turn bytes into bytes. Anything else (pickle above all) can run code, and is refused."""

_MAX_CHUNK_BYTES = 2**30
_SIDE = 1024
_NAMES = {
    "latitude": "y",
    "lat": "y",
    "northing": "y",
    "longitude": "x",
    "lon": "x",
    "easting": "x",
    "t": "time",
    "date": "time",
}


def scenes_of_dataset(path, product) -> list[Scene]:
    """The scenes of a NetCDF file or a Zarr store: one for each time, calibrated and masked like files are.

    Variables with (time, y, x) are bands, whatever their order of dimensions; a variable (y, x) counts where there is
    no time dimension, and its time then comes from the name or the attributes.

    Raises
    ------
    StackError
        No CRS, no regular grid, no time, a codec that could run code, values that are not what they are taken for.
    """
    path = Path(path)
    try:
        return _scenes_of(path, product)
    except OSError as err:
        raise StackError(f"{path} can't be read: {err.strerror or err}. Check its permissions and its disk.") from err


def _scenes_of(path, product):
    # twice: lazily for the bands, and without dask for coordinates and samples, so that nothing is scheduled here
    eager = _opened(path, None)
    lazy = _guarded(path, _opened(path, _chunks(eager)), eager)
    try:
        return _scenes(path, lazy, eager, product)
    except StackError as err:
        raise StackError(f"{path}: {err}") from err


_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError)
"""What HDF5, Zarr and their codecs raise at damaged chunks."""


class _Stored:
    """A variable of a file as an array; what can't be read names the file and the variable."""

    def __init__(self, path, variable):
        self.path, self.variable = path, variable
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim

    def __getitem__(self, index):
        try:
            return np.asarray(self.variable[index].values)
        except _UNREADABLE as err:
            raise StackError(
                f"{self.path} can't be read in variable {self.variable.name}: the file is damaged ({err}). Fetch or "
                "write it again, or take the scene out."
            ) from err


def _guarded(path, lazy, eager):
    """The lazy dataset, its variables read through `_Stored`."""
    own = {
        name: v.copy(
            data=da.from_array(
                _Stored(path, eager[name]),
                chunks=v.chunks,
                name=f"geoalign-{v.data.name}",
                asarray=False,
                meta=np.empty((0,) * v.ndim, v.dtype),
            )
        )
        for name, v in lazy.data_vars.items()
        if v.chunks
    }
    return lazy.assign(own)


def _opened(path, chunks):
    import xarray as xr

    if path.is_dir():
        check_zarr(path)
        options = {"engine": "zarr"}
    else:
        _check_netcdf(path)
        options = {"engine": "netcdf4"}
    try:
        return xr.open_dataset(path, chunks=chunks, mask_and_scale=False, decode_coords="all", **options)
    except (OSError, ValueError, KeyError, RuntimeError) as err:
        raise StackError(f"{path} can't be opened as {options['engine']}: {err}.") from err


def _chunks(data):
    """Chunks to read in: whole chunks of the file, one time where it has none, and about 16 MB each."""
    cubes = [v for v in data.data_vars.values() if v.ndim >= 2]
    stored = dict(zip(cubes[0].dims, cubes[0].encoding.get("chunksizes") or ())) if cubes else {}
    if not stored and cubes:
        stored = dict(cubes[0].encoding.get("preferred_chunks") or {})
    space = [d for d in (cubes[0].dims if cubes else ()) if _NAMES.get(d, d) in ("y", "x")]
    out = {d: int(stored.get(d, 1)) for d in (cubes[0].dims if cubes else ()) if d not in space}
    side = max(64, int((2**22 / max(1, np.prod(list(out.values()) or [1]))) ** 0.5))
    for d in space:
        size = int(stored.get(d, 1))
        out[d] = size * max(1, min(side, _SIDE) // size)
    return out


def _check_netcdf(path):
    with open(path, "rb") as stream:
        start = stream.read(8)
    if not start:
        raise StackError(f"{path} is empty (0 bytes). Fetch it again.")
    if not (start.startswith(b"CDF") or start == b"\x89HDF\r\n\x1a\n"):
        raise StackError(f"{path} is neither a raster nor NetCDF (it begins with {start!r}).")


def check_zarr(path) -> None:
    """StackError where a store uses codecs that could run code, object arrays, or chunks of more than 1 GiB."""
    for place in sorted(Path(path).rglob("*")):
        if place.name not in (".zarray", "zarr.json", ".zmetadata"):
            continue
        try:
            document = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise StackError(f"{place} can't be read as JSON: {err}. The store is damaged.") from err
        arrays = [document]
        if place.name == ".zmetadata":
            arrays = [v for k, v in document.get("metadata", {}).items() if k.endswith(".zarray")]
        elif isinstance(document.get("consolidated_metadata"), dict):
            arrays += list(document["consolidated_metadata"].get("metadata", {}).values())
        for array in arrays:
            _check_array(place, array)


def _check_array(place, array):
    names = list(_codec_names(array))
    bad = [n for n in names if n.removeprefix("numcodecs.").lower() not in _CODECS]
    kind = array.get("dtype", array.get("data_type"))
    if (
        isinstance(kind, str)
        and kind.startswith("|O")
        and [n.lower() for n in names if n == "vlen-utf8"] != ["vlen-utf8"]
    ):
        bad.append("object dtype")
    if bad:
        raise StackError(f"{place} is refused: {', '.join(map(str, bad))} could run code when it is read.")
    chunk = array.get("chunks") or (array.get("chunk_grid") or {}).get("configuration", {}).get("chunk_shape") or []
    size = float(np.prod([float(n) for n in chunk])) if chunk else 0.0
    if size * 8 > _MAX_CHUNK_BYTES or size < 0:
        raise StackError(
            f"{place} has chunks of {size:.3g} values; at most {_MAX_CHUNK_BYTES // 8:.3g} are read at once."
        )


def _codec_names(array):
    for codec in [*(array.get("filters") or []), array.get("compressor"), *(array.get("codecs") or [])]:
        if not isinstance(codec, dict):
            continue
        yield str(codec.get("id", codec.get("name", "?")))
        inner = codec.get("configuration") or {}
        for nested in [*(inner.get("codecs") or []), *(inner.get("index_codecs") or [])]:
            yield str(nested.get("id", nested.get("name", "?")))


def _scenes(path, data, eager, product):
    data, eager = (_our_dims(d) for d in (data, eager))
    attrs = {str(k).lower(): v for k, v in data.attrs.items()}
    profile = products.profile_of(product, str(attrs.get("product", "")))
    ours = "geoalign_stack" in attrs
    bands, codes = _variables(data, profile)
    if profile.name == "generic" and any(name in SAR_BANDS for name in bands):
        import dataclasses

        profile = dataclasses.replace(profile, kind="sar")
    box = _geobox(eager)
    times, names = _times(path, eager, attrs)
    per_time = _along(eager, times.size)
    facts = [
        Facts(
            scene=names[k],
            time=times[k],
            source="time coordinate",
            units=_units(attrs),
            **per_time(k),
            **_baseline(attrs),
        )
        for k in range(times.size)
    ]
    calibrated, values, notes = {}, {}, []
    for name, variable in bands.items():
        calibrated[name], found = _calibration(variable, eager, name, profile, facts[0], ours)
        notes += [n for n in found if n not in notes]
        values[name] = da.map_blocks(_calibrate, variable.data, calibrated[name], dtype=np.float32)
    rules = {rule.layer: rule for rule in (products.SCL, products.QA_PIXEL, products.FMASK)}
    if profile.name not in ("generic",) and profile.mask is not None:
        rules = {profile.mask.layer: profile.mask}
    used = {name: variable for name, variable in codes.items() if name in rules}
    for layer, variable in used.items():
        values = {
            n: da.map_blocks(_masked, v, variable.data.rechunk(v.chunks), rules[layer], dtype=np.float32)
            for n, v in values.items()
        }
    if profile.mask is not None and profile.name != "generic" and not used and not ours:
        doubt = products.DOUBT if profile.kind == "optical" else ""
        notes.append(f"{doubt}no {profile.mask.layer} layer was found: only nodata is masked")
    meanings = [rules[layer].meaning for layer in used]
    told = json.loads(attrs.get("applied", "null")) if ours else None
    return [
        Scene(
            facts[k],
            profile,
            {name: (ArrayBand(v[k], box),) for name, v in values.items()},
            (str(path),),
            told[k] if told and len(told) == times.size else record(facts[k], profile, calibrated, meanings, notes),
        )
        for k in range(times.size)
    ]


def _our_dims(data):
    return data.rename({old: new for old, new in _NAMES.items() if old in data.dims and new not in data.dims})


def _variables(data, profile):
    bands, codes = {}, {}
    for name, variable in data.data_vars.items():
        if not {"y", "x"} <= set(variable.dims) or not set(variable.dims) <= {"time", "y", "x"}:
            continue
        if np.dtype(variable.dtype).kind not in "iufb":
            continue
        ours = products.band_name(str(name), profile.name, str(data.attrs.get("sensor", "")))
        variable = (variable if "time" in variable.dims else variable.expand_dims("time")).transpose("time", "y", "x")
        if ours in ("scl", "qa_pixel", "fmask") or (profile.mask is not None and ours == profile.mask.layer):
            codes[ours] = variable
        elif ours and not _is_flag(variable):
            bands[ours] = variable
    if not bands:
        raise StackError(
            f"no variable with dimensions (time, y, x) is a band (there are: {', '.join(map(str, data.data_vars))})."
        )
    return bands, codes


def _is_flag(variable):
    return "flag_values" in variable.attrs or "flag_masks" in variable.attrs or variable.dtype.kind == "b"


def _geobox(data):
    import odc.geo.xr  # noqa: F401  registers the accessor

    crs = data.odc.crs
    if crs is None:
        raise StackError(
            "it has no CRS (no grid_mapping, spatial_ref or crs), and none is guessed. Write one: ds.odc.assign_crs()"
        )
    if "x" not in data.coords or "y" not in data.coords:
        raise StackError("it has no x and y coordinates, so its pixels have no place.")
    steps = {}
    for dim in ("y", "x"):
        values = data[dim].values.astype(float)
        step = np.diff(values)
        if values.size < 2 or not np.allclose(step, step[0], rtol=1e-3):
            raise StackError(f"its {dim} coordinate is not regular ({values[:4]} ...); a Stack needs an even grid.")
        steps[dim] = (values[0], (values[-1] - values[0]) / (values.size - 1))
    from affine import Affine as Transform

    (y0, dy), (x0, dx) = steps["y"], steps["x"]
    return GeoBox((data.sizes["y"], data.sizes["x"]), Transform(dx, 0, x0 - dx / 2, 0, dy, y0 - dy / 2), crs)


def _times(path, data, attrs):
    if "time" in data.coords:
        values = np.atleast_1d(data["time"].values)
        if values.dtype.kind != "M":
            raise StackError(f"its time coordinate is {values.dtype}, not dates of the standard calendar (units?).")
        stamps = utc_naive(values)
    else:
        stamps = np.array([describe(path, {k: str(v) for k, v in attrs.items()}).time])
    if "scene" in data and data["scene"].dims == ("time",):
        names = [safe_name(v) for v in data["scene"].values.astype(str)]
    elif stamps.size == 1:
        names = [safe_name(path.stem)]
    else:
        names = [
            f"{safe_name(path.stem)}_{np.datetime_as_string(t, 's').replace('-', '').replace(':', '')}" for t in stamps
        ]
    return stamps, names


def _along(data, n):
    attrs = {str(k).lower(): v for k, v in data.attrs.items()}

    def of(key, default):
        if key in data and data[key].dims == ("time",):
            return list(data[key].values)
        return [attrs.get(key, default)] * n

    sensors, orbits = of("sensor", attrs.get("platform", "")), of("orbit", -1)
    return lambda k: {"sensor": sensor_name(str(sensors[k])), "orbit": int(orbits[k])}


def _units(attrs):
    words = [
        w
        for w in str(attrs.get("units", "")).replace("gamma0", "").split()
        if w in ("power", "linear", "amplitude", "dB")
    ]
    return words[-1] if words else ""


def _baseline(attrs):
    text = str(attrs.get("processing_baseline", ""))
    return {"baseline": text} if len(text) == 5 and text[2] == "." else {}


def _calibration(variable, eager, name, profile, facts, ours):
    attrs = variable.attrs
    fill = [attrs[k] for k in ("_FillValue", "missing_value") if k in attrs]
    found, notes = products.calibration(
        profile,
        facts,
        dtype=variable.dtype,
        scale=float(attrs.get("scale_factor", 1.0)),
        offset=float(attrs.get("add_offset", 0.0)),
        nodata=[float(f) for f in np.ravel(fill)],
    )
    if ours:
        return found, notes
    # a window of up to five dates, spread over the series
    window = {d: slice(variable.sizes[d] // 4, variable.sizes[d] // 4 + 64) for d in ("y", "x")}
    window["time"] = slice(None, None, max(1, variable.sizes["time"] // 5))
    stored = eager[variable.name]
    some = _sample(stored.isel({d: window[d] for d in stored.dims}))
    checked, more = products.check_values(some, band=name, profile=profile, facts=facts, calibrated=found)
    return checked, [*notes, *more]


def _sample(window):
    """Values of all dates that can be read; a damaged one is told when its scene is read."""
    parts, why = [], None
    for part in (window.isel(time=k) for k in range(window.sizes["time"])) if "time" in window.dims else (window,):
        try:
            parts.append(part.values.ravel())
        except _UNREADABLE as err:
            why = err
    if not parts:
        raise StackError(f"variable {window.name} can't be read: the file is damaged ({why}).") from why
    return np.concatenate(parts)


def _calibrate(raw, calibration):
    return calibration.apply(raw)


def _masked(values, codes, rule):
    return np.where(rule.bad(codes), np.float32(np.nan), values)


def write_stack(stack, path, *, chunks=(1, 512, 512), overwrite=False) -> Path:
    """Write a Stack as a Zarr store (format 2, one chunk after another), so that it can be read by pixel or by scene.

    Parameters
    ----------
    stack : Dataset (time, y, x)
        Lazy or not; never held in memory as a whole.
    path : path of the store, usually `*.zarr`
    chunks : (time, y, x)
        Chunk on disk. The default reads well both ways; dask chunks are made whole multiples of it, because a chunk
        that two tasks write is torn.
    overwrite : bool
        Replace an existing store, once the new one is complete.

    Returns
    -------
    Path of the store. It appears under its name only when it is complete.
    """
    check_stack(stack)
    path = Path(path)
    if path.exists() and not overwrite:
        raise StackError(f"{path} exists already; choose another name or overwrite=True.")
    if len(chunks) != 3 or min(chunks) < 1:
        raise ConfigError(f"chunks={chunks!r}: give (time, y, x).")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    # whole multiples of the chunk on disk, about as large as what is computed at once anyway
    sizes = {d: c * max(1, 1024 // c) if d != "time" else c for d, c in zip(("time", "y", "x"), chunks)}
    data = stack.chunk(sizes)
    data = data.drop_encoding()
    grid_mapping = {"grid_mapping": "spatial_ref"} if "spatial_ref" in stack.coords else {}
    encoding = {
        name: {
            "chunks": tuple(min(c, n) for c, n in zip(chunks, data[name].shape)),
            "_FillValue": np.float32(np.nan),
            **grid_mapping,
        }
        for name in data.data_vars
    }
    data.attrs = {**stack.attrs, "geoalign_stack": 1}
    encoding["time"] = {"units": "microseconds since 1970-01-01", "dtype": "int64", "calendar": "proleptic_gregorian"}
    try:
        data.to_zarr(part, mode="w", encoding=encoding, zarr_format=2, consolidated=True, compute=True)
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path
