"""Change between two images that have no radiometry in common: radar and optical, infrared and colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import fixed_blocks, neighbourhood, per_pixel, whole_image
from geoalign.detectors.sar_pair import check_prior, quick_look_offset
from geoalign.errors import StackError
from geoalign.kernels.heterogeneous import (
    ACROSS,
    DEPTH,
    MOST_KINDS,
    SAMPLES_A_KIND,
    features,
    judged,
    kind_counts,
    kind_shares,
    kinds,
    learn,
    samples,
)
from geoalign.kernels.sar_change import posterior
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import SAR_BANDS, check_stack, geobox_of

MOST_SAMPLES = 6000
BETA = 3.0
ROUNDS = 10
TURNS = 4
TEMPER = 0.5


@dataclass(frozen=True)
class Heterogeneous:
    """What changed between two dates that were seen by different sensors, learnt from the pair itself.

    Most ground keeps a relation: pixels alike in one image have counterparts that are alike in the other. A sample of
    the image (up to 6,000 pixels) is held against that relation in both directions: the counterparts of the samples
    most like one say what to expect of it, and how surely. Samples that surprise lose their say, in six turns. The
    pairs of values are then sorted into kinds (k-means); the share of surprising samples of a kind, and a Potts field
    over neighbours, say which pixels changed, and the kinds are judged again by that, four times.

    Parameters
    ----------
    prior : float, optional
        Share of change that `probability` assumes; None takes the share found in the image.
    seed : int
        Of the first centres of k-means.

    Notes
    -----
    Call it as `detect({"radar": stack1, "optical": stack2}, "heterogeneous")`: two Stacks on one grid, of which the
    last scene of the earlier and the first of the later are compared. Or give one Stack, whose first and last scene are
    compared; a band that a scene does not have is NaN throughout it. Backscatter (vv, vh, hh, hv) is compared in
    logarithms and smoothed more (sigma 2 px, else 1).

    A pixel whose values lie, in both images, between those to both sides, of which neither has changed, lies on an
    edge and is no change, however rare its pair of values.

    `magnitude` is how far the pixel's kind breaks the relation, in medians; there is no sign: `direction` is 0. Change
    has to be the rarer case, and cannot be told where it looks like a pair of values that is common elsewhere. Some
    part of an image always surprises most: simulated scenes in which nothing had changed were flagged to 0 % (fields)
    to 3 % in the mean, to 7 % where classes form bands of a few pixels.
    With a coordinate `sigma_px` evidence at edges is weakened by (|gradient| sigma_px)^2; pixels that only this excuses
    carry `misregistered`.

    References
    ----------
    The idea that structure is compared, not values: Sun et al. (2021), Structure consistency-based graph for
    unsupervised change detection with homogeneous and heterogeneous remote sensing images,
    doi:10.1109/TGRS.2021.3053571, and Luppino et al. (2019), doi:10.1109/TGRS.2019.2930348. Expectation with its own
    variance, turns by weight, and the kinds are ours.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> rng = np.random.default_rng(0)
    >>> ground = np.kron(rng.integers(0, 3, (12, 12)), np.ones((10, 10)))
    >>> radar = new_stack({"vv": (0.02 * 3.0**ground * rng.gamma(4, 1 / 4, ground.shape))[None]}, ["2024-01-01"])
    >>> ground[30:60, 40:80] = 3
    >>> nir = np.array([0.1, 0.4, 0.2, 0.02])[ground.astype(int)] + rng.normal(0, 0.01, ground.shape)
    >>> optical = new_stack({"nir": nir[None]}, ["2024-02-01"])
    >>> stack = Heterogeneous().joined({"radar": radar, "optical": optical})
    >>> found = Heterogeneous().detect(stack)
    >>> int(found.status[45, 60]), int(found.status[100, 20])
    (3, 0)
    """

    prior: float | None = None
    seed: int = 0

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_prior(self.prior)

    def joined(self, stacks: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """One Stack of two scenes out of two Stacks on one grid; a band is NaN at the date that does not have it."""
        if len(stacks) != 2:
            raise StackError(f"two Stacks are compared, got {len(stacks)} ({', '.join(map(str, stacks))}).")
        for stack in stacks.values():
            check_stack(stack)
        early, late = sorted(stacks.values(), key=lambda s: s.time.values[-1])
        if not early.time.values[-1] < late.time.values[0]:
            raise StackError(
                f"the scenes overlap: one Stack ends {str(early.time.values[-1])[:10]}, the other begins "
                f"{str(late.time.values[0])[:10]}. Give what was before and what was after."
            )
        scenes = [early.isel(time=[-1]), late.isel(time=[0])]
        shapes = [(s.sizes["y"], s.sizes["x"]) for s in scenes]
        boxes = [geobox_of(s) for s in scenes]
        if shapes[0] != shapes[1] or (None not in boxes and boxes[0] != boxes[1]):
            raise StackError(f"the Stacks lie on different grids ({shapes[0]}, {shapes[1]}); open one like= the other.")
        names = list(dict.fromkeys([*scenes[0].data_vars, *scenes[1].data_vars]))
        parts = []
        for scene, other in (scenes, scenes[::-1]):
            empty = {
                name: xr.full_like(other[name].isel(time=[0]), np.nan).assign_coords(time=scene.time)
                for name in names
                if name not in scene
            }
            bands = {name: scene[name] if name in scene else empty[name] for name in names}
            plain = {n: v.transpose("time", "y", "x").variable for n, v in bands.items()}
            parts.append(xr.Dataset(plain, coords={"time": scene.time.values}))
        stack = xr.concat(parts, "time").assign_coords(
            {k: v for k, v in scenes[0].coords.items() if "time" not in v.dims}
        )
        for name in ("scene", "sensor", "orbit", "sigma_px"):
            if any(name in s.coords for s in scenes):
                blank = 0.0 if name == "sigma_px" else -1 if name == "orbit" else ""
                along = [
                    s[name].reset_coords(drop=True) if name in s.coords else xr.full_like(s.time, blank, object)
                    for s in scenes
                ]
                if name == "sigma_px":
                    along = [a.astype("float64") for a in along]
                if all(a.dims == ("time",) for a in along):
                    stack = stack.assign_coords({name: ("time", np.concatenate([a.values for a in along]))})
                else:
                    stack = stack.assign_coords({name: xr.concat(xr.broadcast(*along, exclude=["time"]), "time")})
        return stack

    def detect(self, stack):
        """Changes (y, x) between the first and the last scene of a Stack; lazy where the stack is."""
        check_stack(stack, min_scenes=2)
        stack = stack.isel(time=[0, -1])
        names = list(stack.data_vars)
        planes = xr.concat(
            [
                stack[n].transpose("time", "y", "x").isel(time=t, drop=True).reset_coords(drop=True)
                for t in (0, 1)
                for n in names
            ],
            "plane",
        )
        radar = np.array([float(n in SAR_BANDS) for n in names] * 2)
        offset = xr.concat([quick_look_offset(stack[n]) for n in names] * 2, "plane")
        n_y, n_x = stack.sizes["y"], stack.sizes["x"]
        step = max(2, int(np.ceil(np.sqrt(n_y * n_x / MOST_SAMPLES))))
        n_sample = sum(len(range(step // 2, h, step)) for h in fixed_blocks(n_y)) * sum(
            len(range(step // 2, w, step)) for w in fixed_blocks(n_x)
        )
        n_kind = int(np.clip(n_sample // SAMPLES_A_KIND, 2, MOST_KINDS))
        n_plane = 2 * len(names)
        view = neighbourhood(
            _features, planes, depth=DEPTH, outputs={"view": ("float32", "plane", 2 * n_plane)},
            logarithmic=radar, offset=offset,
        ).view  # fmt: skip
        learnt = whole_image(
            _samples, partial(learn, n_before=len(names), n_kind=n_kind, seed=self.seed), view,
            size=(2 + n_kind) * n_plane + 2 * n_kind, step=step, n_plane=n_plane,
        )  # fmt: skip
        found = neighbourhood(
            _kinds, view, self._sigma(stack), depth=ACROSS,
            outputs={"kind": "int16", "shrink": "float32", "mixed": "uint8"},
            learnt=learnt, n_before=len(names), n_kind=n_kind, n_plane=n_plane,
        )  # fmt: skip
        shares = learnt.isel(stat=slice((2 + n_kind) * n_plane, (2 + n_kind) * n_plane + n_kind))
        labels = per_pixel(_first, found.kind, outputs={"label": "int8"}, shares=shares).label
        first = labels
        for turn in range(TURNS):
            if turn:
                shares = whole_image(kind_counts, kind_shares, found.kind, labels, size=n_kind + 1, n_kind=n_kind)
            turned = neighbourhood(
                judged, found.kind, found.shrink, found.mixed, first, labels, depth=ROUNDS + ACROSS,
                outputs={"label": "int8", "odds": "float32", "excused": bool}, shares=shares, beta=BETA, n_round=ROUNDS,
            )  # fmt: skip
            labels = turned.label
        score = learnt.isel(stat=slice(-n_kind, None))
        return self._changes(stack, planes, found, turned, shares, score)

    def _sigma(self, stack):
        like = xr.zeros_like(stack[next(iter(stack.data_vars))].transpose("time", "y", "x").reset_coords(drop=True))
        like = like.fillna(0).astype("float32")
        return like + stack.sigma_px.reset_coords(drop=True).astype("float32") if "sigma_px" in stack.coords else like

    def _changes(self, stack, planes, found, turned, shares, score):
        half = planes.sizes["plane"] // 2
        there = planes.notnull()
        n_obs = there.isel(plane=slice(0, half)).any("plane").astype("uint16") + there.isel(
            plane=slice(half, None)
        ).any("plane").astype("uint16")
        seen = found.kind != -1
        changed = seen & (turned.label == 1)
        prior = np.nan if self.prior is None else float(self.prior)
        p = per_pixel(
            posterior, turned.odds, turned.label, outputs={"p": "float32"}, share=shares[-1], prior=prior, temper=TEMPER
        ).p
        why = xr.where(found.kind == -2, WHY["not_detectable"], 0) | xr.where(turned.excused, WHY["misregistered"], 0)
        date = dates_at(xr.where(changed, 1, -1).astype("int32"), stack.time.values)
        layers = {
            "status": xr.where(seen, xr.where(changed, CONFIRMED, NO_CHANGE), NOT_OBSERVABLE),
            "date": date,
            "date_after": dates_at(xr.where(changed, 0, -1).astype("int32"), stack.time.values),
            "date_by": date,
            "magnitude": per_pixel(_look_up, found.kind, outputs={"m": "float32"}, table=score).m,
            "direction": xr.zeros_like(turned.label),
            "probability": p,
            "n_obs": n_obs,
            "why": xr.where(seen, why, xr.where(n_obs > 0, WHY["too_few"], WHY["no_data"])),
        }
        return new_changes(
            layers, kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units="1",
            inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip


def _features(planes, logarithmic, offset):
    return features(planes, logarithmic, np.asarray(offset, float)).reshape(-1, *planes.shape[1:])


def _samples(view, step, n_plane):
    return samples(view.reshape(2, n_plane, *view.shape[1:]), step)


def _kinds(view, sigma, learnt, n_before, n_kind, n_plane):
    return kinds(view.reshape(2, n_plane, *view.shape[1:]), sigma, learnt, n_before, n_kind)


def _first(kind, shares):
    return np.where(kind == -1, -2, (kind >= 0) & (shares[np.maximum(kind, 0)] > 0.5)).astype(np.int8)


def _look_up(kind, table):
    return np.where(kind >= 0, table[np.maximum(kind, 0)], np.nan).astype(np.float32)
