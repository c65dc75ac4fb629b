"""What several rooms of the tests share because it is dear: a site whose baseline is frozen."""

import pytest

from geoalign.monitor import Monitor
from tests.monitor.watched import Watched


@pytest.fixture(scope="session")
def frozen(tmp_path_factory):
    """A site in four tiles whose baseline is frozen, with a clearing from the second watched scene on. To be copied."""
    site = Watched(tmp_path_factory.mktemp("frozen") / "site", size=32, n_history=16, n_watched=6, clearing=1,
                   hole=(8, 18, 10, 22))  # fmt: skip
    site.write_site("tile_px = 16\n")
    site.write_many(site.history())
    Monitor(site.site, threads=1).visit(now=float(site.times[-1].astype("datetime64[s]").astype(int)))
    return site
