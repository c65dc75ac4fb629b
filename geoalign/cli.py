"""The command line: parse, one public call, a short summary. Results go to stdout, logs to stderr."""

from __future__ import annotations

import json as jsonlib
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from geoalign import showing, terminal
from geoalign.errors import ConfigError, GeoalignError

log = logging.getLogger("geoalign")

FOREIGN = ("GDAL_DATA", "PROJ_DATA", "PROJ_LIB", "GDAL_DRIVER_PATH")
"""Variables of another GDAL or PROJ on the machine: they would point our wheels to data of the wrong version."""

cleared: dict[str, str] = {}

app = typer.Typer(
    name="geoalign",
    help="Find and date what changed on the ground, in aligned satellite time series. "
    "Exit codes: 0 done, 1 failure, 2 usage or configuration, 3 done but some scenes were left out, 4 no usable data, "
    "75 locked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Machine-readable results on stdout.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; all processors by default.")]
Site = Annotated[Path, typer.Argument(help="The site's TOML file.", show_default=False)]
Scenes = Annotated[str, typer.Argument(help="Folder, file or pattern of scenes, or a catalogue.", show_default=False)]
Product = Annotated[str, typer.Option(help="Product profile; auto looks at each file.")]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. Every error is one line unless --debug is given."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # these mean the same wherever they stand in the line
    front = [a for a in argv if a in ("-v", "-q", "--verbose", "--quiet", "--debug")]
    argv = front + [a for a in argv if a not in front]
    # dask's threads are the parallelism: linear algebra on small matrices in threads of its own only spins
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in FOREIGN:
        if name in os.environ:
            cleared[name] = os.environ.pop(name)
    debug = "--debug" in front
    before = log.handlers, log.level, log.propagate
    try:
        code = _code(app(argv, standalone_mode=False))
        if code == 130:  # typer has caught Ctrl-C itself
            terminal.say("stopped.")
        return code
    except (typer.Abort, KeyboardInterrupt):
        terminal.say("stopped.")
        return 130
    except SystemExit as stop:  # SIGTERM, see monitor.command.terminable
        terminal.say("stopped.")
        return _code(stop.code)
    except GeoalignError as err:
        if debug:
            raise
        terminal.say(f"error: {err}")
        return err.exit_code
    except Exception as err:
        if debug:
            raise
        if hasattr(err, "show") and hasattr(err, "exit_code"):  # what typer says about wrong usage
            err.show()
            return int(err.exit_code)
        if isinstance(err, MemoryError):
            terminal.say("error: not enough memory. Use fewer --threads, a smaller bbox, or more memory.")
        elif isinstance(err, OSError):
            terminal.say(f"error: {err}")
        else:
            terminal.say(
                f"error: {type(err).__name__}: {err}. This should not happen: run again with --debug and report it."
            )
        return 1
    finally:  # a program that calls this keeps its own logging
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])


def _code(result) -> int:
    return result if isinstance(result, int) else 0


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    bar = sys.stderr.isatty()
    level = logging.DEBUG if verbose or debug else logging.ERROR if quiet else logging.WARNING if bar else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(_Once())
    log.handlers = [handler]
    log.setLevel(level)
    log.propagate = False
    for name, value in cleared.items():
        log.debug("%s=%s belongs to another GDAL or PROJ and is ignored", name, value)


class _Once(logging.Filter):
    """Lets a warning through once: scenes are opened again where they are resampled, and say the same again."""

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record):
        text = record.getMessage()
        if record.levelno == logging.WARNING and text in self.seen:
            return False
        self.seen.add(text)
        return True


# ---------------------------------------------------------------------------------------------------- the commands


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything is written.")] = Path("geoalign-demo"),
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Show everything at work: scenes with planted shifts and changes, found again and measured."""
    from geoalign.demo import run_demo
    from geoalign.pipeline import DETECTION_COLUMNS, REGISTRATION_COLUMNS
    from geoalign.progress import progress

    with progress() as on_step:
        result = run_demo(folder, threads=threads, on_step=on_step)
    if json:
        return terminal.print_json(showing.run_document(result)) or _demo_code(result)
    accuracy = result.accuracy
    terminal.table("Alignment: residual against the true warp", accuracy["registration"], REGISTRATION_COLUMNS)
    terminal.table("Changes against the truth", accuracy["detection"], DETECTION_COLUMNS)
    showing.run_summary(result)
    latest = folder / "out" / "latest"
    terminal.out(f"next      open {latest / 'report.html'} in a browser, or in QGIS")
    terminal.out(f"          {latest / 'layers' / 'flood-sar' / 'changes.qlr'}; or look around:")
    terminal.out(f"          geoalign explore {folder}   (pip install '.[viz]' first)")
    return _demo_code(result)


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(help="Where the scenes and their truth are written.", show_default=False)],
    size: Annotated[
        int | None, typer.Option(min=32, help="Side of the scenes, px; 256, with --monitoring 128.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same scenes.")] = 0,
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="A site to be watched, with the disorder of real deliveries.")
    ] = False,
    json: Json = False,
) -> int:
    """Write simulated optical and SAR scenes with known shifts, changes and dates, and a site file for them."""
    from geoalign.publish import make_folder
    from geoalign.simulation import simulate as make

    make_folder(folder)
    if monitoring:
        return _simulate_monitoring(folder, size or 128, seed, json)
    size = size or 256
    made = make(folder, size=size, seed=seed)
    counts = {sensor: len(made.recipe.of(sensor)) for sensor in ("optical", "sar")}  # asks for no pixel
    document = {
        "folder": str(folder),
        "site": str(folder / "site.toml"),
        "truth": str(folder / "truth"),
        "scenes": counts,
    }
    if json:
        return terminal.print_json(document)
    terminal.out(f"{counts['optical']} optical and {counts['sar']} SAR scenes of {size} x {size} px in {folder}")
    terminal.out(f"next: geoalign run {folder / 'site.toml'}")
    return 0


def _simulate_monitoring(folder, size, seed, json) -> int:
    from collections import Counter

    from geoalign.simulation import simulate_monitoring

    made = simulate_monitoring(folder, size=size, seed=seed)
    counts = dict(Counter(d.what for d in made.deliveries))
    files = {"site": str(made.site), "truth": str(folder / "truth"), "arrivals": str(folder / "arrivals.csv")}
    if json:
        return terminal.print_json({"folder": str(folder), **files, "deliveries": counts})
    terminal.out(
        f"{len(made.deliveries)} deliveries of scenes of {size} x {size} px in {folder}: {terminal.short(counts)}"
    )
    terminal.out(f"next: geoalign monitor replay {made.site}")
    return 0


@app.command()
def info(path: Scenes, product: Product = "auto", json: Json = False) -> int:
    """Say what files hold and what would be applied to them: product, bands, CRS, dates, scale, masks, doubts."""
    from geoalign.errors import NoUsableData
    from geoalign.io import open_stack
    from geoalign.io.refused import holds

    if log.level > logging.DEBUG:
        log.setLevel(logging.ERROR)  # what was left out and what is doubtful is the answer itself
    try:
        stack = open_stack(path, product=product)
    except NoUsableData:
        for name, told in holds(path):
            terminal.out(f"{name}: {told}")
        raise
    return showing.show_stack(stack, path, json)


@app.command()
def init(
    site: Annotated[Path, typer.Argument(help="The site file to write.")] = Path("site.toml"),
    scenes: Annotated[str, typer.Option(help="Folder or pattern of scenes.")] = "scenes/*.tif",
    detector: Annotated[str, typer.Option(help="What to look for first.")] = "flood",
    product: Product = "auto",
) -> int:
    """Write a commented site file, its grid taken from the scenes."""
    from geoalign.new_site import write_site

    path = write_site(site, scenes, detector=detector, product=product)
    terminal.out(f"{path}\nnext: geoalign validate {path} && geoalign run {path} --dry-run")
    return 0


@app.command()
def validate(site: Site, json: Json = False) -> int:
    """Check a site file: everything that is wrong with it at once, with line and key."""
    from geoalign.config import load_config

    try:
        config = load_config(site)
    except ConfigError as err:
        if not json:
            raise
        return terminal.print_json({"valid": False, "problems": list(err.problems)}) or err.exit_code
    if json:
        return terminal.print_json({"valid": True, "problems": [], "configuration": config.plain()})
    detectors = ", ".join(config.layers) or "no detector"
    terminal.out(f"{site} is valid: {', '.join(config.sources)}; {detectors}; results go to {config.output_folder}")
    return 0


@app.command()
def align(
    scenes: Scenes,
    output: Annotated[Path, typer.Option(help="Folder for alignment.json, the tie points and aligned scenes.")] = Path(
        "aligned"
    ),
    reference: Annotated[str, typer.Option(help="auto, median, a scene id, or a raster.")] = "auto",
    matcher: Annotated[str, typer.Option(help="auto, or a matcher's name.")] = "auto",
    model: Annotated[str, typer.Option(help="auto, shift, affine, ...")] = "auto",
    max_shift_px: Annotated[
        float | None, typer.Option(help="How far to search, px; a fifth of the image by default.")
    ] = None,
    resampling: Annotated[str, typer.Option(help="nearest, bilinear, cubic, bspline or lanczos.")] = "cubic",
    product: Product = "auto",
    write: Annotated[bool, typer.Option("--write", help="Write the aligned scenes too, as COGs.")] = False,
    json: Json = False,
) -> int:
    """Align scenes with each other and report how well each lies."""
    from geoalign.align import align_scenes
    from geoalign.progress import progress

    with progress() as on_step:
        on_step("align")
        result = align_scenes(
            scenes, output, product=product, reference=reference, matcher=matcher, model=model,
            max_shift_px=max_shift_px, resampling=resampling, write=write,
        )  # fmt: skip
    rows = jsonlib.loads(result.alignment.report.to_json(orient="records"))
    if json:
        paths = [str(p) for p in result.paths]
        return (
            terminal.print_json(
                {"reference": result.alignment.reference, "report": rows, "skipped": result.skipped, "paths": paths}
            )
            or result.exit_code
        )
    terminal.table(f"reference: {result.alignment.reference}", rows)
    if result.skipped:
        terminal.table("left out", result.skipped)
    terminal.out("\n".join(str(p) for p in result.paths))
    return result.exit_code


@app.command()
def detect(
    scenes: Scenes,
    detector: Annotated[
        str, typer.Argument(help="flood, deforestation, urbanization, omnibus, log_ratio, ...", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out"),
    alpha: Annotated[float | None, typer.Option(help="Chance of a false alarm at a stable pixel.")] = None,
    prior: Annotated[float | None, typer.Option(help="Share of change that is expected.")] = None,
    since: Annotated[str | None, typer.Option(help="Look for change from this date on.")] = None,
    until: Annotated[str | None, typer.Option(help="Look for change up to this date.")] = None,
    history: Annotated[str | None, typer.Option(help="History the season is fitted on.")] = None,
    order: Annotated[int | None, typer.Option(help="Harmonics of the season.")] = None,
    enl: Annotated[float | None, typer.Option(help="Equivalent number of looks.")] = None,
    min_area_m2: Annotated[float | None, typer.Option(help="Smallest polygon, square metres.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Any other option of the detector, as key=value.")
    ] = None,
    register: Annotated[bool, typer.Option(help="Align the scenes first.")] = True,
    product: Product = "auto",
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Find and date change in scenes with one detector: layers, polygons and a report."""
    from geoalign.config import scenes_config
    from geoalign.pipeline import run as run_site
    from geoalign.progress import progress
    from geoalign.report import write_report

    given = {
        "alpha": alpha,
        "prior": prior,
        "since": since,
        "until": until,
        "history": history,
        "order": order,
        "enl": enl,
    }
    options = {k: v for k, v in given.items() if v is not None} | dict(_option(text) for text in option or ())
    config = scenes_config(
        scenes, detector, output, options, product=product, register=register, min_area_m2=min_area_m2 or 0.0
    )
    with progress() as on_step:
        result = run_site(config, threads=threads, on_step=on_step, then=[write_report])
    return showing.show_run(result, json)


@app.command()
def run(
    site: Site,
    output: Annotated[Path | None, typer.Option(help="Where results go; the site's `output` by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; read no pixel.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Do all that a site file says: open, mask, align, detect, export, report."""
    from geoalign import pipeline
    from geoalign.config import load_config
    from geoalign.progress import progress

    config = load_config(site)
    if output is not None:
        config = config.model_copy(update={"output": str(output.resolve())})
    if dry_run:
        return showing.show_plan(pipeline.plan(config, threads=threads), json)
    from geoalign.report import write_report

    with progress() as on_step:
        result = pipeline.run(config, threads=threads, on_step=on_step, then=[write_report])
    return showing.show_run(result, json)


@app.command()
def monitor(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ACTION] SITE [NAME ...]",
            help="The site's TOML file; before or after it one of visit (default), status, history, digest, retry, "
            "rebuild, doctor, replay; then names of alerts, scenes or areas.",
            show_default=False,
        ),
    ],
    watch: Annotated[
        float | None, typer.Option(metavar="MINUTES", min=0.01, help="Visit again and again, so many minutes apart.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what a visit would take in; write nothing.")] = False,
    seen: Annotated[bool, typer.Option("--seen", help="Of a digest: note that it was seen.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of a cluster on this machine.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://host:8786.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Watch a site: take in what is new, publish alerts, say whether it was looked at. Safe to run at any time."""
    from geoalign import watching
    from geoalign.monitor import Monitor, command

    action, site, names = command.parse(words)
    watched = Monitor(site, threads=threads, workers=workers, scheduler=scheduler)
    with command.terminable():
        if action == "visit" and dry_run:
            document = watched.plan()
            return terminal.print_json(document) if json else watching.show_plan(document)
        if action in ("visit", "retry", "rebuild"):
            return watching.visits(watched, action, names, watch, json)
        if action == "doctor":
            findings = watched.doctor()
            bad = any(f.status == "bad" for f in findings)
            rows = [asdict(f) for f in findings]
            return (terminal.print_json(rows) if json else terminal.table(f"doctor {site}", rows) or 0) or int(bad)
        if action == "replay":
            return watching.replayed(watched, json)
        if action == "digest":
            documents = watched.digest(*names, seen=seen)
            return terminal.print_json(documents) if json else watching.show_digests(documents)
        if action == "history":
            document = watched.history(*names[:1])
            return terminal.print_json(document) if json else watching.show_history(document)
        document = watched.status()
        return terminal.print_json(document) if json else watching.show_status(document)


@app.command()
def report(
    runfolder: Annotated[Path, typer.Argument(help="Folder of a run, or an output folder.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="Where to write the page; report.html in the run by default.")
    ] = None,
    json: Json = False,
) -> int:
    """Write the HTML page of a run again."""
    from geoalign.report import write_report

    path = write_report(runfolder, output)
    return terminal.print_json({"report": str(path)}) if json else terminal.out(str(path))


@app.command()
def explore(
    runfolder: Annotated[
        Path, typer.Argument(help="Folder of a run, an output folder, or a site's TOML file.", show_default=False)
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    address: Annotated[
        str, typer.Option(help="Address to listen on; the default lets nobody but this machine in.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> int:
    """Look at a run in the browser: maps in time, series of pixels, polygons, registration. Ctrl-C ends it."""
    from geoalign.explorer import serve

    folder = runfolder
    if runfolder.suffix == ".toml":
        from geoalign.config import load_config

        folder = load_config(runfolder).output_folder
    serve(folder, port=port, address=address, browser=browser, ready=terminal.announce)
    return 0


@app.command()
def doctor(
    runfolder: Annotated[Path | None, typer.Argument(help="A run to check against its manifest.")] = None,
    json: Json = False,
) -> int:
    """Check this installation, and a run's files against its manifest."""
    from geoalign.doctor import examine

    findings = examine(runfolder, cleared=cleared)
    bad = any(f.status == "bad" for f in findings)
    if json:
        return terminal.print_json([asdict(f) for f in findings]) or int(bad)
    terminal.table("doctor", [asdict(f) for f in findings])
    return int(bad)


def _demo_code(result) -> int:
    """The demo's scenes hold clouds on purpose: leaving one out is what it should do."""
    return 0 if result.exit_code == 3 else result.exit_code


def _option(text) -> tuple[str, Any]:
    """key=value, the value as TOML where it is (numbers, true, dates, lists), else text."""
    import tomllib

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--option {text!r} must be key=value.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


if __name__ == "__main__":
    sys.exit(main())
