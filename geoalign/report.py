"""One self-contained HTML page about a run: what was found, where and when, how well the scenes lie, what was not seen.

The page asks nothing of the network: pictures, styles and the few lines of script are in it. Every text that comes
from data is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from geoalign.io.atomic import atomic
from geoalign.pipeline import DETECTION_COLUMNS, REGISTRATION_COLUMNS, read_run
from geoalign.publish import read_manifest, record_file, resolve
from geoalign.report_page import PAGE, SCRIPT, STYLE
from geoalign.types.changes import WHY_TEXT

MOST_POLYGONS = 30
"""Polygons of a layer that the page lists."""


def write_report(folder, path=None) -> Path:
    """Write the page of a run.

    Parameters
    ----------
    folder : folder of a run, or an output folder, whose latest run is taken
    path : where to write; `report.html` in the run's folder by default

    Returns
    -------
    Path of the page

    Raises
    ------
    StateError
        There is no run in the folder.

    Examples
    --------
    >>> from geoalign.report import write_report
    >>> write_report("out")  # doctest: +SKIP
    PosixPath('out/runs/20240601T000000Z-2f1d0c9a7b65/report.html')
    """
    folder = resolve(folder)
    path = folder / "report.html" if path is None else Path(path)
    page = html_report(folder)
    with atomic(path) as partial:
        partial.write_text(page, encoding="utf-8")
    record_file(folder, path)
    return path


def html_report(folder) -> str:
    """The page of a run as text; see `write_report`."""
    folder = resolve(folder)
    run, document = read_run(folder), read_manifest(folder)
    sections = [
        ("What was found", _found(run, document)),
        ("Where and when", "".join(_layer(folder, name, run, document) for name in run.layers)),
        ("Before and after", _swipes(folder, document)),
        ("How the scenes lie", _registration(run, document)),
        ("Accuracy against the known truth", _accuracy(run)),
        ("What could not be seen", _unseen(run)),
        ("Scenes left out", _skipped(run)),
        ("Scenes", _scenes(document)),
        ("Where this comes from", _provenance(document)),
    ]
    body = "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in sections if text)
    name = escape(str(document["name"]))
    return PAGE.format(title=name, style=STYLE, head=_head(run, document), body=body, script=SCRIPT)


# ---------------------------------------------------------------------------------------------------- the sections


def _head(run, document):
    times = sorted(s["time"] for s in document["scenes"] if s.get("time"))
    span = f"{times[0][:10]} to {times[-1][:10]}" if times else "no scenes"
    used = len(document["scenes"]) - len([s for s in run.skipped if s["scene"] != "*"])
    grid = document["grid"]
    cards = [_card(_kind(layer, name), _area(layer), _card_note(layer)) for name, layer in run.layers.items()]
    frame = run.registration
    if len(frame):
        aligned = frame[frame.status == "aligned"]
        errors = pd.to_numeric(aligned.cv_px, errors="coerce").dropna()
        median = f"{errors.median():.2f} px" if len(errors) else "–"
        cards.append(_card("alignment", median, f"median residual of held-out points, {len(aligned)} scenes aligned"))
    cards.append(_card("scenes", f"{max(used, 0)} of {len(document['scenes'])}", f"used, {span}"))
    width, height = grid["shape"][1], grid["shape"][0]
    text = (
        f"<p class=lead>{escape(span)} · {width} × {height} pixels · {escape(_short_crs(grid['crs']))} · "
        f"pixel {abs(grid['transform'][0]):g} × {abs(grid['transform'][4]):g}</p>"
    )
    notes = [
        f"<p class=bad><b>{escape(name)}</b> could not work: {escape(reason)}</p>"
        for name, reason in run.failed.items()
    ]
    return text + f"<div class=cards>{''.join(cards)}</div>" + "".join(notes)


def _card(label, figure, note):
    inner = (
        f"<div class=label>{escape(label)}</div><div class=figure>{figure}</div><div class=note>{escape(note)}</div>"
    )
    return f"<div class=card>{inner}</div>"


def _kind(layer, name):
    return layer["kind"] if layer["stack"] == "scenes" else f"{layer['kind']} · {layer['stack']}"


def _area(layer):
    pixels = layer["pixels"]["confirmed"] + layer["pixels"]["ended"]
    if layer["area_ha"] is None:
        return f"{pixels:,} px"
    return f"{layer['area_ha']:,.1f} ha" if layer["area_ha"] < 1000 else f"{layer['area_ha']:,.0f} ha"


def _card_note(layer):
    days = list(layer["dates"])
    polygons = f"{layer['polygons']} polygon" + ("" if layer["polygons"] == 1 else "s")
    if not days:
        return f"{polygons}, no dates"
    return f"{polygons}, {days[0]}" + (f" to {days[-1]}" if days[-1] != days[0] else "")


def _median_day(dates):
    if not dates:
        return "–"
    counts = np.cumsum(list(dates.values()))
    return list(dates)[int(np.searchsorted(counts, counts[-1] / 2))]


def _ends(days):
    return (days[0], days[-1]) if days else ("–", "–")


def _found(run, document):
    rows = []
    for name, layer in run.layers.items():
        total = sum(layer["pixels"].values()) or 1
        days = list(layer["dates"])
        rows.append(
            [
                escape(name),
                escape(layer["kind"]),
                escape(layer["stack"]),
                _area(layer),
                f"{layer['polygons']:,}",
                *(f"<span class=d>{d}</span>" for d in (_ends(days)[0], _median_day(layer["dates"]), _ends(days)[1])),
                f"{100 * layer['pixels']['not_observable'] / total:.1f} %",
                f"<code>{escape(layer['repr'])}</code>",
            ]
        )
    head = [
        "layer",
        "change",
        "stack",
        "area",
        "polygons",
        "first date",
        "median date",
        "last date",
        "not seen",
        "detector",
    ]
    note = "<p class=note>Dates are those of the first changed observation (UTC). Areas count changed pixels.</p>"
    return _table(head, rows, numeric=(3, 4, 8)) + note


def _layer(folder, name, run, document):
    from geoalign import plot
    from geoalign.io import read_changes

    layer = run.layers[name]
    changes = read_changes(folder / "layers" / name)
    figure = plot.change_dates(changes, background=_background(folder, layer, document), title="")
    alt = f"Map of the dates of {layer['kind']} found in {layer['stack']}"
    parts = [f"<figure class=map>{_webp(figure, alt)}<figcaption>{escape(alt)}.</figcaption></figure>"]
    if layer["dates"]:
        n = layer["pixels"]["confirmed"] + layer["pixels"]["ended"]
        pixel_ha = None if layer["area_ha"] is None else layer["area_ha"] / n
        chart = _svg(plot.date_histogram(layer["dates"], pixel_ha=pixel_ha), f"Histogram of the dates of {name}")
        parts.append(f"<figure class=chart>{chart}<figcaption>Changed area by date of change.</figcaption></figure>")
    parts[1:] = [f"<div>{''.join(parts[1:])}{_polygons(folder / 'layers' / name)}</div>"]
    links = ", ".join(
        f'<a href="{escape(place, quote=True)}">{escape(Path(place).name)}</a>'
        for place in sorted(set(layer["files"].values()))
    )
    files = f"<p class=note>Files beside this page: {links}</p>"
    return f"<article><h3>{escape(name)}</h3><div class=pair>{''.join(parts)}</div>{files}</article>"


def _polygons(folder):
    """The largest polygons of a layer: when, how sure, how large and where, sortable by each."""
    import geopandas as gpd

    path = folder / "changes.gpkg"
    frame = gpd.read_file(path, use_arrow=True) if path.is_file() else None
    if frame is None or frame.empty:
        return ""
    largest = frame.sort_values(["area_ha", "id"], ascending=[False, True]).head(MOST_POLYGONS)
    places = largest.geometry.representative_point()
    places = places.to_crs(4326) if frame.crs is not None else places
    rows = []
    for record, place in zip(largest.itertuples(index=False), places):
        where = f"{place.y:.4f}, {place.x:.4f}"
        if frame.crs is not None:
            link = f"https://www.openstreetmap.org/?mlat={place.y:.5f}&mlon={place.x:.5f}#map=15/{place.y:.5f}/{place.x:.5f}"
            where = f'<a href="{escape(link, quote=True)}" rel=noreferrer title="Open a map here">{where}</a>'
        dates = (_day(value) for value in (record.start_date, record.date_after, record.date_by, record.end_date))
        rows.append(
            [
                *(f"<span class=d>{day}</span>" for day in dates),
                _number(record.area_ha, 2),
                _number(record.probability, 2),
                _number(record.magnitude, 2, sign=True),
                f"<span class=d>{where}</span>",
            ]
        )
    head = ["first seen", "after", "by", "ended", "ha", "p", "size", "lat, lon"]
    left = f"; the other {len(frame) - len(rows):,} are in changes.gpkg" if len(frame) > len(rows) else ""
    note = (
        f"<p class=note>{len(rows)} polygons, the largest first{left}. The change lies after one "
        f"and by the other date; p: probability, size: magnitude. A click on a heading sorts.</p>"
    )
    return _table(head, rows, numeric=(4, 5, 6), sortable=True) + note


def _day(value):
    return "–" if pd.isna(value) else str(pd.Timestamp(value).date())


def _background(folder, layer, document):
    from matplotlib.image import imread

    record = document["pictures"].get(layer["stack"])
    path = None if record is None else folder / record["after"]
    return imread(path) if path is not None and path.is_file() else None


def _swipes(folder, document):
    parts = []
    for name, record in document["pictures"].items():
        before, after = (_embedded(folder / record[key]) for key in ("before", "after"))
        if not before or not after:
            continue
        title, bands = escape(name), escape(record["bands"])
        old, new = escape(record["before_dates"]), escape(record["after_dates"])
        parts.append(
            f"<figure class=swipe><div class=frame>"
            f'<img src="{before}" alt="{title} before, {old}"><img class=top src="{after}" alt="{title} after, {new}">'
            f"<span class=tag>before · {old}</span><span class='tag right'>after · {new}</span><i></i></div>"
            f'<input type=range min=0 max=100 value=50 aria-label="Move between before and after, {title}">'
            f"<figcaption>{title}: median of the scenes at each end ({bands}), one stretch for both.</figcaption>"
            "</figure>"
        )
    return f"<div class=pair>{''.join(parts)}</div>" if parts else ""


def _registration(run, document):
    from geoalign import plot

    if not len(run.registration):
        return "<p>Scenes were taken as they lie; alignment was turned off.</p>"
    parts = []
    for stack, frame in run.registration.groupby("stack", sort=False):
        frame = frame.reset_index(drop=True)
        rows = []
        for row in frame.itertuples():
            status = escape(str(row.status))
            if row.status not in ("aligned", "reference"):
                status = f"<span class=bad>{status}</span>"
            numbers = [
                _number(v, 2, sign)
                for v, sign in ((row.dy, True), (row.dx, True), (row.rmse_px, False), (row.cv_px, False))
            ]
            # a run of an older version has no circular error
            metres = [_number(row.cv_m, 1), _number(getattr(row, "ce90_m", None), 1)]
            points = "–" if pd.isna(row.n_points) else f"{int(row.n_points):,}"
            sigma = _number(row.sigma_px, 3)
            rows.append(
                [
                    escape(str(row.scene)),
                    status,
                    *numbers,
                    *metres,
                    points,
                    sigma,
                    *(_text(v) for v in (row.method, row.model, row.reason)),
                ]
            )
        head = [
            "scene",
            "status",
            "dy (px)",
            "dx (px)",
            "RMSE (px)",
            "held out (px)",
            "held out (m)",
            "CE90 (m)",
            "points",
            "σ (px)",
            "matcher",
            "model",
            "reason",
        ]
        chart = _svg(plot.registration(frame), f"Displacement and residuals of the scenes of {stack}")
        times = {s["scene"]: s["time"] for s in document["scenes"] if s["stack"] == stack and s.get("time")}
        known = times if set(frame["scene"].astype(str)) <= set(times) else None
        drift = _svg(plot.drift(frame, known), f"Displacement over time of the scenes of {stack}, with its error")
        parts.append(
            f"<article><h3>{escape(str(stack))}</h3><div class=pair><figure class=chart>{chart}</figure>"
            f"<figure class=chart>{drift}<figcaption>Drift: mean displacement over time, bars 1 sigma.</figcaption>"
            "</figure></div>"
            f"{_table(head, rows, numeric=range(2, 10))}</article>"
        )
    note = (
        "<p class=note>dy, dx: where in the scene a reference pixel was found, mean over the valid area. RMSE: "
        "residual of the tie points used in the fit. Held out: of points not used in it; CE90: the length that nine "
        "tenths of their residuals do not exceed. σ: predicted 1-sigma error of the alignment, an axis.</p>"
    )
    return "".join(parts) + note


def _accuracy(run):
    parts = []
    if run.accuracy.get("detection"):
        frame = _chosen(run.accuracy["detection"], DETECTION_COLUMNS)
        for name in ("precision", "recall", "f1"):
            ends = [[record.get(f"{name}_{end}") for end in ("low", "high")] for record in run.accuracy["detection"]]
            frame[name] = [_with_interval(value, *pair) for value, pair in zip(frame[name], ends)]
        note = (
            "<p class=note>In brackets the 95 % interval, from blocks of the image drawn again and again: "
            "neighbouring pixels err together.</p>"
        )
        parts.append("<h3>Changes</h3>" + _frame(frame) + note)
    if run.accuracy.get("registration"):
        frame = _chosen(run.accuracy["registration"], REGISTRATION_COLUMNS)
        worst = frame.rmse_px.max() if "rmse_px" in frame else float("nan")
        summary = f"Alignment: residual against the true warp, {len(frame)} scenes, the worst {_number(worst, 2)} px"
        parts.append(f"<details><summary>{summary}</summary>{_frame(frame)}</details>")
    return "".join(parts)


def _with_interval(value, low, high):
    text = _number(value, 3)
    return text if low is None or not np.isfinite(low) else f"{text} [{_number(low, 3)}, {_number(high, 3)}]"


def _chosen(records, columns):
    frame = pd.DataFrame(records)
    return frame[[name for name in columns if name in frame]]


def _unseen(run):
    rows = []
    for name, layer in run.layers.items():
        total = sum(layer["pixels"].values()) or 1
        n = layer["pixels"]["not_observable"]
        reasons = "; ".join(f"{WHY_TEXT.get(k, k)}: {v:,}" for k, v in layer["why"].items()) or "–"
        rows.append([escape(name), f"{n:,}", f"{100 * n / total:.2f} %", escape(reasons)])
    note = (
        "<p class=note>A pixel that could not be seen is not a pixel without change. Reasons also count pixels whose "
        "answer is doubtful, so they can add up to more.</p>"
    )
    return _table(["layer", "pixels", "share", "pixels by reason"], rows, numeric=(1, 2)) + note


def _skipped(run):
    if not run.skipped:
        return "<p>None: every scene was used.</p>"
    rows = [
        [
            escape(s["stack"]),
            "all" if s["scene"] == "*" else escape(s["scene"]),
            "not usable" if s["kind"] == "empty" else s["kind"],
            escape(s["reason"]),
        ]
        for s in run.skipped
    ]
    return _table(["stack", "scene", "what", "reason"], rows)


def _scenes(document):
    rows = []
    for s in document["scenes"]:
        applied = s.get("applied") or {}
        note = "; ".join(
            f"{k} {applied[k]}"
            for k in ("product", "scale", "offset", "nodata", "mask")
            if applied.get(k) not in (None, "", [])
        )
        clear = "–" if s["clear"] is None else f"{100 * s['clear']:.0f} %"
        rows.append(
            [
                escape(s["stack"]),
                escape(s["scene"]),
                escape(s["time"].replace("T", " ")),
                escape(s["sensor"] or "–"),
                clear,
                escape(note),
            ]
        )
    table = _table(["stack", "scene", "time (UTC)", "sensor", "clear", "applied when opened"], rows, numeric=(4,))
    return f"<details><summary>{len(rows)} scenes, their clear share and what was applied</summary>{table}</details>"


def _provenance(document):
    import json

    timings = [[escape(k), f"{v:.1f} s"] for k, v in document["timings"].items()]
    versions = " · ".join(f"{escape(k)} {escape(v)}" for k, v in document["versions"].items())
    configuration = escape(json.dumps(document["configuration"], indent=1))
    return (
        f"<p>Run <code>{escape(document['run_id'])}</code>, {escape(document['started'])}. "
        f"Python {escape(document['python'])}, {escape(document['platform'])}. "
        f"Peak memory so far {document['peak_rss_mb']:,.0f} MB.</p><p class=note>{versions}</p>"
        f"<details><summary>Time taken by each step</summary>{_table(['step', 'time'], timings, (1,))}</details>"
        f"<details><summary>Configuration</summary><pre>{configuration}</pre></details>"
        "<p class=note>Inputs and outputs with their checksums: <a href='manifest.json'>manifest.json</a>.</p>"
    )


# ----------------------------------------------------------------------------------------------------- small things


def _table(head, rows, numeric=(), *, sortable=False):
    numeric = set(numeric)
    cells = "".join(f"<th{' class=n' if i in numeric else ''}>{h}</th>" for i, h in enumerate(head))
    lines = "".join(
        "<tr>" + "".join(f"<td{' class=n' if i in numeric else ''}>{c}</td>" for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    kind = " class=sortable" if sortable else ""
    return f"<div class=scroll><table{kind}><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>"


def _frame(frame):
    """A DataFrame as a table: numbers to three digits, texts escaped."""
    numeric = [i for i, c in enumerate(frame.columns) if pd.api.types.is_numeric_dtype(frame[c])]
    rows = []
    for record in frame.itertuples(index=False):
        rows.append([_cell(value) for value in record])
    return _table([escape(str(c).replace("_", " ")) for c in frame.columns], rows, numeric=numeric)


def _cell(value):
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return (
            "–"
            if not np.isfinite(value)
            else f"{int(value):,}"
            if value == int(value) and abs(value) >= 10
            else f"{value:.3f}"
        )
    return _text(value)


def _number(value, digits, sign=False):
    value = float("nan") if value is None else float(value)
    return f"{value:{'+' if sign else ''}.{digits}f}" if np.isfinite(value) else "–"


def _text(value):
    return "–" if value is None or value == "" or (isinstance(value, float) and np.isnan(value)) else escape(str(value))


def _short_crs(text):
    return text if len(text) < 40 else text.split('"')[1] if '"' in text else text[:40]


def _webp(figure, alt):
    stream = io.BytesIO()
    figure.savefig(stream, format="webp", dpi=130, facecolor="white", pil_kwargs={"quality": 84})
    return f'<img src="{_data(stream.getvalue(), "image/webp")}" alt="{escape(alt, quote=True)}">'


def _svg(figure, alt):
    """A chart as inline SVG whose black becomes the page's text colour, so that it suits light and dark.

    alt : unlike that of every other chart on the page
    """
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "geoalign"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    text = text.replace('<g id="figure_1">', '<g fill="currentColor">', 1)
    # what HTML does not allow within it: RDF, and style that would hold for the whole page
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    # a name is one thing's on the whole page: only what is referred to keeps one, with the chart's mark before it
    used, mark = set(re.findall(r'(?:href="|url\()#([\w.-]+)', text)), hashlib.sha1(alt.encode()).hexdigest()[:8]
    text = re.sub(r' id="([\w.-]+)"', lambda found: f' id="c{mark}{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'((?:href="|url\()#)([\w.-]+)', rf"\g<1>c{mark}\2", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt, quote=True)}" ', 1)


def _embedded(path):
    return _data(path.read_bytes(), "image/webp") if path.is_file() else ""


def _data(content, kind):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
