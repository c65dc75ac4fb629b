"""Watching a series as its scenes arrive: a few numbers a pixel, a boundary that holds however long one watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood
from geoalign.detectors.series import check_options, moment, order_of, part, series_of, years
from geoalign.errors import StackError, StateError
from geoalign.kernels.gradient import median_gradient
from geoalign.kernels.harmonic import regressors
from geoalign.kernels.watch import NONE, fold, learn, limit, start_cost
from geoalign.kernels.watch_report import suspects, verdict
from geoalign.types.changes import NOT_OBSERVABLE, WHY, new_changes, stamps_at
from geoalign.types.stack import check_stack
from geoalign.types.state import check_state, new_state

MODEL = {"coefficients": "float32", "spread": "float32", "noise": "float32", "memory": "uint8"}
LEARNED = {"freedom": "uint16", "n_obs": "uint16", "last": "uint16", "before": "float32"}
CHARTS = {
    "evidence": "float32", "size": "float32", "n_since": "uint16", "since": "uint16", "after": "uint16", "by": "uint16",
}  # fmt: skip
OUTCOME = {"outcome": "uint8", "confirmed": "uint16", "over": "uint16"}
"""Variables of the state; those of `CHARTS` once for drops and once for rises."""

REPORTED = {
    "status": "uint8", **dict.fromkeys(("date", "date_after", "date_by"), "datetime64[ns]"), "magnitude": "float32",
    "direction": "int8", "probability": "float32", "n_obs": "uint16", "why": "uint16",
    **dict.fromkeys(("date_confirmed", "date_end"), "datetime64[ns]"), "noise": "float32",
}  # fmt: skip
"""What `report` says of a pixel."""

MIN_HISTORY = 16
"""Scenes of history that a watch needs: with fewer, the noise and its autocorrelation are anybody's guess."""

_FOLDED = (
    "coefficients", "spread", "noise", "before", "freedom", "n_obs", "n_watched", "last", *CHARTS, *OUTCOME,
)  # fmt: skip


@dataclass(frozen=True)
class Watch:
    """Steps in one series, found online: `start` learns a history, `update` takes scenes in, `report` says what is.

    The state is a robust harmonic regression (season and trend), its noise and autocorrelation, and for either
    direction the evidence for a step: about 100 bytes a pixel, the same however long the watch. An observation costs
    the same at any time, and a state that is stored and taken up again gives the same bits as one that never was.

    Parameters
    ----------
    alpha : float
        Chance of a confirmed false alarm at a stable pixel over the whole watch, however long.
    prior : float
        Share of change that `probability` assumes.
    since : date, optional
        For `detect`: watching starts, all before is history. None takes the first year (half the series where that is
        shorter) for history.
    until : date, optional
        Later scenes are left out.
    history : float, optional
        For `detect`: days of history before `since`, or at the start of the series. None takes all before `since`.
    order : int, optional
        Harmonics of the year, 0 to 3 (0: no season); fewer, but at least one, where a pixel's history is too short.
        None takes two; for backscatter one, or none with under 0.8 years of history.
    index : str, optional
        A band or an index of `indices.INDICES`. None takes the only band, ndvi, or vh (in dB).

    Notes
    -----
    The prediction error of each observation is carried to the normal scale with the error of the model, of its noise
    and of the autocorrelation, and whitened. The log-likelihood ratio of a step since scene j against none, best j, is
    confirmed where it passes a limit; a start at scene j is charged with a weight whose sum over all scenes is 1, so
    that the chance of ever passing is bounded (Shiryaev's prior in place of Page's constant threshold). The step's size
    is estimated from what came before, never from the observation it is tested on. Errors are cut at 4 sd and one
    observation adds 3 nats at most: at least three are needed, and single undetected clouds confirm nothing. Season and
    trend go on learning from what is neither far off nor in doubt.

    The limit allows for 1 % of outliers, and after eight years of history the level is held with errors that are
    correlated from scene to scene (AR(1) 0.3) and both at once as well (`benchmarks/watch.py`); with two years of
    history and both at once, about 11 % cross it in twelve years at alpha 0.05. With white noise the true chance is
    about a third of `alpha`.

    `date` is the first changed observation, `date_confirmed` that at which the evidence passed the limit; `date_after`
    the last one before that looked normal, `date_by` that by which the step was plain. Status is 1 where the last
    observation alone is far off, 2 where several are, but not enough yet; 4 with `date_end` once the series is back.
    `magnitude` is the mean departure from the model since `date`. A pixel whose history has too few observations (nine
    for two harmonics, five without a season) is 255 with its reason.

    With the coordinate `sigma_px`, along edges only what lies beyond |gradient| x sigma_px counts as an error, and
    scenes less well aligned than the history get more noise. The history must have it too.

    References
    ----------
    Lorden and Pollak (2005), doi:10.1214/009053605000000183, for charts whose step size is estimated from the past;
    Verbesselt et al. (2012), doi:10.1016/j.rse.2012.02.022, for watching by harmonic regression. We differ in the
    weights on the start, in the model that goes on learning, and in the simulated limit.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 1))
    >>> ndvi[90:] -= 0.2
    >>> stack = new_stack({"ndvi": ndvi}, time)
    >>> watch = Watch()
    >>> state = watch.update(watch.start(stack.isel(time=slice(0, 60))), stack.isel(time=slice(60, 92)))
    >>> int(watch.report(state).status[0, 0])
    2
    >>> found = watch.report(watch.update(state, stack.isel(time=slice(92, None))))
    >>> int(found.status[0, 0]), int(found.direction[0, 0]), bool(found.date.values[0, 0] == time[90])
    (3, -1, True)
    """

    alpha: float = 0.05
    prior: float = 0.05
    since: str | None = None
    until: str | None = None
    history: float | None = None
    order: int | None = None
    index: str | None = None

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = (*CHARTS, *OUTCOME, "freedom", "n_obs", "n_watched", "last", "noise")

    def __post_init__(self):
        check_options(self)

    def detect(self, stack):
        """Changes (y, x) of a Stack: one start, update and report; lazy where the stack is."""
        check_stack(stack)
        stack, first = part(stack, self.since, self.until, self.history)
        history, scenes = (stack.isel(time=s) for s in (slice(0, abs(first)), slice(abs(first), None)))
        found = self.report(self.update(self.start(history), scenes))
        found.attrs["inputs"] = " ".join(map(str, stack.scene.values)) if "scene" in stack.coords else ""
        return found

    def start(self, history):
        """State after a history: a Stack of the scenes before the watch, changed or not, with their clouds masked."""
        check_stack(history)
        series, units = series_of(history, self.index)
        stamps = history.time.values
        if not MIN_HISTORY <= stamps.size < NONE:
            raise StackError(
                f"the history has {stamps.size} scenes, {str(stamps[0])[:10]} to {str(stamps[-1])[:10]}; a watch needs "
                f"{MIN_HISTORY} or more to tell change from what is usual, and counts up to {NONE - 1} in all. Let it "
                "begin later (since=...), or look back with harmonic_cusum."
            )
        order = order_of(self.order, units, stamps, stamps.size)
        at = years(stamps)
        since_end = at - at[-1]
        step = float(np.median(np.diff(at))) if at.size > 1 else 1.0
        x = regressors(since_end, order)
        model = {k: (d, "coefficient", x.shape[1]) if k == "coefficients" else (d, "term", 4) if k == "spread" else d
                 for k, d in MODEL.items()}  # fmt: skip
        learned = neighbourhood(
            _learned, series.transpose("time", "y", "x"), depth=0, outputs=model | LEARNED,
            x=x, years=since_end, step=step, order=order,
        )  # fmt: skip
        empty = xr.zeros_like(learned.last)
        two = xr.concat([empty, empty], "direction")
        steep, usual = empty.astype("float32"), 0.0
        if "sigma_px" in history.coords:
            steep = neighbourhood(
                median_gradient, series.transpose("time", "y", "x"), depth=1, outputs={"steep": "float32"}
            ).steep
            if history.sigma_px.dims == ("time",):
                usual = float((history.sigma_px.fillna(0.0).astype("float64") ** 2).mean())
        state = new_state(
            {
                **learned.data_vars,
                "steep": steep.reset_coords(drop=True),
                "n_watched": empty,
                "evidence": xr.full_like(two, -1e30, dtype="float32"),
                "size": two.astype("float32"),
                "n_since": two,
                "since": two,
                "after": two + learned.last,
                "by": xr.full_like(two, NONE),
                "outcome": empty.astype("uint8"),
                "confirmed": xr.full_like(empty, NONE),
                "over": xr.full_like(empty, NONE),
            },
            detector=repr(self), last_time=stamps[-1], n_scenes=stamps.size, coords=history.coords,
        )  # fmt: skip
        state.attrs |= {"n_history": int(stamps.size), "step_years": step, "usual_px2": usual, "order": order,
                        "units": units}  # fmt: skip
        return state.assign_coords(time=("time", stamps))

    def update(self, state, scenes):
        """The state with further scenes taken in: a Stack, later than all before, on the same grid."""
        check_state(state, detector=repr(self), variables=("n_watched", "steep", *MODEL, *LEARNED, *CHARTS, *OUTCOME))
        if self.until is not None:
            scenes = scenes.isel(time=np.flatnonzero(scenes.time.values <= moment(self.until)))
        if scenes.sizes["time"] == 0:
            return state
        check_stack(scenes)
        stamps, known = scenes.time.values, state.time.values
        if stamps[0] <= known[-1]:
            raise StateError(
                f"the state has seen scenes up to {str(known[-1])[:19]}; one of {str(stamps[0])[:19]} is not later. "
                "Take scenes in once and in order, or start anew from the history."
            )
        if scenes.sizes["y"] != state.sizes["y"] or scenes.sizes["x"] != state.sizes["x"]:
            raise StateError(
                f"the scenes have {scenes.sizes['y']} x {scenes.sizes['x']} px, the state "
                f"{state.sizes['y']} x {state.sizes['x']}; they must be on one grid."
            )
        everything = np.concatenate([known, stamps])
        if everything.size >= NONE:
            raise StateError(f"a watch counts up to {NONE - 1} scenes in all; start anew with a later history.")
        series, _ = series_of(scenes, self.index)
        at, n_history = years(everything), state.attrs["n_history"]
        x = regressors(at[known.size :] - at[n_history - 1], state.attrs["order"]).astype(np.float32)
        apart = np.round((at[known.size :, None] - at[None, :]) / state.attrs["step_years"])
        numbers = np.arange(known.size, everything.size)
        arrays = {name: state.variables[name] for name in ("memory", "steep", *_FOLDED)}
        outputs = {
            name: (arrays[name].dtype, arrays[name].dims[0], arrays[name].shape[0])
            if arrays[name].ndim == 3
            else arrays[name].dtype
            for name in _FOLDED
        }
        shift = _shift(scenes)
        late = {} if shift is None else {"shift": shift}
        folded = neighbourhood(
            _folded, series, *late.values(), *arrays.values(), depth=0, outputs=outputs,
            names=(*late, *arrays), flat=_flat_shift(scenes), x=x, gap=np.clip(apart, 1, 255).astype(np.uint8),
            usual=np.float32(state.attrs["usual_px2"]), cost=start_cost(numbers - n_history + 1), first=known.size,
            bound=np.float32(limit(self.alpha)),
        )  # fmt: skip
        # made at once: assigning to a Dataset takes as long as the scene itself where it is small
        return xr.Dataset(
            {
                name: folded.variables.get(name, state.variables[name])
                for name in state.variables
                if name not in state.coords
            },
            coords=state.coords.to_dataset().drop_vars("time").coords | {"time": ("time", everything)},
            attrs=state.attrs | {"last_time": str(everything[-1]), "n_scenes": int(everything.size)},
        )

    def report(self, state):
        """Changes (y, x) as the state knows them."""
        check_state(state, detector=repr(self), variables=self.reads)
        stamps, n_history = state.time.values, state.attrs["n_history"]
        layers = neighbourhood(
            _verdict, *(state[name] for name in self.reads), depth=0, outputs=REPORTED, stamps=stamps,
            cost=start_cost(np.maximum(np.arange(stamps.size) - n_history + 1, 1)), first=n_history, prior=self.prior,
        )  # fmt: skip
        return new_changes(
            layers, kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units=state.attrs["units"],
            coords=state.coords,
        )  # fmt: skip

    def suspects(self, state):
        """Pixels (y, x) of which `report` may say that something changed; of all others it says nothing new.

        For those who look after every scene: what the report says of a pixel depends on that pixel alone, so that it
        can be asked of these only.
        """
        cost = start_cost(np.maximum(np.int64(state.attrs["n_scenes"]) - state.attrs["n_history"], 1))
        values = (
            state[name].values.reshape(*state[name].shape[:-2], -1) for name in ("evidence", "n_since", "outcome")
        )
        return suspects(*values, np.float32(cost)).reshape(state.sizes["y"], state.sizes["x"])


def _learned(series, *, x, years, step, order):
    flat = np.ascontiguousarray(series.reshape(series.shape[0], -1).T)
    found = learn(flat, x, years, step, order)
    return tuple(layer.reshape(*layer.shape[:-1], *series.shape[1:]) for layer in found)


def _folded(series, *layers, names, flat, x, gap, usual, cost, first, bound):
    shape = series.shape[1:]
    given = {name: layer.reshape(*layer.shape[:-2], -1) for name, layer in zip(names, layers, strict=True)}
    shift = given.pop("shift", flat)
    new = fold(
        series.reshape(series.shape[0], -1), x, gap, shift, usual, cost, first, bound, given["coefficients"],
        given["spread"], given["noise"], given["memory"], given["steep"], given["before"], given["freedom"],
        given["n_obs"], given["n_watched"], given["last"], *(given[k] for k in CHARTS), *(given[k] for k in OUTCOME),
    )  # fmt: skip
    return tuple(layer.reshape(*layer.shape[:-1], *shape) for layer in new)


def _verdict(*layers, stamps, cost, first, prior):
    """The layers of `REPORTED`. One kernel and plain arrays: watching asks for a few pixels after every scene."""
    *layers, noise = layers
    status, date, after, by, confirmed, over, magnitude, probability, direction = verdict(
        *(layer.reshape(*layer.shape[:-2], -1) for layer in layers), cost, first, prior
    )
    n_obs = layers[-3].reshape(-1)
    why, unseen = np.zeros(status.size, np.uint16), status == NOT_OBSERVABLE
    why[unseen] = np.where(n_obs[unseen] > 0, WHY["too_few"], WHY["no_data"])
    spread = np.sqrt(noise.reshape(-1))
    spread[unseen] = np.nan
    date, after, by, confirmed, over = (stamps_at(numbers, stamps) for numbers in (date, after, by, confirmed, over))
    found = (status, date, after, by, magnitude, direction, probability, n_obs, why, confirmed, over, spread)
    return tuple(layer.reshape(noise.shape) for layer in found)


def _shift(scenes):
    """Squared sigma_px (time, y, x) float32 where it varies over the image, else None."""
    if "sigma_px" not in scenes.coords or scenes.sigma_px.dims == ("time",):
        return None
    return (scenes.sigma_px.fillna(0.0) ** 2).astype("float32").transpose("time", "y", "x").reset_coords(drop=True)


def _flat_shift(scenes):
    """Squared sigma_px (time, 1) float32 where a scene has one, else zeros."""
    if "sigma_px" not in scenes.coords or scenes.sigma_px.dims != ("time",):
        return np.zeros((scenes.sizes["time"], 1), np.float32)
    return (np.nan_to_num(scenes.sigma_px.values.astype("float64")) ** 2).astype(np.float32)[:, None]
