"""The alerts as files: GeoPackage, GeoJSON and GeoParquet with the same fields, and a STAC item that names them."""

from __future__ import annotations

import re
from pathlib import Path

from geoalign.io.stac_out import write_feed_item
from geoalign.io.vector import write_polygons
from geoalign.monitor.alerts import alert_frame
from geoalign.sitecheck import ONLY

FIELDS = {
    "id": "stable: of site, theme, seed pixel and episode; the same under late and refined dates",
    "revision": "how often this alert has been published with another content; id and revision name a delivery",
    "change_type": "what changed",
    "theme": "layer of the site file",
    "status": "first, provisional, confirmed, ended or retracted",
    "reason": "why it has this status",
    "start_date": "first changed observation",
    "end_date": "scene at which nearly all of it was found to be normal again; empty until then",
    "date_after": "last observation before the change",
    "date_by": "observation by which it had changed",
    "detected_at": "scene at which the alert was born, UTC",
    "confirmed_at": "scene at which it was confirmed, UTC",
    "retracted_at": "scene at which it was withdrawn, UTC",
    "probability": "calibrated, mean over its pixels",
    "magnitude": "mean over its pixels, in the units of the theme",
    "direction": "-1 down, 1 up, 0 mixed",
    "area_ha": "on the ground",
    "n_pixels": "extent",
    "n_obs": "usable observations at the seed",
    "sensor": "stack of the site file, where it has several",
    "scenes": "scenes at which its status moved",
    "baseline": "version of the model that saw it",
    "row": "seed pixel",
    "col": "seed pixel",
    "episode": "how many alerts this seed had before",
    "run_id": "generation that published it",
}
"""Fields of the feeds, in order, and what they mean."""

SUFFIXES = {"gpkg": ".gpkg", "geojson": ".geojson", "parquet": ".parquet"}
_NAMES = {
    "kind": "change_type", "date": "start_date", "date_end": "end_date", "date_first": "detected_at",
    "date_confirmed": "confirmed_at", "date_retracted": "retracted_at",
}  # fmt: skip


def feed_frame(alerts, site):
    """Alerts as a table with `FIELDS` and geometry, on the site's grid; all columns also where there is none."""
    frame = alert_frame(alerts, site.geobox).rename(columns=_NAMES)
    sensors = {name: "" if (stack := site.config.stack_of(d)) == ONLY else stack
               for name, d in site.config.layers.items()}  # fmt: skip
    frame["sensor"] = [sensors.get(theme, "") for theme in frame["theme"]]
    frame["run_id"] = site.generation
    for name in ("id", "change_type", "theme", "status", "reason", "sensor", "scenes", "run_id"):
        frame[name] = frame[name].map(plain_text).astype("str")
    return frame[[*FIELDS, "geometry"]]


def plain_text(text) -> str:
    """Text that a spreadsheet takes for text: no control characters, and no formula at its start.

    Examples
    --------
    >>> plain_text("=HYPERLINK(1)"), plain_text("three scenes agree")
    ("'=HYPERLINK(1)", 'three scenes agree')
    """
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", str(text))
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


def write_feeds(folder, alerts, retracted, site) -> dict[str, str]:
    """Write the feeds of one generation; returns name -> file name.

    Parameters
    ----------
    folder : `alerts/` of the staged generation
    alerts : list of Alert, those that stand, with their revisions
    retracted : list of Alert, those withdrawn in this visit: in the feeds once, with their reason
    site : `visit.Site`

    Returns
    -------
    dict: of gpkg, geojson, parquet and stac, those that the site asks for. Without alerts they are valid and empty,
    with all fields.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = site.config.monitor.feeds
    frame = feed_frame([*alerts, *retracted], site)
    out = {}
    for kind, suffix in SUFFIXES.items():
        if kind in wanted:
            out[kind] = write_polygons(frame, folder / f"alerts{suffix}").name
    if "stac" in wanted:
        days = [d for a in (*alerts, *retracted) for d in (a.date, a.date_by, a.date_end) if d]
        counts = frame["status"].value_counts().sort_index()
        path = write_feed_item(
            folder / "item.json",
            site.geobox,
            {kind: (name, f"alerts as {kind}") for kind, name in out.items()},
            name=f"{site.name}-{site.generation}",
            title=f"alerts of {site.name}, generation {site.generation}",
            created=site.created,
            start=min(days, default=None),
            end=max(days, default=None),
            properties={
                "geoalign:site": site.name,
                "geoalign:alerts": {str(k): int(v) for k, v in counts.items()},
                "geoalign:themes": dict(site.themes),
            },
            related=[(f"../layers/{theme}/item.json", f"layers of {theme}") for theme in site.themes]
            + [("../health.json", "health of the site")],
        )
        out["stac"] = path.name
    return out
