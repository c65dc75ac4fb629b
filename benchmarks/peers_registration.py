"""What other packages answer on the pairs of `registration.py`, in an interpreter of their own.

    PYTHON benchmarks/peers_registration.py

Started by `registration.py --peers PYTHON`. Reads one job a line from standard input, {"folder", "method", "model",
"masked", "modal"}: the folder holds reference.npy, moving.npy and, where masked, valid_reference.npy and
valid_moving.npy. Writes the answer as (2, n, n) rows and columns of `pull` at every fourth pixel to pull.npy there, and
one line to standard output: {"cpu", "wall"} in seconds, or {"error"}. The first line tells what is installed. Reading,
writing and evaluating the answer are not timed. A method is given the model, as none of them finds it by itself.
"""

import importlib
import json
import os
import sys
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import numpy as np

STEP = 4
MODULES = {
    "cv2": "opencv",
    "skimage": "scikit-image",
    "SimpleITK": "SimpleITK",
    "itk": "itk-elastix",
    "arosics": "arosics",
}
DISTRIBUTIONS = {"opencv": ("opencv-contrib-python-headless", "opencv-python-headless", "opencv-python")}


class Job:
    def __init__(self, folder, model, masked, modal):
        self.model, self.masked, self.modal = model, masked, modal
        names = ["reference", "moving"] + (["valid_reference", "valid_moving"] if masked else [])
        arrays = [np.load(os.path.join(folder, f"{name}.npy")) for name in names]
        self.images, self.masks = arrays[:2], arrays[2:] or [None, None]
        self.rows, self.cols = (v[::STEP, ::STEP].astype(float) for v in np.indices(arrays[0].shape))

    def unit(self):
        """Both images over their own range of 0.5 to 99.5 %, as 0..1."""
        out = []
        for image, mask in zip(self.images, self.masks):
            low, high = np.percentile(image if mask is None else image[mask], (0.5, 99.5))
            out.append(np.clip((image - low) / (high - low), 0, 1).astype(np.float32))
        return out


def opencv_ecc(job):
    """Coarse to fine, so that 12 degrees are found; the last level from the whole image."""
    import cv2

    reference, moving = job.unit()
    masks = [
        np.full(v.shape, 255, np.uint8) if m is None else m.astype(np.uint8) * 255
        for v, m in zip(job.images, job.masks)
    ]
    motion = cv2.MOTION_TRANSLATION if job.model == "shift" else cv2.MOTION_AFFINE
    matrix = np.eye(2, 3, dtype=np.float32)
    factors = (8, 4, 2, 1) if job.model == "similarity" else (1,)
    for factor in factors:
        levels = [v if factor == 1 else cv2.resize(v, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
                  for v in (reference, moving, *masks)]  # fmt: skip
        middle = (factor - 1) / 2
        here = matrix.copy()
        here[:, 2] = (matrix[:, :2] @ [middle, middle] + matrix[:, 2] - middle) / factor
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6)
        if job.masked:
            a, b, valid_a, valid_b = levels
            _, here = cv2.findTransformECCWithMask(a, b, valid_a, valid_b, here, motion, stop, 5)
        else:
            _, here = cv2.findTransformECC(*levels[:2], here, motion, stop, None, 5)
        matrix = here.copy()
        matrix[:, 2] = factor * here[:, 2] + middle - here[:, :2] @ [middle, middle]
    (a, b, tx), (c, d, ty) = matrix.astype(float)
    return lambda: (c * job.cols + d * job.rows + ty, a * job.cols + b * job.rows + tx)


def opencv_phase(job):
    import cv2

    window = cv2.createHanningWindow(job.images[0].shape[::-1], cv2.CV_64F)
    (dx, dy), _ = cv2.phaseCorrelate(*(v.astype(float) for v in job.unit()), window)
    return lambda: (job.rows + dy, job.cols + dx)


def opencv_dis(job):
    import cv2

    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    flow.setGradientDescentIterations(50)
    flow.setVariationalRefinementIterations(10)
    found = flow.calc(*(np.round(255 * v).astype(np.uint8) for v in job.unit()), None)[::STEP, ::STEP].astype(float)
    return lambda: (job.rows + found[..., 1], job.cols + found[..., 0])


def scikit_image(job):
    """Cross-correlation at 1/100 px; with masks it answers whole pixels only."""
    from skimage.registration import phase_cross_correlation

    if job.masked:
        found = phase_cross_correlation(*job.images, reference_mask=job.masks[0], moving_mask=job.masks[1])[0]
    else:
        found = phase_cross_correlation(*job.images, upsample_factor=100, normalization=None)[0]
    return lambda: (job.rows - found[0], job.cols - found[1])


def simpleitk(job):
    """Mattes mutual information; all pixels for linear models; for fields B-splines of 64 px (finer ones
    did worse) and a fifth of them at full resolution."""
    import SimpleITK as sitk

    fixed, moving = (sitk.GetImageFromArray(v) for v in job.images)
    size = job.images[0].shape
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    if job.masked:
        method.SetMetricFixedMask(sitk.GetImageFromArray(job.masks[0].astype(np.uint8)))
        method.SetMetricMovingMask(sitk.GetImageFromArray(job.masks[1].astype(np.uint8)))
    method.SetInterpolator(sitk.sitkBSpline if not job.modal else sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0] if not job.modal else [3, 2, 1])
    if job.model == "dense":
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentagePerLevel([1.0, 0.5, 0.2])
        mesh = [max(1, round(n / 64)) for n in size[::-1]]
        start = sitk.BSplineTransformInitializer(fixed, mesh, 3)
        method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-6, numberOfIterations=50)
        method.SetInitialTransform(start, inPlace=True)
    else:
        if job.model == "shift":
            start = sitk.TranslationTransform(2)
        else:
            start = sitk.Similarity2DTransform() if job.model == "similarity" else sitk.AffineTransform(2)
            start.SetCenter([(n - 1) / 2 for n in size[::-1]])
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200, relaxationFactor=0.5)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)

    def pull():
        x, y = np.stack([start.TransformPoint(p) for p in zip(job.cols.ravel().tolist(), job.rows.ravel().tolist())], 1)
        return y.reshape(job.rows.shape), x.reshape(job.rows.shape)

    return pull


def elastix(job):
    """B-splines of 32 px, mutual information over random coordinates, with masks."""
    import itk

    fixed, moving = (itk.image_view_from_array(v) for v in job.images)
    chosen = itk.ParameterObject.New()
    settings = chosen.GetDefaultParameterMap("bspline", 4, 32.0)
    settings["MaximumNumberOfIterations"] = ["500"]
    settings["NumberOfSpatialSamples"] = ["8000"]
    settings["WriteResultImage"] = ["false"]
    settings["Metric"] = ["AdvancedMattesMutualInformation"]
    settings["Registration"] = ["MultiResolutionRegistration"]
    settings["Interpolator"] = ["BSplineInterpolator"]
    settings["BSplineInterpolationOrder"] = ["3"]
    settings["RequiredRatioOfValidSamples"] = ["0.05"]
    settings["ErodeMask"] = ["false"]
    chosen.AddParameterMap(settings)
    masks = {}
    if job.masked:
        masks = {
            f"{name}_mask": itk.image_view_from_array(m.astype(np.uint8))
            for name, m in zip(("fixed", "moving"), job.masks)
        }
    _, found = itk.elastix_registration_method(fixed, moving, parameter_object=chosen, log_to_console=False, **masks)

    def pull():
        field = np.asarray(itk.transformix_deformation_field(moving, found))[::STEP, ::STEP].astype(float)
        return job.rows + field[..., 1], job.cols + field[..., 0]

    return pull


@contextmanager
def _config_options(options, thread_local=True):
    from osgeo import gdal

    before = {name: gdal.GetConfigOption(name) for name in options}
    for name, value in options.items():
        gdal.SetConfigOption(name, None if value is None else str(value))
    yield
    for name, value in before.items():
        gdal.SetConfigOption(name, value)


def _geoarrays(job):
    """Both images and what must not be looked at, as AROSICS takes them: on one grid of 10 m."""
    from geoarray import GeoArray
    from osgeo import gdal, osr

    if not hasattr(gdal, "config_options"):
        gdal.config_options = _config_options  # of GDAL 3.7; distributions still ship 3.6
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(32633)
    place = ((500000.0, 10.0, 0.0, 5000000.0, 0.0, -10.0), crs.ExportToWkt())
    images = [GeoArray(v, *place) for v in job.images]
    bad = {}
    if job.masked:
        bad = {f"mask_baddata_{n}": GeoArray(~m, *place) for n, m in zip(("ref", "tgt"), job.masks)}
    return images, bad


def arosics_global(job):
    """One window of 256 px in the middle; told how far to look."""
    from arosics import COREG

    images, bad = _geoarrays(job)
    found = COREG(*images, ws=(256, 256), max_shift=15, q=True, progress=False, CPUs=1, **bad)
    found.calculate_spatial_shifts()
    moved = found.coreg_info["corrected_shifts_px"]
    return lambda: (job.rows - moved["y"], job.cols - moved["x"])


def arosics_local(job):
    """Tie points every 24 px; through those it keeps, but for a few outliers, an affine or, for fields, a spline."""
    from arosics import COREG_LOCAL
    from scipy.interpolate import RBFInterpolator

    images, bad = _geoarrays(job)
    # windows that a field bends little in; the last filter keeps what one affine explains
    size, level = ((48, 48), 1) if job.model == "dense" else ((96, 96), 3)
    found = COREG_LOCAL(
        *images,
        grid_res=24,
        window_size=size,
        max_shift=8,
        q=True,
        progress=False,
        CPUs=1,
        tieP_filter_level=level,
        **bad,
    )
    table = found.CoRegPoints_table
    table = table[(table["X_SHIFT_PX"] > -9000) & ~table["OUTLIER"].astype(bool)]
    at = table[["Y_IM", "X_IM"]].to_numpy(float)
    away = -table[["Y_SHIFT_PX", "X_SHIFT_PX"]].to_numpy(float)
    degree = {"shift": 0, "dense": 9}.get(job.model, 1)
    kept = np.ones(len(at), bool)
    for _ in range(5):
        fitted = np.linalg.lstsq(_powers(at[kept], degree), away[kept], rcond=None)[0]
        left = np.hypot(*(away - _powers(at, degree) @ fitted).T)
        kept = left < max(4 * np.median(left), 0.3)
    points = np.column_stack([job.rows.ravel(), job.cols.ravel()])
    if job.model == "dense":
        spline = RBFInterpolator(at[kept], away[kept], smoothing=1.0)
        return lambda: (points + spline(points)).T.reshape(2, *job.rows.shape)
    return lambda: (points + _powers(points, degree) @ fitted).T.reshape(2, *job.rows.shape)


def _powers(points, degree):
    """Monomials of row and column up to a degree, (n, terms)."""
    r, c = points.T / 512
    return np.column_stack([r**i * c**j for i in range(degree + 1) for j in range(degree + 1 - i)])


METHODS = {
    "OpenCV ECC": ("cv2", opencv_ecc),
    "OpenCV phaseCorrelate": ("cv2", opencv_phase),
    "OpenCV DIS": ("cv2", opencv_dis),
    "scikit-image": ("skimage", scikit_image),
    "SimpleITK MI": ("SimpleITK", simpleitk),
    "elastix": ("itk", elastix),
    "AROSICS global": ("arosics", arosics_global),
    "AROSICS local": ("arosics", arosics_local),
}


def installed():
    """Package -> version of those that can be imported."""
    out = {}
    for module, name in MODULES.items():
        for distribution in DISTRIBUTIONS.get(name, (name,)):
            try:
                importlib.import_module(module)
                out[name] = version(distribution)
            except (ImportError, PackageNotFoundError):
                continue
    return out


def answer(folder, method, **options):
    job = Job(folder, **options)
    started, cpu = time.perf_counter(), time.process_time()
    pull = METHODS[method][1](job)
    seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - started}
    np.save(os.path.join(folder, "pull.npy"), np.stack(pull()))
    return seconds


def main() -> int:
    # what a package prints by itself must not come between the answers
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    found = installed()
    methods = [name for name, (module, _) in METHODS.items() if MODULES[module] in found]
    print(json.dumps({"versions": found, "methods": methods}), file=out)
    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except Exception as err:
            reply = {"error": f"{type(err).__name__}: {str(err).strip().splitlines()[-1] if str(err).strip() else ''}"}
        print(json.dumps(reply), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
