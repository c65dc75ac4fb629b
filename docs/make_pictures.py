"""Makes the pictures of the README from the scenes in data/: `python docs/make_pictures.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import geoalign
from geoalign.simulation import Truth
from geoalign.types.changes import changed

ROOT = Path(__file__).resolve().parents[1]


def spread_db(stack):
    return (10 * np.log10(stack.vv)).std("time")


def main():
    truth = Truth.load(ROOT / "data")
    stack = geoalign.open_stack(ROOT / "data/sar/*.tif", like=truth.geobox).compute()
    aligned = geoalign.coregister(stack, reference=truth.references["sar"]).apply(stack)
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained", width_ratios=(1, 1, 1.2))
    for ax, data, title in ((axes[0], stack, "as delivered"), (axes[1], aligned, "aligned")):
        image = ax.imshow(spread_db(data), vmin=1.5, vmax=4.5, cmap="magma")
        ax.set_title(f"{title}: spread of VV over a year")
        ax.set_axis_off()
    figure.colorbar(image, ax=axes[:2], label="standard deviation (dB)", shrink=0.8)
    found = geoalign.detect(aligned, "flood").compute()
    days = found.date.where(changed(found))
    axes[2].imshow(spread_db(aligned), cmap="Greys", alpha=0.35)
    numbers = days.values.astype("datetime64[D]").astype(float)
    image = axes[2].imshow(np.where(np.isnat(days.values), np.nan, numbers), cmap="viridis")
    axes[2].set_title("flood: first flooded acquisition")
    axes[2].set_axis_off()
    bar = figure.colorbar(image, ax=axes[2], shrink=0.8)
    bar.ax.yaxis.set_major_formatter(lambda day, _: str(np.datetime64(int(day), "D")))
    figure.savefig(ROOT / "docs/img/demo.png", dpi=80)


if __name__ == "__main__":
    main()
