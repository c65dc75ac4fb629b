"""The explorer: a map in time with its series, polygons and registration, in a browser or a notebook.

`explore` makes it, `serve` opens it. Everything it needs comes from this machine; what is shown comes from `site`,
`picture` and `story`, which know no widget.
Needs `pip install 'geoalign[viz]'`.
"""

from __future__ import annotations

from pathlib import Path

from geoalign.errors import GeoalignError

HOST = "127.0.0.1"
"""The address served on unless another is asked for: this machine alone can open the page."""


def explore(
    stack, changes=None, *, alignment=None, delivered=None, polygons=None, marks="reference.gpkg", title="geoalign",
    width=940,
):  # fmt: skip
    """A map in time to look at: swipe, series, evidence, polygons, detectors side by side, and how the scenes lie.

    Parameters
    ----------
    stack : Stack (time, y, x), or dict name -> Stack on one grid
        In memory or lazy: only the window that is looked at is read, and of a pixel its own column of chunks.
    changes : Changes (y, x), or dict name -> Changes, optional
        Several are compared side by side.
    alignment : Alignment, or dict by stack, optional
        Opens the registration view.
    delivered : Stack, or dict by stack, optional
        The scenes before alignment and masking: for the flicker, and to show what was masked.
    polygons : GeoDataFrame, or dict by changes, optional
        Made by `geoalign.polygons` where not given.
    marks : path
        Where polygons marked right or wrong are saved, .gpkg or .geojson; `geoalign.accuracy.marked` reads it.
    title : str
    width : int
        Of the whole, px; the default fits a notebook beside JupyterLab's list of files.

    Returns
    -------
    Explorer, which a notebook shows; `.show()` opens it in a browser.

    Raises
    ------
    GeoalignError
        The extra is not installed. StackError: stack and changes do not lie on one grid.

    Examples
    --------
    >>> geoalign.explore(stack, geoalign.detect(stack, "flood"))  # doctest: +SKIP
    """
    need()
    from geoalign.explorer.app import Explorer
    from geoalign.explorer.site import site_of

    site = site_of(stack, changes, alignment=alignment, delivered=delivered, polygons=polygons, title=title)
    return Explorer(site, marks=Path(marks), width=width)


def explore_run(folder, *, marks=None):
    """The Explorer of a run's folder, or of an output folder, whose latest run is taken.

    marks : where marked polygons are saved; reference.gpkg in the run's output folder by default, so that the next run
        finds them too
    """
    return _of_run(folder, marks)()


def serve(runfolder, *, marks=None, port: int = 0, address: str = HOST, browser: bool = True, ready=None) -> None:
    """Serve a run's explorer until interrupted; every page that is opened gets its own, over the same scenes.

    Parameters
    ----------
    runfolder, marks : as in `explore_run`
    port : 0 takes a free one
    address : listened on; anything but the default lets other machines in
    browser : open the page
    ready : called with the page's address just before it is served

    Raises
    ------
    GeoalignError
        The extra is not installed, or the address can't be listened on. StateError: there is no run. NoUsableData: its
        scenes are gone.
    """
    make = _of_run(runfolder, marks)
    make()  # what every page needs is read and compiled before the first is asked for
    from geoalign.explorer.app import start

    start(make, port=port, address=address, browser=browser, ready=ready)


def _of_run(folder, marks):
    need()
    from geoalign.explorer.app import Explorer
    from geoalign.explorer.site import site_of_run

    site = site_of_run(folder)
    home = site.folder.parent.parent if site.folder.parent.name == "runs" else site.folder
    place = Path(marks) if marks is not None else home / "reference.gpkg"
    return lambda: Explorer(site, marks=place)


def need() -> None:
    """GeoalignError naming the extra where what the explorer needs is not installed."""
    try:
        import bokeh
        import panel  # noqa: F401
    except ImportError as err:
        raise GeoalignError(
            f"the explorer needs panel and bokeh ({err.name} is missing): pip install 'geoalign[viz]', in a checkout "
            "pip install '.[viz]'."
        ) from err
    if int(bokeh.__version__.split(".")[0]) < 3:
        raise GeoalignError(f"the explorer needs bokeh 3 or later, found {bokeh.__version__}: pip install -U bokeh.")
