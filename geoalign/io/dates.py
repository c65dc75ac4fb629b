"""When a scene was taken and what it is called: from tags, else a JSON sidecar, else the file name. Never guessed.

A name with several dates (acquisition and processing) is resolved by its product's pattern, or refused with all of
them shown. `TIFFTAG_DATETIME` is when the file was written, so it is not read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from geoalign.errors import StackError

_FIRST_YEAR = 1972
"""Landsat 1; an earlier date is a clock that was never set."""

_TIME_TAGS = ("datetime", "start_datetime", "acquisition_datetime", "acquisition_date", "sensing_time",
              "zero_doppler_start_time", "date_acquired")  # fmt: skip

_S1_FIRST_ORBIT = {"S1A": 73, "S1B": 27, "S1C": 172, "S1D": 42}
"""relative = (absolute - first) mod 175 + 1. S1A and S1B: P. Meadows, Sentinel-1 Mission Performance Centre, 2017-2020
(STEP forum 7042, checked on its pair of orbit 30); S1C and S1D as published with their catalogues."""


@dataclass(frozen=True)
class Facts:
    """What is known of a file before its values are read. Empty text, -1 and None mean unknown."""

    scene: str = ""
    time: np.datetime64 | None = None
    day_only: bool = False  # the time of day is not known
    sensor: str = ""
    orbit: int = -1
    product: str = ""
    tile: str = ""  # tile, path/row or burst: two scenes of one pass with different tiles are neighbours
    baseline: str = ""  # processing baseline, "05.10"
    boa_applied: str = ""  # Earth Search says that the offset is in the values already: "true", "false"
    units: str = ""
    band: str = ""
    enl: float = float("nan")
    source: str = ""  # where the time was found


_PATTERNS = (
    (
        "sentinel2-l2a",
        r"(?P<sensor>S2[A-D])_MSIL2A_(?P<time>\d{8}T\d{6})_N(?P<baseline>\d{4})_R(?P<orbit>\d{3})"
        r"_T(?P<tile>\w{5})_\d{8}T\d{6}",
    ),
    ("sentinel2-l2a", r"(?P<sensor>S2[A-D])_(?:T?)(?P<tile>\d{2}[A-Z]{3})_(?P<time>\d{8})_\d+_L2A"),
    (
        "sentinel2-l2a",
        r"(?<![A-Z0-9])T(?P<tile>\d{2}[A-Z]{3})_(?P<time>\d{8}T\d{6})(?=_(?:B\d|SCL|AOT|WVP|TCI))",
    ),
    (
        "landsat-c2-l2",
        r"(?P<sensor>L[COTEM]0[4-9])_(?P<level>L[12]\w{2})_(?P<tile>(?P<orbit>\d{3})\d{3})"
        r"_(?P<time>\d{8})_\d{8}_02_(?:T1|T2|RT)",
    ),
    ("hls", r"HLS\.(?P<sensor>[LS]30)\.T(?P<tile>\w{5})\.(?P<time>\d{7}T\d{6})\.v\d+\.\d+"),
    (
        "opera-rtc-s1",
        r"OPERA_L2_RTC-S1_(?P<tile>T(?P<orbit>\d{3})-\d{6}-[IE]W\d)_(?P<time>\d{8}T\d{6})Z"
        r"_\d{8}T\d{6}Z_(?P<sensor>S1[A-D])_\d+_v[\d.]*\d",
    ),
    (
        "sentinel1-rtc",
        r"(?P<sensor>S1[A-D])_(?:IW|EW|SM|S\d)_(?P<time>\d{8}T\d{6})_[DS][VH]\w_RTC\d+_\w"
        r"_[gs](?P<units>[pad])\w{4}_\w{4}",
    ),
    (
        "sentinel1",
        r"(?P<sensor>S1[A-D])_(?:IW|EW|SM|S\d)_(?P<level>GRD\w|SLC_)_1S\w{2}_(?P<time>\d{8}T\d{6})"
        r"_\d{8}T\d{6}_(?P<absolute>\d{6})_\w{6}(?:_[0-9A-F]{4})?",
    ),
)
"""Product and pattern, first match wins. The acquisition is always the first date of these names."""

_UNITS = {"p": "power", "a": "amplitude", "d": "dB"}
_BAND = re.compile(
    r"[._-](?P<band>(?:(?:SR|ST|QA)_)?(?:B\d{1,2}A?|B8A|SCL|QA_\w+|PIXEL|FMASK|AOT|WVP|TCI|VV|VH|HH|HV|MASK|LS_MAP|INC_MAP|"
    r"DEM|AREA|RGB|COASTAL|BLUE|GREEN|RED|REDEDGE\d?|NIR|NIR08|NIR09|SWIR1|SWIR2|SWIR16|SWIR22|NDVI))(?:_\d{2}M)?$",
    re.IGNORECASE,
)
_WHOLE_BAND = re.compile(
    r"^(?:[ie]w-)?(?P<band>B\d{1,2}A?|SCL|VV|VH|HH|HV|FMASK|QA_PIXEL)(?:_\d{2}m|\.rtc)?$", re.IGNORECASE
)

_DATES = (
    r"(?<!\d)(?P<y>(?:19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])(?:[T_-]?(?P<t>[0-2]\d[0-5]\d[0-5]\d))?(?!\d)",
    r"(?<!\d)(?P<y>(?:19|20)\d\d)[-_.](?P<m>0[1-9]|1[0-2])[-_.](?P<d>0[1-9]|[12]\d|3[01])(?!\d)(?:T(?P<t>[0-2]\d[-:]?[0-5]\d[-:]?[0-5]\d))?",
    r"(?<!\d)(?:A(?P<yj>(?:19|20)\d\d)(?P<j>[0-3]\d\d)(?!\d))",
)


def describe(path, tags=None) -> Facts:
    """Facts of a file: its tags first, then its JSON sidecar, then its name.

    Parameters
    ----------
    path : path of the file (its parent folders count: a SAFE or scene folder names what is in it)
    tags : dict[str, str], optional
        Dataset tags. Read, whatever their case: `datetime` (ISO 8601, UTC where no zone is given), `scene`, `sensor`,
        `orbit` (relative), `product`, `processing_baseline`, `units`, `enl`.

    Returns
    -------
    Facts with `time` and `scene` set.

    Raises
    ------
    StackError
        No date, several that disagree, or one before 1972 or in the future. The message shows what was tried.

    Examples
    --------
    >>> facts = describe("LC08_L2SP_192030_20200101_20200115_02_T1_SR_B4.TIF")
    >>> facts.product, str(facts.time)[:10], facts.band, facts.tile
    ('landsat-c2-l2', '2020-01-01', 'SR_B4', '192030')
    """
    path = Path(str(path).split("?")[0])
    tried = []
    facts = _from_name(path)
    if facts.time is not None:
        tried.append(f"name: {facts.source}")
    given = _plain(tags or {})
    sidecar, where = _sidecar(path, facts)
    for values, place in ((sidecar, where), (given, "tags")):
        facts = _override(facts, values, place, path)
        tried.append(f"{place}: {', '.join(f'{k}={values[k]}' for k in _TIME_TAGS if k in values) or 'no date'}")
    if facts.time is None:
        found = _generic_dates(path.stem)
        if len(found) > 1:
            raise StackError(
                f"{path.name}: its name holds several dates ({', '.join(sorted(found))}) and no known product's "
                f"pattern says which is the acquisition (tried {'; '.join(tried)}). Set the tag datetime, or write "
                f'{path.stem}.json with {{"datetime": "..."}}.'
            )
        if not found:
            raise StackError(
                f"{path.name}: no acquisition date was found (tried {'; '.join(tried)}; name patterns of Sentinel-1, "
                "Sentinel-2, Landsat, HLS, OPERA, YYYYMMDD, YYYY-MM-DD, AYYYYDDD). Set the tag datetime, or write "
                f'{path.stem}.json with {{"datetime": "2024-01-31T10:20:30Z"}}.'
            )
        text, (stamp, day_only) = next(iter(found.items()))
        facts = replace(facts, time=stamp, day_only=day_only, source=f"name ({text})")
    _check_time(facts.time, path.name, facts.source)
    if not facts.scene:
        band = _BAND.search(path.stem)
        facts = replace(facts, scene=path.stem[: band.start()] if band else path.stem)
    return replace(facts, scene=safe_name(facts.scene))


def safe_name(text: str) -> str:
    """A scene id without a path in it: letters, digits and `. _ - + :` stay, anything else becomes `_`."""
    return re.sub(r"[^A-Za-z0-9._+:-]+", "_", str(text)).strip(".") or "scene"


def parse_time(value, what: str) -> tuple[np.datetime64, bool]:
    """(UTC time, whether only the day is given) from ISO 8601 text; StackError names `what` where it can't be read."""
    text = str(value).strip()
    if not re.match(r"^\d{4}[-:]?\d{2}[-:]?\d{2}", text):
        raise StackError(f"{what}: {text!r} is not a date; write it as 2024-01-31T10:20:30Z.")
    text = re.sub(r"^(\d{4}):(\d{2}):(\d{2})", r"\1-\2-\3", text)
    try:
        stamp = pd.to_datetime(text, utc=True)
    except (ValueError, TypeError) as err:
        raise StackError(f"{what}: {text!r} is not a date ({err}); write it as 2024-01-31T10:20:30Z.") from err
    return stamp.tz_localize(None).to_datetime64().astype("datetime64[ns]"), len(text) <= 10


def relative_orbit(sensor: str, absolute: int) -> int:
    """Relative orbit of a Sentinel-1 satellite from its absolute orbit; -1 where the satellite is not known."""
    first = _S1_FIRST_ORBIT.get(sensor)
    return -1 if first is None else (int(absolute) - first) % 175 + 1


def _from_name(path):
    stem = path.name[: -len(path.suffix)] if path.suffix.lower() in (".tif", ".tiff", ".jp2") else path.name
    parts = [stem, *reversed(path.parts[-6:-1])]
    for product, pattern in _PATTERNS:
        for part in parts:
            found = re.search(pattern, part)
            if found is None:
                continue
            got = found.groupdict()
            stamp, day_only = _pattern_time(got["time"])
            if product == "landsat-c2-l2" and not got["level"].startswith("L2"):
                raise StackError(
                    f"{path.name} is Landsat Level-1 (not surface reflectance); give Level-2 (L2SP or L2SR)."
                )
            sensor = got.get("sensor") or "S2"
            orbit = got.get("orbit")
            if got.get("absolute"):
                orbit = relative_orbit(sensor, int(got["absolute"]))
            rest = stem[found.end() :] if part is stem else "_" + stem
            band = _BAND.search(rest) or _WHOLE_BAND.match(stem)
            baseline = got.get("baseline") or ""
            return Facts(
                scene=found.group(0).removesuffix("_"),
                time=stamp,
                day_only=day_only,
                sensor=f"HLS-{sensor}" if product == "hls" else sensor,
                orbit=int(orbit) if orbit not in (None, "") else -1,
                product=_sentinel1(path, got) if product == "sentinel1" else product,
                tile=got.get("tile") or "",
                baseline=f"{baseline[:2]}.{baseline[2:]}" if baseline else "",
                units=_UNITS.get(got.get("units") or "", ""),
                band=band["band"] if band else "",
                source=f"{part} read as {product}",
            )
    band = _BAND.search("_" + stem)
    return Facts(band=band["band"] if band else "")


def _sentinel1(path, got):
    processed = re.search(r"rtc|gamma[_-]?0|gamma_naught|g0", str(path), re.IGNORECASE)
    return "sentinel1-rtc" if processed else "sentinel1-" + got["level"].strip("_").lower()[:3]


def _pattern_time(text):
    code = {8: "%Y%m%d", 14: "%Y%jT%H%M%S", 15: "%Y%m%dT%H%M%S"}[len(text)]
    try:
        stamp = pd.to_datetime(text, format=code)
    except ValueError as err:
        raise StackError(f"{text!r} in the file name is not a date ({err}).") from err
    return stamp.to_datetime64().astype("datetime64[ns]"), len(text) == 8


def _generic_dates(stem):
    found = {}
    for pattern in _DATES:
        for hit in re.finditer(pattern, stem):
            got = hit.groupdict()
            if got.get("yj"):
                text = pd.to_datetime(got["yj"] + got["j"], format="%Y%j", errors="coerce")
            else:
                text = pd.to_datetime(f"{got['y']}-{got['m']}-{got['d']}", errors="coerce")
            if pd.isna(text) or not _FIRST_YEAR <= text.year <= pd.Timestamp.now().year + 1:
                continue
            clock = re.sub(r"\D", "", got.get("t") or "")
            if clock and int(clock[:2]) < 24:
                text += pd.Timedelta(hours=int(clock[:2]), minutes=int(clock[2:4]), seconds=int(clock[4:]))
            else:
                clock = ""
            found[text.isoformat()] = (text.to_datetime64().astype("datetime64[ns]"), not clock)
    return found


def _plain(values):
    return {str(k).lower(): v for k, v in values.items() if v is not None and str(v) != ""}


def _sidecar(path, facts):
    names = [f"{path.stem}.json", f"{path.name}.json"]
    if facts.scene:
        names += [f"{facts.scene}.json", f"{facts.scene}_MTL.json"]
    for name in names:
        place = path.with_name(name)
        if not place.is_file():
            continue
        if place.stat().st_size > 2**22:
            raise StackError(f"{place} is larger than 4 MB; that is no sidecar. Remove it or shorten it.")
        try:
            document = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise StackError(f"{place} can't be read as JSON: {err}.") from err
        if not isinstance(document, dict):
            raise StackError(f'{place} must hold an object such as {{"datetime": "2024-01-31T10:20:30Z"}}.')
        landsat = document.get("LANDSAT_METADATA_FILE", {}).get("IMAGE_ATTRIBUTES", {})
        if "DATE_ACQUIRED" in landsat:
            clock = str(landsat.get("SCENE_CENTER_TIME", "")).strip('"Z')[:15]
            return {"datetime": f"{landsat['DATE_ACQUIRED']}T{clock}Z" if clock else landsat["DATE_ACQUIRED"]}, name
        extra = {"scene": document["id"]} if "properties" in document and "id" in document else {}
        return _plain({**extra, **document.get("properties", {}), **document}), name
    return {}, f"sidecar {path.stem}.json"


def _override(facts, values, place, path):
    stamps = {k: parse_time(values[k], f"{path.name}, {place} {k}") for k in _TIME_TAGS if k in values}
    if stamps:
        times = [t for t, _ in stamps.values()]
        if max(times) - min(times) > np.timedelta64(1, "D"):
            shown = ", ".join(f"{k}={values[k]}" for k in stamps)
            raise StackError(
                f"{path.name}: its {place} hold dates that disagree ({shown}). Keep the acquisition as datetime."
            )
        key = next(iter(stamps))
        facts = replace(facts, time=stamps[key][0], day_only=stamps[key][1], source=f"{place} ({key})")

    def first(*keys):
        return next((str(values[k]) for k in keys if k in values), "")

    changes = {
        "scene": first("scene", "scene_id"),
        "sensor": sensor_name(first("sensor", "platform")),
        "product": first("product"),
        "tile": first("tile", "grid:code", "burst_id"),
        "baseline": _baseline(first("processing_baseline", "s2:processing_baseline")),
        "units": first("units", "unit"),
        "boa_applied": first("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied").lower(),
        "band": "",
    }
    facts = replace(facts, **{k: v for k, v in changes.items() if v})
    orbit, enl = first("orbit", "relative_orbit", "sat:relative_orbit", "track_number"), first("enl")
    try:
        return replace(facts, orbit=int(orbit) if orbit else facts.orbit, enl=float(enl) if enl else facts.enl)
    except ValueError as err:
        raise StackError(f"{path.name}: its {place} hold orbit={orbit!r}, enl={enl!r}; numbers are expected.") from err


def _baseline(text):
    digits = re.sub(r"\D", "", text)
    if "." in text and re.match(r"^N?\d{1,2}\.\d{1,2}$", text):
        whole, rest = text.lstrip("N").split(".")
        return f"{int(whole):02d}.{rest:0<2}"
    return f"{digits[:2]}.{digits[2:4]}" if len(digits) == 4 else ""


def sensor_name(text: str) -> str:
    """Short name of a platform: "sentinel-2a" is S2A, "Sentinel-1B" S1B, "landsat-8" LC08; others as they are."""
    found = re.fullmatch(r"sentinel-?([12])-?([a-d])", text.strip().lower())
    if found:
        return f"S{found[1]}{found[2].upper()}"
    found = re.fullmatch(r"landsat[-_]?0?([4-9])", text.strip().lower())
    if found:
        return {"4": "LT04", "5": "LT05", "7": "LE07", "8": "LC08", "9": "LC09"}.get(found[1], text)
    return text.strip()


def _check_time(stamp, name, source):
    moment = pd.Timestamp(stamp)
    if moment.year < _FIRST_YEAR or moment > pd.Timestamp.now(tz="UTC").tz_localize(None) + pd.Timedelta(days=1):
        raise StackError(
            f"{name}: its date {moment.isoformat()} ({source}) is before {_FIRST_YEAR} or in the future. Correct it "
            "with the tag datetime or a JSON sidecar."
        )
