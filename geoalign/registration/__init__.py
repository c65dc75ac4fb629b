"""Registration: where is each pixel of one image in another, and how sure is that.

To add a matcher: its maths in `kernels/`, a frozen dataclass here, one line in MATCHERS. A matcher is called with two
arrays; one that also has `align(reference: Image, moving: Image, *, seed)` is given images that it reads by tiles.
"""

from __future__ import annotations

from difflib import get_close_matches

import numpy as np
import xarray as xr

from geoalign.errors import ConfigError
from geoalign.registration.apply import apply
from geoalign.registration.auto import AutoMatcher
from geoalign.registration.baseline import align_to_baseline
from geoalign.registration.composite import align_across
from geoalign.registration.dense import DenseMatcher
from geoalign.registration.ecc import EccMatcher
from geoalign.registration.mutual_information import MutualInformationMatcher
from geoalign.registration.ncc import NccMatcher
from geoalign.registration.network import align_stack, logarithm
from geoalign.registration.orb import OrbMatcher
from geoalign.registration.phase import PhaseMatcher
from geoalign.registration.select import MODELS
from geoalign.registration.sift import SiftMatcher
from geoalign.registration.structure import StructureMatcher
from geoalign.registration.tiepoints import images
from geoalign.types.alignment import Alignment, Match
from geoalign.types.stack import SAR_BANDS, is_sar

MATCHERS = {
    "auto": AutoMatcher,
    "dense": DenseMatcher,
    "ecc": EccMatcher,
    "mutual_information": MutualInformationMatcher,
    "ncc": NccMatcher,
    "orb": OrbMatcher,
    "phase": PhaseMatcher,
    "sift": SiftMatcher,
    "structure": StructureMatcher,
}

__all__ = ["MATCHERS", "MODELS", "apply", "coregister", "match"]


def match(reference, moving, *, matcher="auto", model="auto", valid=None, max_shift_px=None, seed=0) -> Match:
    """How a moving image lies on a reference.

    Parameters
    ----------
    reference, moving : arrays or DataArrays (row, col)
        NaN is invalid in either. DataArrays named like a SAR band (vv, vh, hh, hv) are matched in logarithms. Lazy
        ones (dask) may be larger than memory: those over 2048 px are decimated in one pass, and tiles of them read.
    matcher : str or object
        "auto" (by evidence), "phase", "ecc", "ncc", "orb", "sift" within one kind of sensor, "mutual_information" and
        "structure" across kinds, "dense" (a field), or any object that is called as
        `matcher(reference, moving, valid=..., seed=...)` and returns a Match.
    model : str
        shift, rigid, similarity, affine, projective, polynomial2, field, or "auto": the simplest that held-out points
        allow. Only for matchers given by name.
    valid : array of bool, or (reference's, moving's)
        Masks; None = every finite pixel.
    max_shift_px : float
        Search as far as this; None = a fifth of the image. Only for matchers given by name.
    seed : int
        For every random choice (which points are held out, the consensus of features).

    Returns
    -------
    Match : `warp.pull(row, col)` says where in `moving` a reference pixel is found; with covariance, tie points, and
    the residuals of points used (`rmse_px`) and held out (`cv_px`).

    Raises
    ------
    MatchError where the images hold nothing to match, or nothing stands out; ConfigError for unknown options.

    References
    ----------
    Guizar-Sicairos, Thurman, Fienup (2008), doi:10.1364/OL.33.000156; Padfield (2012), doi:10.1109/TIP.2011.2181402;
    Lucas, Kanade (1981); Rublee et al. (2011), doi:10.1109/ICCV.2011.6126544.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> ground = gaussian_filter(np.random.default_rng(0).normal(size=(140, 140)), 2)
    >>> found = match(ground[:128, :128], ground[3:131, 2:130])
    >>> round(found.warp.dy, 2), round(found.warp.dx, 2)
    (-3.0, -2.0)
    """
    chosen = _matcher(matcher, model, max_shift_px)
    pair = [_plain(image) for image in (reference, moving)]
    if hasattr(chosen, "align"):
        return chosen.align(*images(*pair, valid), seed=seed)
    masks = tuple(None if m is None else np.asarray(m, bool) for m in _two(valid))
    return chosen(*(np.asarray(image, np.float32) for image in pair), valid=masks, seed=seed)


def coregister(
    stack,
    *,
    reference="auto",
    matcher="auto",
    model="auto",
    max_shift_px=None,
    seed=0,
    band="auto",
    refine=None,
    network=None,
    frozen=None,
) -> Alignment:
    """Align every scene of a stack with one reference. Reads little and computes; `Alignment.apply` is lazy.

    Parameters
    ----------
    stack : Dataset (time, y, x)
        NaN = not observed; NumPy or dask. One scene is held at a time, and of large ones only tiles.
    reference : str, array, DataArray or Stack
        "auto" (the scene of greatest clear share and sharpness), "median" (of the stack as it is), a scene id, an
        image on the stack's grid, or another Stack on it (its median). A Stack of another kind of sensor (optical for
        SAR, or the other way round): the stack is aligned within itself first, then its composite (the mean of SAR
        scenes in logarithms, the median of optical ones) is matched with the reference's by `matcher`, and that one
        warp holds for all its scenes; the reference Stack should be aligned itself.
    matcher, model, max_shift_px, seed
        As for `match`.
    band : str
        Band that is matched. "auto" = for SAR the mean logarithm of vv and vh; else the one of nir, red and swir1 (or
        of the first three bands) in which a few trial pairs agree best.
    refine : bool
        Match every scene once more against the mean of the other aligned ones, where there are at least four. It takes
        the reference's own noise out of the matches: what makes speckled scenes precise. None = for SAR only, up
        to 2048 px: means of optical scenes have edges where clouds were, and mix seasons; large images have so many
        windows that their speckle averages out.
    network : bool
        Match scenes with their neighbours in time and season too, and adjust all warps together by robust least
        squares: scenes that match the reference badly (snow, flood, clouds) are tied through others, and the report
        tells how well loops of scenes close (`closure_px`). False matches the reference only, in about a third of the
        time. None = where there are at least four scenes.
    frozen : Alignment
        Of a baseline, whose Stack (as it was aligned, not warped) is then given as `reference`: its warps are kept, and
        every scene of `stack` is tied to scenes of the baseline alone, chosen by date. The result holds the new scenes
        and is the same in whatever order or company they arrive.

    Returns
    -------
    Alignment. Scenes without valid pixels have status "failed", those that could not be aligned "rejected", both with
    the reason in the report and without a warp; the others go on.

    Raises
    ------
    StackError, ConfigError for wrong input; NoUsableData where no scene has a valid pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> from geoalign import new_stack
    >>> ground = gaussian_filter(np.random.default_rng(0).normal(size=(140, 140)), 2)
    >>> scenes = np.stack([ground[:128, :128], ground[3:131, 2:130]])
    >>> stack = new_stack({"red": scenes}, ["2024-01-01", "2024-01-11"], scene=["a", "b"])
    >>> coregister(stack, reference="a").report[["scene", "status", "dy", "dx"]].round(1).values.tolist()
    [['a', 'reference', 0.0, 0.0], ['b', 'aligned', -3.0, -2.0]]
    """
    chosen = _matcher(matcher, model, max_shift_px)
    options = {"band": band, "seed": seed}
    if frozen is not None:
        return align_to_baseline(stack, reference, frozen, chosen, **options)
    options |= {"refine": refine, "network": network}
    if isinstance(reference, xr.Dataset) and is_sar(reference) != is_sar(stack):
        return align_across(stack, reference, chosen, **options)
    return align_stack(stack, chosen, reference=reference, **options)


def _matcher(matcher, model, max_shift_px):
    if callable(matcher) and not isinstance(matcher, type):
        return matcher
    if matcher not in MATCHERS:
        raise ConfigError(
            f"matcher {matcher!r} is unknown; choose one of {', '.join(MATCHERS)}.{_hint(matcher, MATCHERS)}"
        )
    if model not in MODELS:
        raise ConfigError(f"model {model!r} is unknown; choose one of {', '.join(MODELS)}.{_hint(model, MODELS)}")
    return MATCHERS[matcher](model=model, max_shift_px=max_shift_px)


def _hint(word, words):
    near = get_close_matches(str(word), list(words), 1, 0.4)
    return f" Did you mean {near[0]!r}?" if near else ""


def _plain(image):
    if isinstance(image, xr.DataArray) and image.name in SAR_BANDS:
        return logarithm(image)
    return image


def _two(valid):
    return tuple(valid) if isinstance(valid, tuple | list) else (valid, valid)
