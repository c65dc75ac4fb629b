"""What can be wrong with a site file beyond its types: places, dates, grids, detectors and their options."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from geoalign.registry import detector_options

ONLY = "scenes"
"""What the single stack is called where `scenes` is one source and not a table of sensors."""

MODELS = ("auto", "shift", "rigid", "similarity", "affine", "projective", "field")


def check(raw, folder, problems) -> None:
    """Add to `problems` all that is wrong with the plain tables of a site file in `folder`."""
    _check_paths(raw, folder, problems)
    _check_grid(raw, problems)
    _check_detectors(raw, problems)


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
        if isinstance(text, str):
            _check_source(absolute(folder, text), text, path, problems)
    for section, name in (("grid", "like"), (None, "truth")):
        text = raw.get(name) if section is None else _table(raw, section).get(name)
        if isinstance(text, str) and not os.path.exists(absolute(folder, text)):
            problems.add((section, name) if section else (name,), f"{absolute(folder, text)} does not exist")
    if isinstance(raw.get("output"), str) and raw["output"]:
        _check_output(Path(absolute(folder, raw["output"])), problems)
    if isinstance(raw.get("time"), list | str):
        parts = raw["time"].split("/") if isinstance(raw["time"], str) else raw["time"]
        _check_dates([p for p in parts if p not in ("", "..")], ("time",), problems)


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
    for path, model in _register_tables(raw):
        if isinstance(model.get("model"), str) and model["model"] not in MODELS:
            problems.add((*path, "model"), f"{model['model']!r} is unknown; choose one of {', '.join(MODELS)}")


def _register_tables(raw):
    section = _table(raw, "register")
    yield ("register",), section
    for sensor in sensors_of(raw):
        if isinstance(section.get(sensor), dict):
            yield ("register", sensor), section[sensor]


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
    if isinstance(item.get("name"), str) and not re.fullmatch(r"[A-Za-z0-9._-]+", item["name"]):
        problems.add(("detect", i, "name"), f"names a folder; use letters, digits, _ . and -, got {item['name']!r}")
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
