"""QGIS styles: a `.qml` beside each file, and a `.qlr` that opens all of them styled and the polygons in time.

Written for QGIS 3.22 and later. A `.qml` brings colours only; the time settings of a layer travel in the `.qlr`.
"""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np

from geoalign.types.changes import NOT_OBSERVABLE, STATUS

STATUS_COLOURS = {
    0: (240, 240, 240, 255),
    1: (254, 227, 145, 255),
    2: (254, 153, 41, 255),
    3: (215, 48, 31, 255),
    4: (106, 81, 163, 255),
    255: (128, 128, 128, 255),
}
"""Colour of each status code (red, green, blue, alpha): the colour table of `status.tif`."""

_RAMP = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
_DIRECTIONS = {-1: ("down", "#2166ac"), 0: ("mixed", "#f7f7f7"), 1: ("up", "#b2182b")}
_QML_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_QLR_HEAD = "<!DOCTYPE qgis-layer-definition>\n"
_VERSION = "3.22.0"
_DAY_OF_START = "day(\"start_date\" - to_date('1970-01-01'))"
_SHOWN = ("polygons", "date", "status")
_MOST_CLASSES = 8


def write_styles(folder, layers, files, frame=None, *, title: str = "changes") -> Path:
    """Write the `.qml` files and `changes.qlr` into a folder.

    Parameters
    ----------
    folder : where the files lie; links in the `.qlr` are relative to it
    layers : list of `encoding.Layer`
    files : dict name -> Path, of the layers and `polygons`
    frame : GeoDataFrame of the polygons, optional
    title : name of the group of layers

    Returns
    -------
    Path of `changes.qlr`.
    """
    import rasterio

    folder = Path(folder)
    entries = []
    if frame is not None:
        renderer = _polygon_renderer(frame)
        _write(folder / "changes.qml", _qml(renderer, styles="Symbology"), _QML_HEAD)
        entries.append(("polygons", _vector_layer(files["polygons"].name, renderer, frame.crs)))
    order = {name: k for k, name in enumerate(("status", "date"))}
    for layer in sorted(layers, key=lambda item: order.get(item.name, len(order))):
        with rasterio.open(files[layer.name], driver="GTiff") as file:
            renderer, crs = _raster_renderer(layer, file), file.crs
        pipe = ET.Element("pipe")
        pipe.append(renderer)
        _write(folder / f"{Path(layer.file).stem}.qml", _qml(pipe), _QML_HEAD)
        entries.append((layer.name, _raster_layer(layer, pipe, crs)))
    path = folder / "changes.qlr"
    _write(path, _layer_definition(entries, title), _QLR_HEAD)
    return path


def _layer_definition(entries, title):
    root = ET.Element("qlr")
    tree = ET.SubElement(root, "layer-tree-group", {"name": "", "checked": "Qt::Checked", "expanded": "1"})
    group = ET.SubElement(tree, "layer-tree-group", {"name": _text(title), "checked": "Qt::Checked", "expanded": "1"})
    layers = ET.SubElement(root, "maplayers")
    for name, layer in entries:
        attributes = {
            "id": layer.findtext("id"),
            "name": layer.findtext("layername"),
            "source": layer.findtext("datasource"),
            "providerKey": layer.findtext("provider"),
            "checked": "Qt::Checked" if name in _SHOWN else "Qt::Unchecked",
            "expanded": "1" if name in _SHOWN else "0",
        }
        ET.SubElement(group, "layer-tree-layer", attributes)
        layers.append(layer)
    return root


def _vector_layer(file, renderer, crs):
    layer = _map_layer("polygons", f"./{file}|layername=changes", "ogr", crs, {"type": "vector", "geometry": "Polygon"})
    # both dates are fields; a change that has not ended has none, and stays on the map
    time = {"enabled": "1", "mode": "2", "limitMode": "0", "startField": "start_date", "endField": "end_date"}
    time |= {"startExpression": "", "endExpression": "", "durationField": "", "durationUnit": "min"}
    time |= {"fixedDuration": "0", "accumulate": "0"}
    fixed = ET.SubElement(ET.SubElement(layer, "temporal", time), "fixedRange")
    ET.SubElement(fixed, "start")
    ET.SubElement(fixed, "end")
    layer.append(renderer)
    return layer


def _raster_layer(layer, pipe, crs):
    out = _map_layer(layer.name, f"./{layer.file}", "gdal", crs, {"type": "raster"})
    out.append(pipe)
    return out


def _map_layer(name, source, provider, crs, attributes):
    layer = ET.Element("maplayer", attributes)
    ET.SubElement(layer, "id").text = f"geoalign_{uuid.uuid5(uuid.NAMESPACE_URL, source).hex}"
    ET.SubElement(layer, "datasource").text = source
    ET.SubElement(layer, "layername").text = _text(name)
    ET.SubElement(layer, "srs").append(_spatial_reference(crs))
    ET.SubElement(layer, "provider", {"encoding": "UTF-8"} if provider == "ogr" else {}).text = provider
    return layer


def _spatial_reference(crs):
    """QGIS asks the user for the CRS of a layer that comes without this."""
    from pyproj import CRS

    out = ET.Element("spatialrefsys")
    if crs is None:
        return out
    crs = CRS.from_user_input(crs.to_wkt())
    code = crs.to_epsg()
    ET.SubElement(out, "wkt").text = crs.to_wkt()
    ET.SubElement(out, "srid").text = str(code or 0)
    ET.SubElement(out, "authid").text = f"EPSG:{code}" if code else ""
    ET.SubElement(out, "description").text = crs.name
    ET.SubElement(out, "geographicflag").text = "true" if crs.is_geographic else "false"
    return out


def _raster_renderer(layer, file):
    if layer.name == "status":
        shown = {code: ("00" if code == 0 else "ff") for code in STATUS}
        entries = [(code, STATUS[code].replace("_", " "), _hex(STATUS_COLOURS[code]), shown[code]) for code in STATUS]
        renderer = _paletted(entries)
        # not observable is nodata in the file; on the map it should be seen
        renderer.set("nodataColor", ",".join(str(v) for v in STATUS_COLOURS[NOT_OBSERVABLE]))
        return renderer
    if layer.name == "direction":
        return _paletted([(code, label, colour, "ff") for code, (label, colour) in _DIRECTIONS.items()])
    low, high = _range(file)
    if layer.dates:
        # steps of days, whatever the encoding: the numbers between two yyyymmdd are not all dates
        low, high = layer.decode(np.array([low, high])).astype("datetime64[D]").astype(np.int64)
        days = np.unique(np.rint(np.linspace(low, max(high, low + 1), len(_RAMP)))).astype("datetime64[D]")
        stops, labels = layer.encode(days), [str(day) for day in days]
    else:
        stops = np.linspace(low, high if high > low else low + 1, len(_RAMP))
        stops = np.unique(np.rint(stops)) if np.dtype(layer.stored).kind in "iu" else stops
        labels = [f"{stop:.4g}" for stop in stops]
    return _ramp(stops, labels)


def _paletted(entries):
    renderer = ET.Element("rasterrenderer", {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1"})
    palette = ET.SubElement(renderer, "colorPalette")
    for value, label, colour, alpha in entries:
        attributes = {"value": str(value), "label": label, "color": colour, "alpha": str(int(alpha, 16))}
        ET.SubElement(palette, "paletteEntry", attributes)
    return renderer


def _ramp(stops, labels):
    ends = {"classificationMin": f"{stops[0]:.10g}", "classificationMax": f"{stops[-1]:.10g}"}
    attributes = {"type": "singlebandpseudocolor", "band": "1", "opacity": "1", "alphaBand": "-1"}
    renderer = ET.Element("rasterrenderer", attributes | ends)
    shader = ET.SubElement(renderer, "rastershader")
    kind = {"colorRampType": "INTERPOLATED", "classificationMode": "1", "clip": "0", "labelPrecision": "4"}
    ends = {"minimumValue": ends["classificationMin"], "maximumValue": ends["classificationMax"]}
    ramp = ET.SubElement(shader, "colorrampshader", kind | ends)
    for stop, label, colour in zip(stops, labels, _colours(len(stops))):
        ET.SubElement(ramp, "item", {"value": f"{stop:.10g}", "label": label, "color": colour, "alpha": "255"})
    return renderer


def _polygon_renderer(frame):
    """Colour by start date: a class a date where they are few, equal steps of days where they are many."""
    stamps = frame["start_date"].dropna().to_numpy().astype("datetime64[D]")
    days = np.unique(stamps.astype(np.int64))
    if days.size == 0:
        classes = [(0.0, 0.0, "no dated change")]
    elif days.size <= _MOST_CLASSES:
        classes = [(day - 0.5, day + 0.5, _iso(day)) for day in days]
    else:
        edges = np.linspace(days[0], days[-1] + 1, len(_RAMP) + 1)
        inner = np.ceil(edges)
        classes = [(a - 0.5, b - 0.5, f"{_iso(a)} to {_iso(b - 1)}") for a, b in pairwise(inner)]
    attributes = {"type": "graduatedSymbol", "attr": _DAY_OF_START, "graduatedMethod": "GraduatedColor"}
    renderer = ET.Element("renderer-v2", attributes | {"symbollevels": "0", "enableorderby": "0", "forceraster": "0"})
    ranges, symbols = ET.SubElement(renderer, "ranges"), ET.SubElement(renderer, "symbols")
    for k, ((low, high, label), colour) in enumerate(zip(classes, _colours(len(classes)))):
        place = {"lower": f"{low:.6f}", "upper": f"{high:.6f}", "symbol": str(k), "label": label, "render": "true"}
        ET.SubElement(ranges, "range", place)
        symbol = ET.SubElement(symbols, "symbol", {"type": "fill", "name": str(k), "alpha": "0.7", "force_rhr": "0"})
        fill = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
        rgb = ",".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
        look = {"color": f"{rgb},255", "style": "solid", "outline_color": f"{rgb},255", "outline_style": "solid"}
        look |= {"outline_width": "0.4", "outline_width_unit": "MM"}
        options = ET.SubElement(fill, "Option", {"type": "Map"})
        for key, value in look.items():
            ET.SubElement(options, "Option", {"name": key, "value": value, "type": "QString"})
            ET.SubElement(fill, "prop", {"k": key, "v": value})
    return renderer


def _qml(content, styles=None):
    root = ET.Element("qgis", {"version": _VERSION} | ({"styleCategories": styles} if styles else {}))
    root.append(content)
    return root


def _write(path, root, head):
    ET.indent(root)
    path.write_text(head + ET.tostring(root, encoding="unicode") + "\n", encoding="utf-8")


def _range(file):
    """Smallest and largest value, from an overview; 0 and 1 where there are none."""
    scale = max(1, max(file.shape) // 1024)
    shape = (file.count, max(1, file.height // scale), max(1, file.width // scale))
    # not `masked`: GDAL makes a mask of the whole image, without overviews
    values = file.read(out_shape=shape).ravel()
    values = values[np.isfinite(values) & (values != file.nodata)]
    return (values.min(), values.max()) if values.size else (0, 1)


def _iso(day):
    return str(np.datetime64(int(day), "D"))


def _colours(n):
    """n colours along the ramp, as #rrggbb."""
    ramp = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in _RAMP], float)
    at = np.linspace(0, len(_RAMP) - 1, n)
    channels = [np.interp(at, np.arange(len(_RAMP)), ramp[:, k]) for k in range(3)]
    return [_hex(colour) for colour in np.rint(np.stack(channels, axis=1)).astype(int)]


def _text(value):
    """Without the control characters that XML can't hold."""
    return "".join(c for c in str(value) if c.isprintable())


def _hex(colour):
    return "#" + "".join(f"{int(v):02x}" for v in colour[:3])
