"""What the numbers of each product mean: band names, scale, offset, nodata, mask layer, units. No file is read here.

Sources: Sentinel-2 Products Specification 15.x (L2A: reflectance = (DN + BOA_ADD_OFFSET) / 10000; scene classes);
USGS Landsat Collection 2 Level-2 Product Guides (LSDS-1619, -1618); HLS User Guide 2.0; OPERA RTC-S1 Product
Specification (JPL D-108758); ASF HyP3 RTC Product Guide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from geoalign.errors import ConfigError, StackError
from geoalign.types.stack import SAR_BANDS

OPTICAL_BANDS = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "nir09",
    "swir1",
    "swir2",
)
"""Names that mark a band as reflectance, 0-1."""

DOUBT = "check: "
"""Begins a note in `applied` that someone should look at; `open_stack` logs each kind of it once."""

_S2 = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
       "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir1", "B12": "swir2",
       "SCL": "scl"}  # fmt: skip
_OLI = {"B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "nir", "B6": "swir1", "B7": "swir2"}
_TM = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir1", "B7": "swir2"}
_L30 = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "nir", "B06": "swir1", "B07": "swir2"}
# S30: B8A is the narrow near infrared that matches L30's B05; B08 is the broad one
_S30 = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
        "B07": "rededge3", "B08": "nir_broad", "B8A": "nir", "B11": "swir1", "B12": "swir2"}  # fmt: skip
_ALIASES = {"swir16": "swir1", "swir22": "swir2", "lwir": "", "rededge71": "rededge1", "rededge075": "rededge2"}


@dataclass(frozen=True)
class MaskRule:
    """Which codes of a mask layer mean *not observed*.

    kind : "drop" (these codes), "bits" (any of these bits), "keep" (anything but these codes)
    """

    layer: str
    kind: str
    values: tuple[int, ...]
    meaning: str

    def bad(self, codes):
        """True where not observed; codes of any shape."""
        if self.kind == "bits":
            return (np.asarray(codes).astype(np.int64) & sum(1 << b for b in self.values)) != 0
        found = np.isin(codes, self.values)
        return ~found if self.kind == "keep" else found


SCL = MaskRule("scl", "drop", (0, 1, 3, 8, 9, 10), "SCL no data, defective, shadow, cloud medium/high, thin cirrus")
QA_PIXEL = MaskRule("qa_pixel", "bits", (0, 1, 2, 3, 4, 5), "QA_PIXEL fill, dilated cloud, cirrus, cloud, shadow, snow")
FMASK = MaskRule("fmask", "bits", (0, 1, 2, 3, 4), "Fmask cirrus, cloud, adjacent, shadow, snow (and 255)")
OPERA_MASK = MaskRule("mask", "keep", (0,), "RTC-S1 mask layover, shadow, invalid")
# HyP3 ls_map is a sum: 1 tested, 2 true layover, 4 affected by layover, 8 true shadow, 16 affected by shadow
LS_MAP = MaskRule("ls_map", "bits", (1, 2, 3, 4), "ls_map layover, shadow")


@dataclass(frozen=True)
class Profile:
    """How a product is read. Make a variant with `dataclasses.replace` and give it as `open_stack(..., product=)`.

    scale, offset : value = DN * scale + offset
    nodata : values that mean *not observed*, besides the file's own
    baseline : Sentinel-2 processing baseline to assume where a file does not say, "05.10"
    """

    name: str
    kind: str  # optical | sar | any
    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple[float, ...] = ()
    mask: MaskRule | None = None
    units: str = ""
    baseline: str = ""


PROFILES = MappingProxyType(
    {
        "sentinel2-l2a": Profile("sentinel2-l2a", "optical", 1e-4, 0.0, (0.0,), SCL, "reflectance"),
        "landsat-c2-l2": Profile("landsat-c2-l2", "optical", 2.75e-5, -0.2, (0.0,), QA_PIXEL, "reflectance"),
        "hls": Profile("hls", "optical", 1e-4, 0.0, (-9999.0,), FMASK, "reflectance"),
        "sentinel1-rtc": Profile("sentinel1-rtc", "sar", 1.0, 0.0, (0.0, -32768.0), LS_MAP, "power"),
        "opera-rtc-s1": Profile("opera-rtc-s1", "sar", 1.0, 0.0, (0.0,), OPERA_MASK, "power"),
        "generic": Profile("generic", "any", 1.0, 0.0, (), SCL, ""),
    }
)

_COLLECTIONS = (
    (r"sentinel-?2.*l2a", "sentinel2-l2a"),
    (r"landsat-?c2-?l2|landsat-c2l2-sr", "landsat-c2-l2"),
    (r"hls[ls_2-]", "hls"),
    (r"opera.*rtc", "opera-rtc-s1"),
    (r"sentinel-?1-?rtc", "sentinel1-rtc"),
)


@dataclass(frozen=True)
class Calibration:
    """What turns stored numbers into values. `units` of what is stored: reflectance, power, amplitude, dB or ""."""

    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple[float, ...] = ()
    units: str = ""

    def apply(self, raw):
        """float32 values, NaN where nodata, not finite, or (for power) not positive. Computed in float64."""
        missing = np.zeros(raw.shape, bool)
        for value in self.nodata:
            missing |= raw == value
        values = raw.astype(np.float64)
        if (self.scale, self.offset) != (1.0, 0.0):
            values = values * self.scale + self.offset
        if self.units == "amplitude":
            values = values * values
        elif self.units == "dB":
            values = 10.0 ** (values / 10.0)
        missing |= ~np.isfinite(values)
        if self.units in ("power", "amplitude", "dB"):
            missing |= ~(values > 0)
        values[missing] = np.nan
        return values.astype(np.float32)


def profile_of(product, facts_product: str) -> Profile:
    """The profile to use: what the caller said, else what the file said, else generic.

    product : "auto", a name of `PROFILES`, "sentinel2-l2a@05.10" (with the processing baseline), or a Profile
    """
    if isinstance(product, Profile):
        return product
    if product == "auto":
        name = facts_product.lower()
        if name in ("sentinel1-grd", "sentinel1-slc"):
            return replace(PROFILES["sentinel1-rtc"], name=name)
        if name and name not in PROFILES:
            found = collection_product(name)
            if not found:
                raise StackError(
                    f"its product {facts_product!r} is unknown ({', '.join(PROFILES)}). Name one with product=."
                )
            name = found
        return PROFILES[name or "generic"]
    name, _, baseline = str(product).partition("@")
    if name not in PROFILES or (baseline and (name != "sentinel2-l2a" or not re.fullmatch(r"\d\d\.\d\d", baseline))):
        raise ConfigError(
            f"product {product!r} is unknown; choose auto, {', '.join(PROFILES)}, or sentinel2-l2a@05.10 with the "
            "processing baseline."
        )
    return replace(PROFILES[name], baseline=baseline)


def collection_product(text: str) -> str:
    """Product of a STAC collection or item id, "" where none is known."""
    return next((product for pattern, product in _COLLECTIONS if re.search(pattern, text.lower())), "")


def band_name(text: str, product: str, sensor: str = "") -> str:
    """Our name of a product's band ("B04", "SR_B4", "Gamma0_VV", "swir16"), "" where it is no band we read."""
    plain = text.strip()
    low = plain.lower()
    low = _ALIASES.get(low, low)
    if product in ("sentinel1-rtc", "opera-rtc-s1", "generic") or product.startswith("sentinel1"):
        found = re.search(r"(?:^|[^a-z])(vv|vh|hh|hv)(?:$|[^a-z])", low)
        if found:
            return found[1]
        if product != "generic":
            return low if low in ("mask", "ls_map") else ""
    code = re.sub(r"_\d{2}M$", "", plain.upper()).removeprefix("SR_")
    if product == "sentinel2-l2a":
        code = re.sub(r"^B(\d)$", r"B0\1", code)
        return _S2.get(code) or (low if low in OPTICAL_BANDS or low == "scl" else "")
    if product in ("landsat-c2-l2", "hls") and low == "nir08":  # STAC's common name of their only near infrared
        return "nir"
    if product == "landsat-c2-l2":
        table = _TM if sensor[:4] in ("LT04", "LT05", "LE07") else _OLI
        return table.get(code) or (low if low in OPTICAL_BANDS else "qa_pixel" if low == "qa_pixel" else "")
    if product == "hls":
        code = re.sub(r"^B(\d)$", r"B0\1", code)
        table = _L30 if sensor.endswith("L30") else _S30
        return table.get(code) or (low if low in OPTICAL_BANDS or low == "fmask" else "")
    return re.sub(r"\W+", "_", low).strip("_")


def calibration(profile: Profile, facts, *, dtype, scale=1.0, offset=0.0, nodata=()):
    """(Calibration, notes) of one band, or StackError where what is known does not agree.

    Parameters
    ----------
    profile, facts : what the product and the file say
    dtype : of the stored values
    scale, offset, nodata : from the file's header, or from its STAC item
    """
    values = tuple(float(v) for v in nodata if v is not None)
    own = (float(scale), float(offset)) != (1.0, 0.0)
    notes = []
    merged = tuple(dict.fromkeys((*values, *profile.nodata)))
    if profile.kind == "optical" and np.dtype(dtype).kind == "f" and not own:
        notes.append("stored as floating point: taken as reflectance already")
        return Calibration(1.0, 0.0, tuple(v for v in merged if v != 0.0), profile.units), notes
    if profile.name == "sentinel2-l2a":
        scale, offset, notes = _sentinel2(profile, facts, scale, offset, own)
    elif profile.kind == "sar":
        units = facts.units.split()[-1] if facts.units else ""
        units = {"db": "dB", "decibel": "dB", "power": "power", "linear": "power", "amplitude": "amplitude"}.get(
            units.lower(), facts.units
        )
        if units not in ("", "power", "amplitude", "dB"):
            raise StackError(f"units {facts.units!r} are unknown for SAR; expected power, amplitude or dB.")
        if np.dtype(dtype).kind in "iu" and not own:
            raise StackError(
                f"it holds {dtype} counts with no scale: not calibrated, as in a Sentinel-1 GRD. Give terrain-"
                "corrected (RTC) gamma0 as float power, or set the band's GDAL scale."
            )
        if units in ("amplitude", "dB"):
            notes.append(f"stored as {units}, turned into power")
        return Calibration(scale, offset, merged, units or "power"), notes
    elif profile.kind == "optical":
        if own and not np.allclose((scale, offset), (profile.scale, profile.offset), rtol=1e-3, atol=1e-9):
            raise StackError(
                f"its header says scale {scale:g}, offset {offset:g}, but {profile.name} has {profile.scale:g}, "
                f"{profile.offset:g}. Remove the wrong ones, or open it with product='generic'."
            )
        scale, offset = profile.scale, profile.offset
    else:
        if profile.scale != 1.0 or profile.offset != 0.0:
            scale, offset = profile.scale, profile.offset
        return Calibration(float(scale), float(offset), merged, facts.units or profile.units), notes
    return Calibration(float(scale), float(offset), merged, profile.units), notes


def _sentinel2(profile, facts, scale, offset, own):
    """Scale and offset of Sentinel-2 L2A by processing baseline: -1000 DN from 04.00 on, unless taken off already."""
    if profile.offset:
        return profile.scale, profile.offset, ["offset as given with product="]
    if profile.baseline:  # what the caller says beats what the file says
        return profile.scale, -0.1 if profile.baseline >= "04.00" else 0.0, [f"baseline {profile.baseline} as given"]
    if facts.boa_applied == "true":
        return profile.scale, 0.0, ["the catalogue says that the offset was taken off already: none applied"]
    baseline = facts.baseline
    if not baseline:
        if own and np.isclose(scale, 1e-4, rtol=1e-3):
            return profile.scale, float(offset), ["scale and offset from the file's header; its baseline is unknown"]
        raise StackError(
            "its Sentinel-2 processing baseline is unknown, so it can't be told whether reflectance is DN/10000 "
            "(before 04.00) or (DN-1000)/10000. Set the tag processing_baseline, keep the SAFE name, or open it with "
            "product='sentinel2-l2a@05.10' (or @02.14)."
        )
    expected = -0.1 if baseline >= "04.00" else 0.0
    if own and not np.isclose(float(offset), expected, atol=1e-6):
        raise StackError(
            f"processing baseline {baseline} means an offset of {expected:g}, but its header or catalogue says "
            f"{offset:g}. One of them is wrong: correct it, or say product='sentinel2-l2a@...'."
        )
    return profile.scale, expected, [f"offset by processing baseline {baseline}"]


def check_values(
    values, *, band: str, profile: Profile, facts, calibrated: Calibration
) -> tuple[Calibration, list[str]]:
    """The calibration, after a look at some stored values; StackError where they can't be what they are taken for.

    Parameters
    ----------
    values : 1-D, stored numbers of one band, nodata included
    """
    known = values[np.isfinite(values.astype(np.float64))]
    for missing in calibrated.nodata:
        known = known[known != missing]
    if known.size < 16:
        return calibrated, []
    real = known.astype(np.float64) * calibrated.scale + calibrated.offset
    median = float(np.median(real))
    sar = profile.kind == "sar" or band in SAR_BANDS
    if sar and calibrated.units != "dB":
        if median < 0:
            raise StackError(
                f"band {band} has a median of {median:.2f}: that is dB, and linear power is expected. Convert it with "
                "10 ** (dB / 10), or set the tag units=dB."
            )
        if median > 30:
            raise StackError(
                f"band {band} has a median of {median:.4g}; backscatter in linear power lies about 0.001-1. These are "
                "uncalibrated counts or scaled values: set the band's GDAL scale, or give RTC power."
            )
    if band in OPTICAL_BANDS or re.fullmatch(r"b(0?\d|1[0-2]|8a)", band):
        if profile.name == "sentinel2-l2a" and calibrated.offset < 0:
            # over water a correct product has some values of -0.02; far below that they had no 1000 added
            below = float((real < -0.05).mean())
            if below > 0.05 and facts.boa_applied:
                note = f"{DOUBT}{below:.0%} of {band} would be negative: the offset was taken off already, flag or not"
                return replace(calibrated, offset=0.0), [note]
            if below > 0.05:
                raise StackError(
                    f"{below:.0%} of band {band} would be below -0.05 with the offset of {calibrated.offset:g}: it "
                    "seems to be applied already. If so, open it with product='sentinel2-l2a@02.14', or correct it."
                )
        if median > 1.6:
            raise StackError(
                f"band {band} has a median of {median:.4g}, and reflectance lies in 0-1: digital numbers with no known "
                "scale. Name the product (product='sentinel2-l2a@05.10', ...) or set the band's GDAL scale and offset."
            )
    return calibrated, _doubts(known, band, profile, facts, calibrated)


def _doubts(known, band, profile, facts, calibrated):
    notes = []
    if profile.name == "sentinel2-l2a" and facts.boa_applied == "true" and not calibrated.offset:
        if known.size >= 1000 and (known >= 1000).all():
            notes.append(f"{DOUBT}the offset is said to be taken off, but no value of {band} is below 1000")
    elif profile.name == "generic" and profile.kind != "sar":
        for value in (0, -9999, -32768, 32767, 65535):
            share = float((known == value).mean())
            if share >= 0.02:
                notes.append(f"{DOUBT}{share:.0%} of {band} are {value} and no nodata is declared: taken as values")
        if band == "band1" and known.dtype.kind in "iu" and calibrated.scale == 1 and np.median(known) > 1.6:
            notes.append(f"{DOUBT}bands have no names and no scale, their integers are taken as they are: "
                         "set description and scale, or name the product")  # fmt: skip
    return notes
