"""What a real QGIS makes of one layer's folder: run by the Python that has QGIS, prints JSON.

    QT_QPA_PLATFORM=offscreen python3 tests/clients/qgis_bundle.py FOLDER [PICTURE.png [SCENE.tif]]

Opens `changes.qlr` as a user would by double click, and every raster by itself; says of each layer whether it is
valid, its CRS, renderer, classes, extent and temporal properties, and of the polygons how many there are, their fields
and whether each lies on pixels that changed. PICTURE: all layers of the project drawn
together, or the polygons over a scene.
"""

import json
import os
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsCoordinateTransform,
    QgsDateTimeRange,
    QgsFeatureRequest,
    QgsLayerDefinition,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRenderContext,
    QgsVectorLayer,
    QgsVectorLayerTemporalContext,
)
from qgis.PyQt.QtCore import QDate, QDateTime, QSize, Qt, QTime


def told(layer):
    temporal = layer.temporalProperties()
    out = {
        "name": layer.name(),
        "kind": "vector" if isinstance(layer, QgsVectorLayer) else "raster",
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "renderer": layer.renderer().type() if layer.renderer() else None,
        "extent": [round(v, 3) for v in (layer.extent().xMinimum(), layer.extent().yMinimum(),
                                         layer.extent().xMaximum(), layer.extent().yMaximum())],
        "temporal": bool(temporal and temporal.isActive()),
    }  # fmt: skip
    if out["kind"] == "vector":
        out["n"] = layer.featureCount()
        out["fields"] = {f.name(): f.typeName() for f in layer.fields()}
        out["classes"] = len(layer.renderer().categories()) if hasattr(layer.renderer(), "categories") else None
        out["temporal_fields"] = [temporal.startField(), temporal.endField()]
        out["all_drawn"] = all_drawn(layer)
        out["valid_geometries"] = all(f.geometry().isGeosValid() for f in layer.getFeatures())
    else:
        renderer = layer.renderer()
        out["classes"] = len(renderer.classes()) if hasattr(renderer, "classes") else None
        out["nodata"] = layer.dataProvider().sourceHasNoDataValue(1)
    return out


def all_drawn(layer):
    """Whether the style has a symbol for every polygon."""
    context, renderer = QgsRenderContext(), layer.renderer()
    renderer.startRender(context, layer.fields())
    found = []
    for feature in layer.getFeatures():
        context.expressionContext().setFeature(feature)
        found.append(renderer.symbolForFeature(feature, context) is not None)
    renderer.stopRender(context)
    return all(found)


def on_change(polygons, status):
    """Share of polygons inside of which the status raster says changed at some pixel."""
    to = QgsCoordinateTransform(polygons.crs(), status.crs(), QgsProject.instance())
    hit = n = 0
    for feature in polygons.getFeatures():
        point = feature.geometry().pointOnSurface().asPoint()
        value, ok = status.dataProvider().sample(to.transform(QgsPointXY(point)), 1)
        n, hit = n + 1, hit + (ok and value in (3, 4))
    return hit / n if n else None


def played(layer):
    """(date, polygons that the temporal controller shows on that day, polygons whose time that is) of every start."""
    context = QgsVectorLayerTemporalContext()
    context.setLayer(layer)
    spans = [(QDate(f["start_date"]), f["end_date"]) for f in layer.getFeatures()]
    out = []
    for day in sorted({start.toString("yyyy-MM-dd") for start, _ in spans}):
        begin = QDateTime(QDate.fromString(day, "yyyy-MM-dd"), QTime(0, 0), Qt.UTC)
        when = QgsDateTimeRange(begin, begin.addSecs(86399))
        shown = layer.temporalProperties().createFilterString(context, when)
        n = sum(1 for _ in layer.getFeatures(QgsFeatureRequest().setFilterExpression(shown)))
        date = begin.date()
        alive = sum(start <= date and (not end or QDate(end) >= date) for start, end in spans)
        out.append((day, n, alive))
    return out


def draw(layers, path):
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[0].crs())
    settings.setExtent(layers[-1].extent())
    settings.setOutputSize(QSize(900, 900))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(str(path))


def main():
    folder = Path(sys.argv[1]).resolve()
    app = QgsApplication([], False)
    app.initQgis()
    project = QgsProject.instance()
    ok, message = QgsLayerDefinition.loadLayerDefinition(str(folder / "changes.qlr"), project, project.layerTreeRoot())
    tree = [node.layer() for node in project.layerTreeRoot().findLayers()]
    report = {"qlr": {"ok": ok, "message": message, "layers": [told(layer) for layer in tree]}, "rasters": []}
    for path in sorted(folder.glob("*.tif")):
        layer = QgsRasterLayer(str(path), path.stem)
        layer.loadDefaultStyle()
        report["rasters"].append(told(layer))
    vectors = [layer for layer in tree if isinstance(layer, QgsVectorLayer)]
    status = QgsRasterLayer(str(folder / "status.tif"), "status")
    report["polygons_on_change"] = on_change(vectors[0], status) if vectors else None
    alone = QgsVectorLayer(str(folder / "changes.gpkg") + "|layername=changes", "changes", "ogr")
    report["gpkg"] = told(alone)
    report["played"] = played(vectors[0]) if vectors else None
    if len(sys.argv) > 2:
        scene = [QgsRasterLayer(path, "scene") for path in sys.argv[3:]]
        draw([*vectors, *scene] if scene else tree, sys.argv[2])
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    # taking QGIS down in order crashes in some of its versions
    os._exit(0)


main()
