"""The demo: scenes whose shifts, changes and dates are known, put through the whole path and measured."""

from __future__ import annotations

import logging
from pathlib import Path

from geoalign import pipeline
from geoalign.config import load_config

log = logging.getLogger("geoalign")


def demo_site() -> Path | None:
    """The site file of the set in a checkout's `data/`: of the one we stand in, or the one the package lies in."""
    for root in (Path.cwd(), Path(__file__).resolve().parent.parent):
        site = root / "data" / "site.toml"
        if site.is_file() and (site.parent / "truth" / "truth.json").is_file():
            return site
    return None


def run_demo(folder="geoalign-demo", *, threads: int | None = None, on_step=None) -> pipeline.Run:
    """Run the demo's site end to end.

    Parameters
    ----------
    folder : where results go; away from a checkout the scenes are simulated there first (`folder/scenes`)
    threads, on_step : as in `pipeline.run`

    Returns
    -------
    Run, with `accuracy` against the truth; `accuracy.json` and `report.html` lie in its folder.

    Examples
    --------
    >>> run_demo("demo").accuracy["detection"]  # doctest: +SKIP
    """
    from geoalign.report import write_report

    folder = Path(folder)
    site = demo_site()
    if site is None:
        from geoalign.simulation import simulate_demo

        log.info("simulating the demo's scenes in %s", folder / "scenes")
        if on_step is not None:
            on_step("simulate")
        simulate_demo(folder / "scenes")
        site = folder / "scenes" / "site.toml"
    config = load_config(site)
    # the results go to the user's folder, and what was planted is known
    changed = {"output": str((folder / "out").resolve()), "truth": str(site.parent / "truth")}
    return pipeline.run(config.model_copy(update=changed), threads=threads, on_step=on_step, then=[write_report])
