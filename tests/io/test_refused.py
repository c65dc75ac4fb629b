"""A raster that can't be used as a scene: what it holds is said all the same."""

import socket

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geoalign import cli
from geoalign.io.refused import holds


def write(path, *, crs="EPSG:32633", dtype="uint16", names=("red", "nir"), nodata=0):
    options = {} if crs is None else {"crs": crs, "transform": from_origin(500000, 5400000, 10, 10)}
    with rasterio.open(
        path, "w", driver="GTiff", width=40, height=30, count=len(names), dtype=dtype, nodata=nodata, **options
    ) as out:
        out.write(np.full((len(names), 30, 40), 700, dtype))
        for k, name in enumerate(names, 1):
            if name:
                out.set_band_description(k, name)


def test_size_bands_type_place_and_nodata_are_told(tmp_path):
    write(tmp_path / "a.tif")
    write(tmp_path / "b.tif", crs=None, dtype="float32", names=("", ""), nodata=None)
    (tmp_path / "c.tif").write_bytes(b"<html>not found</html>")
    told = dict(holds(tmp_path))
    assert told == {
        "a.tif": "40 x 30 px; red nir, uint16; EPSG:32633, pixel 10; nodata 0",
        "b.tif": "40 x 30 px; band1 band2, float32; no CRS; no nodata declared",
    }
    assert holds(tmp_path / "a*.tif") == [("a.tif", told["a.tif"])]


def test_info_tells_it_once_beside_the_reason(tmp_path, capsys):
    write(tmp_path / "undated.tif")
    assert cli.main(["info", str(tmp_path / "undated.tif")]) == 4
    said = capsys.readouterr()
    assert said.out == "undated.tif: 40 x 30 px; red nir, uint16; EPSG:32633, pixel 10; nodata 0\n"
    assert said.err.count("no acquisition date was found") == 1


def test_integers_without_names_and_scale_are_a_doubt(tmp_path, capsys):
    write(tmp_path / "scene_20240503.tif", names=("", ""))
    assert cli.main(["info", str(tmp_path)]) == 0
    assert "check: bands have no names and no scale" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["scene_20240503.tif", "scene_20240503.vrt"])
def test_what_is_refused_is_not_opened_to_be_told_of(tmp_path, capsys, name):
    """A VRT, plain or in disguise, would have GDAL ask whomever it names."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        url = f"/vsicurl/http://127.0.0.1:{server.getsockname()[1]}/a.tif"
        (tmp_path / name).write_text(
            '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f"<SourceFilename>{url}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
        )
        assert holds(tmp_path) == holds(tmp_path / name) == []
        assert cli.main(["info", str(tmp_path / name)]) == 4
        with pytest.raises(TimeoutError):
            server.accept()
    assert "4 x 4 px" not in capsys.readouterr().out
