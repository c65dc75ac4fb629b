"""README.md beside the layers: what each file holds, in which unit, and what its codes mean."""

from __future__ import annotations

from pathlib import Path

from geoalign.io.encoding import Layer

FIELDS = {
    "id": "stays the same for the same change when it is found again",
    "change_type": "what kind of change",
    "status": "first, provisional, confirmed or ended",
    "start_date": "first changed observation",
    "end_date": "when it was over; empty until then",
    "first_date": "earliest date of any pixel in it",
    "last_date": "latest date of any pixel in it",
    "date_after": "the change came after this day",
    "date_by": "and not after this day",
    "detected_at": "when it was computed, UTC",
    "probability": "mean calibrated probability of its pixels",
    "magnitude": "mean size of the change, in the unit of magnitude.tif",
    "direction": "-1 down, 1 up, 0 mixed",
    "area_ha": "area on the ground, hectares",
    "n_pixels": "pixels in it",
    "sensor": "what saw it",
    "run_id": "the run that found it",
}
"""Field of `changes.gpkg` -> what it says."""


EXTRAS = {
    "date_end": "when it was over; none where it stays",
    "date_peak": "acquisition of its flood on which most of the scene was flooded",
    "date_confirmed": "observation that confirmed it",
    "date_completed": "when what came in its place was complete",
    "noise": "standard deviation of what was followed, where nothing changes",
    "n_changes": "changes found in the whole series",
    "break_date": "first changed observation of each change",
    "break_magnitude": "size of each change",
    "break_probability": "probability of each change",
}
"""Layers that some detectors add -> what they hold, where the layer itself does not say."""


def write_readme(folder, changes, layers: list[Layer], frame=None) -> Path:
    """Write README.md, for who opens the folder in a year and does not know geoalign.

    folder : where the layers lie; changes : the Changes in them; frame : polygons written as `changes.gpkg`, or None
    """
    attrs = changes.attrs
    lines = [
        f"# {_plain(attrs['kind'])}: where and when",
        "",
        f"Found by geoalign {attrs['geoalign_version']} with `{_plain(attrs['detector'])}`. *Changed* is status 3 "
        f"(confirmed) or 4 (ended); 255 could not be observed, which is not the same as no change. `probability` "
        f"assumes that a share {attrs['prior']:g} of the area changes.",
        "",
        "QGIS 3.22 or later: open `changes.qlr`; everything is styled, and the temporal controller plays the polygons "
        "by date. ArcGIS Pro: add `changes.gpkg` and the `.tif` files. STAC: `collection.json`.",
        "",
        "| file | what | unit | no value | codes |",
        "|---|---|---|---|---|",
    ]
    for layer in layers:
        name = Path(layer.file).stem
        title = EXTRAS.get(name, layer.title) if layer.title == name else layer.title
        unit = "" if layer.units in ("1", layer.title) else _plain(layer.units)
        codes = "; ".join(f"{value} {name.replace('_', ' ')}" for value, name in _codes(layer.attrs))
        bands = f", a band for each {layer.dim}" if layer.dim else ""
        lines.append(f"| {layer.file} | {_plain(title)}{bands} | {unit} | {layer.nodata:g} | {codes} |")
    if frame is not None:
        lines += ["", "| field of changes.gpkg | what |", "|---|---|"]
        lines += [f"| {name} | {FIELDS.get(name, '')} |" for name in frame.columns if name != frame.geometry.name]
    path = Path(folder) / "README.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _codes(attrs):
    meanings = str(attrs.get("flag_meanings", "")).split()
    values = attrs.get("flag_values", attrs.get("flag_masks", ()))
    return zip(values if isinstance(values, list) else [values], meanings) if meanings else ()


def _plain(text):
    """One line that can't end a cell of the table."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).replace("|", "/").split())
