"""What can be wrong with a site file beyond its types: places, dates, grids, detectors and their options."""

from __future__ import annotations

import difflib
import math
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from geoalign.registry import detector_options

ONLY = "scenes"
"""What the single stack is called where `scenes` is one source and not a table of sensors."""

MODELS = ("auto", "shift", "rigid", "similarity", "affine", "projective", "polynomial2", "field")
MATCHERS = ("auto", "dense", "ecc", "mutual_information", "ncc", "orb", "phase", "sift", "structure")
PRODUCTS = ("auto", "sentinel2-l2a", "landsat-c2-l2", "hls", "sentinel1-rtc", "opera-rtc-s1", "generic")
MASKS = (
    "valid_range", "dilate_px", "cloud_sigma", "shadow_sigma", "floor_db", "layover", "incidence", "incidence_range",
)  # fmt: skip
"""The names that the rooms know, again, because importing the rooms takes seconds; a test holds them to be the same."""

MAX_PIXELS = 2**31
"""Most pixels of a project grid, as for one file."""


def check(raw, folder, problems) -> None:
    """Add to `problems` all that is wrong with the plain tables of a site file in `folder`."""
    _check_paths(raw, folder, problems)
    _check_products(raw, problems)
    _check_grid(raw, problems)
    _check_register(raw, problems)
    _check_masks(raw, problems)
    _check_detectors(raw, problems)
    _check_monitor(raw, folder, problems)


class Problems:
    """What is wrong so far: (line, text)."""

    def __init__(self, lines):
        self.lines = lines
        self.found: set[tuple[int, str]] = set()

    def add(self, path, message):
        """Note a problem of the key at `path` (names and list positions); its line is looked up."""
        key = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        path = tuple(path)
        while path and path not in self.lines:
            path = path[:-1]
        self.found.add((self.lines.get(path, 1 if self.lines else 0), f"{key}: {message}" if key else message))

    def unknown(self, path, valid):
        """Note a key that is not known, naming the nearest of those that are."""
        near = difflib.get_close_matches(str(path[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(valid)}."
        self.add(path, f"unknown key; {hint}")


def sensors_of(raw) -> list[str]:
    """Names of the stacks of a site."""
    given = raw.get("scenes", raw.get("stac"))
    return [str(name) for name in given] if isinstance(given, dict) else [ONLY]


def absolute(folder: Path, text: str) -> str:
    """A path made absolute; addresses stay as they are."""
    if re.match(r"^[a-z][a-z0-9+.-]+://", text):
        return text
    return os.path.normpath(os.path.join(folder, os.path.expanduser(text)))


def _check_paths(raw, folder, problems):
    given = raw.get("scenes", raw.get("stac"))
    key = "scenes" if "scenes" in raw else "stac"
    if "scenes" in raw and "stac" in raw:
        problems.add(("stac",), "give either scenes or stac, not both")
    if given is None:
        problems.add(
            (), 'scenes: missing; say where the images are, e.g. scenes = "scenes/*.tif" or stac = "catalog.json"'
        )
    table = given if isinstance(given, dict) else {None: given}
    if not table:
        problems.add((key,), 'names no sensor; e.g. scenes = { sar = "sar/*.tif" }')
    for sensor, text in table.items():
        path = (key,) if sensor is None else (key, sensor)
        if sensor is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", sensor):
            problems.add(path, f"a sensor's name is made of letters, digits, _ and -, got {sensor!r}")
        if isinstance(text, str) and not text.strip():
            problems.add(path, "is empty; give a folder, a file or a pattern such as 'scenes/*.tif'")
        elif isinstance(text, str):
            _check_source(absolute(folder, text), text, path, problems)
    for section, name in (("grid", "like"), (None, "truth")):
        text = raw.get(name) if section is None else _table(raw, section).get(name)
        if isinstance(text, str) and not os.path.exists(absolute(folder, text)):
            problems.add((section, name) if section else (name,), f"{absolute(folder, text)} does not exist")
        elif name == "truth" and isinstance(text, str) and not os.path.isfile(absolute(folder, f"{text}/truth.json")):
            problems.add(("truth",), f"{absolute(folder, text)} holds no truth.json; give the folder simulate wrote")
    if isinstance(raw.get("output"), str) and raw["output"]:
        _check_output(Path(absolute(folder, raw["output"])), problems)
    if isinstance(raw.get("time"), list | str):
        parts = raw["time"].split("/") if isinstance(raw["time"], str) else raw["time"]
        _check_dates([p for p in parts if p not in ("", "..")], ("time",), problems)
        if len(parts) > 2:
            problems.add(("time",), f"must be a first and a last date, as '2024-01-01/2024-06-30', got {raw['time']!r}")
        elif len(parts) == 2 and all(re.match(r"\d{4}", str(p)) for p in parts) and _later(*map(str, parts)):
            problems.add(("time",), f"ends before it starts, got {raw['time']!r}; give the first date first")


def _check_source(path, text, where, problems):
    if "://" in path or os.path.exists(path):
        return
    if not any(c in text for c in "*?["):
        problems.add(where, f"{path} does not exist; give a folder, a file or a pattern such as 'scenes/*.tif'")
        return
    base = os.path.dirname(re.split(r"[*?\[]", path, maxsplit=1)[0])
    if not os.path.isdir(base):
        problems.add(where, f"the folder {base} of the pattern {text!r} does not exist")


def _check_output(path, problems):
    if path.exists() and not path.is_dir():
        problems.add(("output",), f"{path} is a file; give a folder")
        return
    parent = path
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        problems.add(("output",), f"{parent} can't be written to; choose another folder or change its permissions")


def _check_dates(values, where, problems):
    from datetime import datetime

    for i, value in enumerate(values):
        text = str(value)
        text += {4: "-01-01", 7: "-01"}.get(len(text), "")  # 2024 and 2024-05 are spans
        try:
            datetime.fromisoformat(text)
        except ValueError:
            problems.add((*where, i) if len(values) > 1 else where, f"{value!r} is not a date; write it as 2024-05-31")


def _later(first, last) -> bool:
    """Whether ISO date `first` is after `last`; "2024" and "2024-05" are spans, so only what both give counts."""
    n = min(len(first), len(last))
    return first[:n] > last[:n]


def _check_products(raw, problems):
    given = raw.get("product")
    for key, text in given.items() if isinstance(given, dict) else [(None, given)]:
        path = ("product",) if key is None else ("product", key)
        if key is not None and key not in sensors_of(raw):
            problems.unknown(path, sensors_of(raw))
        elif isinstance(text, str) and text.partition("@")[0] not in PRODUCTS:
            problems.add(path, f"{text!r} is unknown; choose one of {', '.join(PRODUCTS)}")


def _table(raw, name) -> dict:
    section = raw.get(name)
    return section if isinstance(section, dict) else {}


def _check_grid(raw, problems):
    grid = _table(raw, "grid")
    crs, parsed = grid.get("crs"), None
    if isinstance(crs, str):
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        try:
            parsed = CRS.from_user_input(crs)
        except CRSError:
            problems.add(("grid", "crs"), f"{crs!r} is not a CRS; write it as 'EPSG:32633'")
    if parsed is not None and parsed.is_geographic and "resolution_m" in grid:
        problems.add(
            ("grid", "crs"), f"{crs} is in degrees, resolution_m in metres; use a projected CRS, e.g. a UTM zone"
        )
    if ("crs" in grid) != ("resolution_m" in grid):
        missing = "resolution_m" if "crs" in grid else "crs"
        problems.add(("grid",), f"{missing} is missing; a grid needs both crs and resolution_m, or like")
    if "like" in grid and len(grid) > 1:
        problems.add(("grid", "like"), "like is a whole grid; leave crs, resolution_m and bbox out, or leave out like")
    box = grid.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box):
        if box[0] >= box[2] or box[1] >= box[3]:
            problems.add(
                ("grid", "bbox"), f"must be xmin, ymin, xmax, ymax with xmin < xmax and ymin < ymax, got {box}"
            )
        if "crs" not in grid:
            problems.add(("grid", "bbox"), "needs crs and resolution_m beside it; a box without a CRS has no place")
    step = grid.get("resolution_m")
    if _is_number(step) and math.isinf(step):
        problems.add(("grid", "resolution_m"), f"must be a number of metres, got {step!r}")
    elif _is_number(step) and step > 0 and isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)):
        width, height = (box[2] - box[0]) / step, (box[3] - box[1]) / step
        if not math.isfinite(width * height) or (width > 0 < height and width * height > MAX_PIXELS):
            problems.add(
                ("grid", "bbox"),
                f"makes a grid of {width:.4g} x {height:.4g} pixels of {step:g} m, and at most 2^31 are taken; is "
                f"it in the units of {crs}? Give a smaller box or a coarser resolution_m",
            )


def _check_register(raw, problems):
    for path, options in _by_sensor(raw, "register"):
        for key, known in (("model", MODELS), ("matcher", MATCHERS)):
            if isinstance(options.get(key), str) and options[key] not in known:
                near = difflib.get_close_matches(options[key], known, n=1, cutoff=0.5)
                hint = f", did you mean {near[0]!r}?" if near else ""
                problems.add((*path, key), f"{options[key]!r} is unknown{hint}; choose one of {', '.join(known)}")


def _check_masks(raw, problems):
    for path, options in _by_sensor(raw, "mask"):
        for key, value in options.items():
            if key not in MASKS and not isinstance(value, dict):
                problems.unknown((*path, key), MASKS)


def _by_sensor(raw, name):
    """A section and its tables of single sensors, each with its path."""
    section = _table(raw, name)
    yield (name,), section
    for sensor in sensors_of(raw):
        if isinstance(section.get(sensor), dict):
            yield (name, sensor), section[sensor]


def _check_monitor(raw, folder, problems):
    section = _table(raw, "monitor")
    since = section.get("since")
    if isinstance(since, str):
        _check_dates([since], ("monitor", "since"), problems)
    for kind in ("webhook", "area"):
        items = section.get(kind, [])
        items = [(i, item) for i, item in enumerate(items if isinstance(items, list) else []) if isinstance(item, dict)]
        names = [item.get("name") for _, item in items]
        for i, item in items:
            if names.index(item.get("name")) < i:
                problems.add(("monitor", kind, i, "name"), f"{item['name']!r} is there twice; deliveries need one each")
            (_check_webhook if kind == "webhook" else _check_area)(item, folder, ("monitor", kind, i), problems)


def _check_webhook(item, folder, where, problems):
    url = item.get("url")
    if not isinstance(url, str):
        return
    allowed = ("https", "http") if item.get("allow_private") is True else ("https",)
    parts = urlsplit(url)
    if parts.scheme not in allowed or not parts.hostname:
        problems.add(
            (*where, "url"), f"must be an {' or '.join(allowed)} address (http only with allow_private = true)"
        )
    elif parts.username or parts.password:
        problems.add((*where, "url"), "holds a password; give it as a path or query of its own, or none")


def _check_area(item, folder, where, problems):
    path = item.get("path")
    if isinstance(path, str) and not os.path.isfile(absolute(folder, path)):
        problems.add((*where, "path"), f"{path!r} is not there; give a GeoJSON file of polygons, in degrees")


def _check_detectors(raw, problems):
    items = raw.get("detect", [])
    if isinstance(items, dict):
        problems.add(("detect",), "write it as [[detect]] with two brackets, once for each detector")
        return
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return
    if not items:
        problems.add(
            ("detect",) if "detect" in raw else (), 'detect: missing; add [[detect]] with e.g. detector = "flood"'
        )
        return
    registry = detector_options()
    sensors = sensors_of(raw)
    for i, item in enumerate(items):
        _check_detector(item, i, registry, sensors, problems)


def _check_detector(item, i, registry, sensors, problems):
    on, name = item.get("on"), item.get("detector")
    if isinstance(on, str) and on not in sensors:
        known = ", ".join(repr(s) for s in sensors)
        problems.add(("detect", i, "on"), f"{on!r} is none of the stacks of scenes ({known})")
    if on is None and len(sensors) > 1:
        problems.add(("detect", i), f"on: missing; say which stack it is for ({', '.join(repr(s) for s in sensors)})")
    if isinstance(item.get("name"), str) and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", item["name"]):
        problems.add(
            ("detect", i, "name"), f"names a folder; use letters, digits, _ - and then dots, got {item['name']!r}"
        )
    if not isinstance(name, str):
        return
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(registry))}."
        problems.add(("detect", i, "detector"), f"{name!r} is no detector; {hint}")
        return
    known = registry[name]
    for key, value in item.items():
        where = ("detect", i, key)
        if key in ("detector", "on", "name"):
            continue
        if key not in known:
            problems.unknown(where, list(known))
        elif key in ("alpha", "prior") and not (_is_number(value) and 0 < value < 1):
            problems.add(where, f"must lie between 0 and 1, got {value!r}")
        elif key in ("since", "until"):
            _check_dates([value], where, problems)
        elif key in ("enl", "min_area_m2") and not (_is_number(value) and value >= 0):
            problems.add(where, f"must be a number, 0 or more, got {value!r}")
        elif not _fits(value, known[key]):
            problems.add(where, f"must be {known[key].replace(' | None', '')}, got {value!r}")


def _fits(value, annotation) -> bool:
    """Whether a TOML value can be what a plain annotation says; True where the annotation is not plain."""
    names = [part.strip() for part in annotation.split("|")]
    if not set(names) <= {"int", "float", "str", "bool", "None"}:
        return True
    if isinstance(value, bool):
        return "bool" in names
    if isinstance(value, int):
        return "int" in names or "float" in names
    return (isinstance(value, float) and "float" in names) or (isinstance(value, str) and "str" in names)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
