"""An object store beside the site: readers follow one object to a generation that is there in whole."""

import hashlib
import json
import signal

import fsspec
import pytest

from geoalign.errors import ConfigError
from geoalign.monitor import LEDGER, Monitor, mirror
from geoalign.monitor.ledger import Ledger
from tests.monitor.test_kill import in_child
from tests.monitor.watched import Watched

URL = "memory://bucket/valley"


@pytest.fixture
def bucket():
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def site(tmp_path):
    made = Watched(tmp_path, size=24, n_history=16, n_watched=3, clearing=1, hole=(6, 14, 8, 18))
    made.write_site(f'mirror = "{URL}"\nkeep = 2\n')
    made.write_many(made.history())
    return made


def _visit(site):
    return Monitor(site.site, threads=1).visit(now=float(site.times[-1].astype("datetime64[s]").astype(int)))


def _read(bucket, place="/bucket/valley"):
    """The generation that a reader finds, every object held against the manifest."""
    name = json.loads(bucket.cat(f"{place}/{mirror.POINTER}"))["generation"]
    manifest = json.loads(bucket.cat(f"{place}/generations/{name}/manifest.json"))
    for path, told in manifest["files"].items():
        assert hashlib.sha256(bucket.cat(f"{place}/generations/{name}/{path}")).hexdigest() == told["sha256"]
    return name


def test_what_is_published_is_copied_the_pointer_last_and_old_generations_go(site, bucket):
    names = [_visit(site).generation]
    assert _read(bucket) == names[0]
    for k in site.watched():
        site.write(k)
        names.append(_visit(site).generation)
        assert _read(bucket) == names[-1]
    kept = sorted(p.rpartition("/")[2] for p in bucket.ls("/bucket/valley/generations", detail=False))
    assert kept == names[-2:]


def test_a_mirror_that_fails_in_the_middle_holds_nothing_up_and_is_made_good(site, bucket, monkeypatch):
    first = _visit(site).generation
    site.write(site.n_history)
    plain, written = type(bucket).put_file, []

    def failing(self, local, remote, **options):
        written.append(remote)
        if len(written) == 5:
            raise ConnectionError("the store is gone")
        return plain(self, local, remote, **options)

    monkeypatch.setattr(type(bucket), "put_file", failing)
    result = _visit(site)
    assert result.exit_code == 0
    assert any("is behind" in r and "gone" in r for r in result.health["reasons"])
    assert _read(bucket) == first  # readers still find the old generation in whole
    n = len(written)
    again = _visit(site)
    assert not any("is behind" in r for r in again.health["reasons"])
    assert not again.new
    assert _read(bucket) == result.generation
    assert not set(written[:4]) & set(written[n:])  # what was there already was not sent again


@pytest.mark.parametrize("at", ["mirror.copied", "mirror.pointed"])
def test_a_kill_about_the_pointer_leaves_old_or_new_and_the_next_visit_goes_on(at, tmp_path):
    site = Watched(tmp_path / "site", size=24, n_history=16, n_watched=5, clearing=1, hole=(6, 14, 8, 18))
    place = tmp_path / "bucket"
    site.write_site(f'mirror = "file://{place}"\n')
    site.write_many(site.history())
    disk = fsspec.filesystem("file")
    first = _visit(site).generation
    site.write(site.n_history)
    assert in_child(site, at) == signal.SIGKILL
    with Ledger(tmp_path / "site/out/monitor" / LEDGER, readonly=True) as ledger:
        published = ledger.get("generation")
    assert published != first
    assert _read(disk, str(place)) == (first if at == "mirror.copied" else published)
    result = _visit(site)
    assert _read(disk, str(place)) == result.generation


def test_an_unknown_store_is_refused_before_anything_is_done(site):
    site.write_site('mirror = "nowhere://bucket"\n')
    with pytest.raises(ConfigError, match="nowhere"):
        _visit(site)
    site.write_site("", output="s3://bucket/valley")
    with pytest.raises(ConfigError, match="mirror = "):
        _visit(site)
