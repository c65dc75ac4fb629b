"""Who reads while a visit publishes sees one whole generation, the old or the new."""

import hashlib
import json
import threading

import geopandas as gpd
import pytest
import rasterio

from geoalign.monitor import Monitor
from tests.monitor.watched import Watched

READS = 1000


def read_once(latest):
    """One generation as a reader takes it: follow the link once, then the manifest, then what it names."""
    folder = latest.resolve(strict=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        body = (folder / name).read_bytes()
        if entry["sha256"] != hashlib.sha256(body).hexdigest():
            raise AssertionError(f"{name} of {folder.name} is not what its manifest says")
    assert manifest["generation"] == folder.name
    return folder


@pytest.mark.slow
def test_a_thousand_reads_while_visits_publish_see_old_or_new_and_never_a_mixture(tmp_path):
    site = Watched(tmp_path, size=24, n_history=17, n_watched=6, clearing=1, hole=(6, 16, 6, 16))
    site.write_site()
    site.write_many(site.history())
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=0.0)
    latest = monitor.folder / "latest"
    seen, errors, stop = [], [], threading.Event()

    def reader():
        while not stop.is_set() or len(seen) < READS:
            try:
                folder = read_once(latest)
                seen.append(folder.name)
                if len(seen) % 50 == 0:  # as a desktop GIS does
                    gpd.read_file(folder / "alerts" / "alerts.gpkg")
                    with rasterio.open(next(folder.glob("layers/*/status.tif"))) as file:
                        file.read(1)
            except Exception as err:
                errors.append(repr(err))
                return

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    generations = []
    for k in site.watched():
        site.write(k)
        generations.append(monitor.visit(now=float(k)).generation)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(seen) >= READS
    assert len(set(seen)) >= 3
    assert seen[-1] == generations[-1]
