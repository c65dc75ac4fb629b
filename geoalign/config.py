"""One TOML file describes a site: read it, and name everything that is wrong with it at once, with key and line."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geoalign.errors import ConfigError
from geoalign.keylines import key_lines
from geoalign.sitecheck import ONLY, Problems, absolute, check, sensors_of


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Grid(_Section):
    """The project grid. Without a section it is the grid of the first scene, over all scenes.

    crs : e.g. "EPSG:32633"; resolution_m : pixel side; bbox : xmin, ymin, xmax, ymax in that CRS;
    like : a raster whose grid is taken as it is, instead of the other three
    """

    crs: str | None = None
    resolution_m: float | None = Field(default=None, gt=0)
    bbox: tuple[float, float, float, float] | None = None
    like: str | None = None


class Register(_Section):
    """How scenes are aligned. `register = false` in the file turns alignment off.

    reference : "auto", "median", a scene id or a raster; matcher : "auto" or a name; model : "auto" or a kind of warp;
    max_shift_px : how far to search, px (None: a fifth of the image); resampling : the kernel of the one resampling
    """

    reference: str = "auto"
    matcher: str = "auto"
    model: str = "auto"
    max_shift_px: float | None = Field(default=None, gt=0)
    resampling: Literal["nearest", "bilinear", "cubic", "bspline", "lanczos"] = "cubic"
    seed: int = 0


class Detect(_Section):
    """One detector on one stack. `name` is the folder of its layers; all other keys are the detector's options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    detector: str
    on: str | None = None
    name: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Vectors(_Section):
    """Polygons. min_area_m2 : smaller ones are left out; formats : file types by suffix."""

    min_area_m2: float = Field(default=0.0, ge=0)
    formats: tuple[Literal["gpkg", "fgb", "geojson", "parquet"], ...] = ("gpkg",)


class Webhook(_Section):
    """Where alerts are sent (`[[monitor.webhook]]`): each revision as one signed POST, at least once.

    name : what it is called in logs and in the outbox; url : https; secret : the environment variable that holds the
    key of the signature, never the key itself; statuses, themes : only those (None: all themes); timeout_s : for each
    answer; allow_private : let it be http, or an address of this machine or a private network
    """

    name: str = Field(min_length=1)
    url: str
    secret: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    statuses: tuple[Literal["first", "provisional", "confirmed", "ended", "retracted"], ...] = (
        "confirmed",
        "ended",
        "retracted",
    )
    themes: tuple[str, ...] | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=120)
    allow_private: bool = False


class Area(_Section):
    """An area of interest (`[[monitor.area]]`): `geoalign digest` says what is new in it. path : GeoJSON, in degrees"""

    name: str = Field(min_length=1)
    path: str


class Budget(_Section):
    """How many false alarms are accepted (`[monitor.budget]`), and the chart that watches over it.

    alarms_per_1000km2_month : of confirmed alerts on ground where nothing happened; expected_per_1000km2_month : real
    changes that are usual there; months : span over which the rate must have doubled to be told; false_per_years : how
    often, in years, the chart itself may be wrong
    """

    alarms_per_1000km2_month: float = Field(gt=0)
    expected_per_1000km2_month: float = Field(default=0.0, ge=0)
    false_per_years: float = Field(default=10.0, gt=0)


class Monitoring(_Section):
    """How a site is watched (`geoalign monitor`).

    since : watching starts; scenes before are the baseline; refit_days : a new version of the models every so many
    days after `since`, of all that was observed before it (0: never); grace_hours : how long a scene that lacks a band
    waits for the rest; revisit_days : usual time between scenes (None: as in the baseline), stale after 2.5 of them;
    tile_px : side of the tiles that state and evidence are cut into; keep : generations that stay for their readers;
    lease_minutes : how long the lock of a machine that is not heard of is respected; feeds : files of the alerts;
    mirror : where what is published is copied to, e.g. "s3://bucket/valley"; webhook, area, budget : see there
    """

    since: str | None = None
    refit_days: float = Field(default=0.0, ge=0)
    grace_hours: float = Field(default=24.0, ge=0)
    revisit_days: float | None = Field(default=None, gt=0)
    tile_px: int = Field(default=512, ge=16)
    keep: int = Field(default=5, ge=2)
    lease_minutes: float = Field(default=10.0, gt=0)
    feeds: tuple[Literal["gpkg", "geojson", "parquet", "stac"], ...] = ("gpkg", "geojson", "parquet", "stac")
    mirror: str | None = None
    webhook: tuple[Webhook, ...] = ()
    area: tuple[Area, ...] = ()
    budget: Budget | None = None


class Config(_Section):
    """A site, checked. Made by `load_config` or `parse_config`; frozen.

    name : of the site; scenes or stac : where the images are, a text or a table sensor = text; output : folder;
    product, bands, time, orbit : as in `open_stack`; truth : folder of a simulation's truth, to measure accuracy with
    """

    name: str = Field(min_length=1)
    output: str = Field(min_length=1)
    scenes: str | dict[str, str] | None = None
    stac: str | dict[str, str] | None = None
    product: str | dict[str, str] = "auto"
    bands: tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    time: str | tuple[str, str] | None = None
    orbit: int | dict[str, int] | None = None
    truth: str | None = None
    grid: Grid = Grid()
    register_: dict[str, Register | None] = Field(default_factory=dict, alias="register")
    mask: dict[str, dict[str, Any]] = Field(default_factory=dict)
    detect: tuple[Detect, ...] = ()
    vectors: Vectors = Vectors()
    monitor: Monitoring = Monitoring()
    folder: Path = Path()

    @cached_property
    def sources(self) -> dict[str, str]:
        """Stack name -> where it is read from: a glob or folder made absolute, or a catalogue."""
        given = self.scenes if self.scenes is not None else self.stac
        table = given if isinstance(given, dict) else {ONLY: given}
        return {name: absolute(self.folder, text) for name, text in table.items()}

    @property
    def output_folder(self) -> Path:
        return Path(absolute(self.folder, self.output))

    @property
    def truth_folder(self) -> Path | None:
        return None if self.truth is None else Path(absolute(self.folder, self.truth))

    @property
    def like(self) -> str | None:
        return None if self.grid.like is None else absolute(self.folder, self.grid.like)

    def product_of(self, stack: str) -> str:
        return self.product.get(stack, "auto") if isinstance(self.product, dict) else self.product

    def bands_of(self, stack: str) -> tuple[str, ...] | None:
        return self.bands.get(stack) if isinstance(self.bands, dict) else self.bands

    def orbit_of(self, stack: str) -> int | None:
        return self.orbit.get(stack) if isinstance(self.orbit, dict) else self.orbit

    def register_of(self, stack: str) -> Register | None:
        """Options of alignment for one stack, None where it is turned off."""
        return self.register_.get(stack, Register())

    def mask_of(self, stack: str) -> dict[str, Any]:
        return dict(self.mask.get(stack, {}))

    def stack_of(self, detect: Detect) -> str:
        return detect.on if detect.on is not None else next(iter(self.sources))

    @cached_property
    def layers(self) -> dict[str, Detect]:
        """Folder name of the layers -> detector: `name`, else detector, with the sensor where there are several."""
        out: dict[str, Detect] = {}
        for item in self.detect:
            stem = item.name or (item.detector if len(self.sources) == 1 else f"{item.detector}-{self.stack_of(item)}")
            name, n = stem, 2
            while name in out:
                name, n = f"{stem}-{n}", n + 1
            out[name] = item
        return out

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON-able values, for the manifest."""
        return self.model_dump(mode="json", by_alias=True, exclude={"folder"}) | {"folder": str(self.folder)}


def load_config(path) -> Config:
    """Read and check a site file.

    Raises
    ------
    ConfigError
        `problems` lists everything that is wrong, each with its line and key.

    Examples
    --------
    >>> load_config("valley.toml").output_folder  # doctest: +SKIP
    PosixPath('/data/valley/out')
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a mark in front
    except IsADirectoryError as err:
        raise ConfigError(f"{path} is a folder; give the site's TOML file.") from err
    except OSError as err:
        raise ConfigError(f"{path} can't be read: {err.strerror or err}. Give the path of a site's TOML file.") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path} is not UTF-8 text ({err.reason} at byte {err.start}); TOML files are.") from err
    return parse_config(text, folder=path.resolve().parent, source=path.name)


def parse_config(text: str, *, folder=".", source: str = "site.toml") -> Config:
    """Check the text of a site file; relative paths are relative to `folder`. Errors as in `load_config`.

    Examples
    --------
    >>> from geoalign.config import parse_config
    >>> try:
    ...     parse_config('name = "a"\\noutputs = "out"\\n')
    ... except ConfigError as error:
    ...     print(error.problems[-1])
    site.toml:2: outputs: unknown key; did you mean 'output'?
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        place = re.search(r"\(at line (\d+), column \d+\)", str(err))
        line = int(place.group(1)) if place else text.count("\n") + 1
        what = str(err).replace(place.group(0), "").strip() if place else str(err)
        raise _error({(line, f"not valid TOML: {what}")}, source) from err
    return _config(raw, Path(folder).resolve(), source, key_lines(text))


def scenes_config(
    scenes, detector: str, output, options=None, *, product="auto", register=True, min_area_m2=0.0
) -> Config:
    """The site of one detector on one set of scenes, as if a site file said so: what `geoalign detect` runs.

    Parameters
    ----------
    scenes : folder, file, pattern or catalogue, relative to the working folder
    detector : name
    output : folder
    options : the detector's options
    product, register, min_area_m2 : as in a site file; register=False takes the scenes as they lie
    """
    raw = {
        "name": Path(output).resolve().name or "scenes",
        "scenes": str(scenes),
        "output": str(output),
        "product": product,
        "register": register,
        "detect": [{"detector": detector, **(options or {})}],
        "vectors": {"min_area_m2": min_area_m2},
    }
    return _config(raw, Path.cwd(), "options", {})


def _config(raw, folder, source, lines) -> Config:
    problems = Problems(lines)
    config = _build(raw, folder, problems)
    check(raw, folder, problems)
    if problems.found:
        raise _error(problems.found, source)
    return config


def _error(found, source) -> ConfigError:
    texts = tuple(f"{source}:{line}: {text}" if line else text for line, text in sorted(found))
    count = "1 problem" if len(texts) == 1 else f"{len(texts)} problems"
    return ConfigError(f"{source} has {count}:\n" + "\n".join(f"  {t}" for t in texts), texts)


def _keys(model) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if name != "folder"]


def _build(raw, folder, problems) -> Config | None:
    """The model, with the per-sensor tables of [register] and [mask] resolved; None where it can't be made."""
    raw = dict(raw)
    sensors = sensors_of(raw)
    if "folder" in raw:
        problems.unknown(("folder",), _keys(Config))
        del raw["folder"]
    raw["register"] = _registers(raw.get("register", {}), sensors, problems)
    raw["mask"] = _by_sensor(raw.get("mask", {}), ("mask",), sensors, problems)
    try:
        return Config(**raw, folder=folder)
    except ValidationError as err:
        _tell(err, (), Config, problems)
        return None


def _registers(given, sensors, problems) -> dict[str, Register | None]:
    if given is False:
        return dict.fromkeys(sensors)
    if given is True:
        given = {}
    out: dict[str, Register | None] = {}
    for sensor, options in _by_sensor(given, ("register",), sensors, problems, switch=True).items():
        if options is None:
            out[sensor] = None
            continue
        try:
            out[sensor] = Register(**options)
        except ValidationError as err:
            own = given.get(sensor) if isinstance(given.get(sensor), dict) else {}
            for error in _merged(err.errors()):
                nested = error["loc"][0] in own
                _tell_one(error, ("register", sensor) if nested else ("register",), Register, problems)
    return out


def _by_sensor(given, path, sensors, problems, *, switch=False) -> dict[str, dict[str, Any] | None]:
    """Options for each sensor: those of the section, overridden by the section's table of that sensor."""
    if not isinstance(given, dict):
        problems.add(path, f"must be a table, as [{path[0]}] with keys under it, got {given!r}")
        return {}
    common = {k: v for k, v in given.items() if k not in sensors and not isinstance(v, dict)}
    for key, value in given.items():
        if isinstance(value, dict) and key not in sensors:
            problems.unknown((*path, key), [s for s in sensors if s != ONLY] + _keys(Register if switch else _Section))
    out: dict[str, dict[str, Any] | None] = {}
    for sensor in sensors:
        own = given.get(sensor, {})
        if own is False and switch:
            out[sensor] = None
        elif isinstance(own, dict):
            out[sensor] = common | own
        else:
            problems.add((*path, sensor), f"must be a table of options{' or false' if switch else ''}, got {own!r}")
    return out


def _tell(err, path, model, problems):
    for error in _merged(err.errors()):
        _tell_one(error, path, model, problems)


def _merged(errors):
    """One error a place: a key that may be of several types fails once for each of them."""
    out: dict[tuple, dict[str, Any]] = {}
    for error in errors:
        loc = tuple(
            p
            for p in error["loc"]
            if not (isinstance(p, str) and re.match(r"(dict|tuple|str|int|function|literal)\b", p))
        )
        wanted = _TYPES.get(error["type"])
        if loc in out and wanted and out[loc]["wanted"]:
            out[loc]["wanted"].append(wanted)
        elif loc not in out or not wanted:
            out[loc] = {**error, "loc": loc, "wanted": [wanted] if wanted else []}
    return out.values()


def _tell_one(error, path, model, problems):
    """One error of pydantic in our words: the key, what was seen, what was expected."""
    loc = error["loc"]
    where = (*path, *loc)
    kind, seen, wanted = error["type"], error.get("input"), error["wanted"]
    if kind == "extra_forbidden":
        problems.unknown(where, _keys(_model_at(model, loc[:-1])))
    elif kind == "missing" and isinstance(where[-1], int):
        problems.add(where[:-1], f"has too few values, got {seen!r}")  # said once, whichever are missing
    elif kind == "missing":
        problems.add(where[:-1] if len(where) > 1 else (), f"{where[-1]}: missing; {_NEEDED.get(where[-1], 'give it')}")
    elif where == ("detect",) and isinstance(seen, dict):
        return  # said in sitecheck, with how to write it
    elif wanted:
        problems.add(where, f"must be {' or '.join(dict.fromkeys(wanted))}, got {seen!r}")
    else:
        expected = re.sub(r"^Input should be ", "must be ", error["msg"])
        problems.add(where, f"{expected[0].lower()}{expected[1:]}, got {seen!r}")


_UNION = re.compile(r"(dict|tuple|str|int|function|literal)\b")
"""What pydantic puts into the place of an error to say which type of several it tried."""

_TYPES = {
    "string_type": "a string",
    "dict_type": "a table",
    "model_type": "a table",
    "tuple_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}
"""Kinds of errors of pydantic that mean a value of another type, and the type in TOML's words."""

_NEEDED = {
    "name": 'a short name of the site, e.g. name = "valley"',
    "output": 'the folder results go to, e.g. output = "out"',
    "detector": 'its name, e.g. detector = "flood"',
}


def _model_at(model, loc):
    sections = {"grid": Grid, "vectors": Vectors, "detect": Detect, "monitor": Monitoring, "webhook": Webhook,
                "area": Area, "budget": Budget}  # fmt: skip
    return next((sections[p] for p in reversed(loc) if p in sections), model)
