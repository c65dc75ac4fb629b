"""Models are renewed on their schedule, by a pure function of the evidence; results name the version they used."""

import json
import shutil
from dataclasses import replace

from geoalign.monitor import Monitor
from geoalign.monitor.alerts import Alert
from tests.monitor.watched import Watched


def _now(site):
    return float(site.times[-1].astype("datetime64[s]").astype(int))


def test_a_renewed_model_keeps_what_was_confirmed_and_tells_it_only_once(tmp_path):
    site = Watched(tmp_path / "late", size=32, n_history=16, n_watched=12, clearing=1, hole=(8, 18, 10, 22))
    site.write_site("refit_days = 70\n")
    site.write_many(site.history())
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=_now(site))
    ks = list(site.watched())
    straight = replace(site, folder=tmp_path / "straight")
    shutil.copytree(site.folder, straight.folder, symlinks=True)
    for part in (ks[:3], ks[5:9], ks[9:], ks[3:5]):  # two scenes of the first model come after the second has begun
        site.write_many(part)
        result = monitor.visit(now=_now(site))
    alerts = [Alert.of(a) for a in json.loads((result.folder / "alerts" / "alerts.json").read_text())["alerts"]]
    (alert,) = [a for a in alerts if a.status == "confirmed"]
    assert alert.baseline == 1
    assert "as baseline 1 left it" in alert.reason
    assert alert.date == str(site.times[ks[1]])[:10]
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["themes"]["clearing"]["baseline"] == 2
    assert len([a for a in alerts if a.status in ("confirmed", "provisional")]) == 1  # the same change is no new one
    for k in ks:
        shutil.copy2(site.folder / "scenes" / f"{site.name(k)}.tif", straight.folder / "scenes")
    other = Monitor(straight.site, threads=1)
    other.visit(now=_now(site))
    assert other.fingerprint() == monitor.fingerprint()
    assert not any(f.status == "bad" for f in monitor.doctor())
