"""Scenes shown in turn at one place: what is aligned stands still."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geoalign.errors import StackError
from geoalign.plot import sheet


def flicker(reference, *scenes, labels=None, seconds: float = 0.7) -> Flicker:
    """Scenes that flicker against a reference, side by side: what lies still is aligned.

    Parameters
    ----------
    reference : array or DataArray (row, col)
    scenes : the same, one or more: as delivered and aligned, say
    labels : a word for each scene, written over it
    seconds : how long each picture stays

    Returns
    -------
    Flicker : an animation that a notebook shows; `.save("flicker.gif")` writes it.

    Raises
    ------
    StackError
        No scene was given, or one has another shape than the reference.

    Examples
    --------
    >>> import numpy as np
    >>> ground = np.random.default_rng(0).random((64, 64))
    >>> flicker(ground, np.roll(ground, 2, 0), ground, labels=("as delivered", "aligned")).frames
    2
    """
    images = [np.asarray(image, float) for image in (reference, *scenes)]
    labels = list(labels or [""] * len(scenes))
    if not scenes or any(image.shape != images[0].shape or image.ndim != 2 for image in images):
        shapes = ", ".join(str(image.shape) for image in images)
        raise StackError(f"flicker needs a reference and at least one scene of its shape (row, col); got {shapes}.")
    if len(labels) != len(scenes):
        raise StackError(f"{len(labels)} labels were given for {len(scenes)} scenes.")
    return Flicker(_flicker_gif(images, labels, seconds), 2)


@dataclass(frozen=True)
class Flicker:
    """An animated GIF that shows itself in a notebook. content : its bytes; frames : how many pictures alternate"""

    content: bytes = field(repr=False)
    frames: int

    def _repr_html_(self):
        return f'<img alt="flicker" src="data:image/gif;base64,{base64.b64encode(self.content).decode()}">'

    def save(self, path) -> Path:
        """Write the GIF."""
        Path(path).write_bytes(self.content)
        return Path(path)


def _flicker_gif(images, labels, seconds):
    from PIL import Image, ImageDraw, ImageFont

    # one stretch for each image: sensors and seasons differ in level, and what matters is where things lie
    grey = []
    for image in images:
        seen = image[np.isfinite(image)]
        low, high = np.percentile(seen, (2, 98)) if seen.size else (0.0, 1.0)
        stretched = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
        grey.append(np.nan_to_num(255 * stretched).astype(np.uint8))
    scale = max(1, round(320 / max(images[0].shape)))
    every = max(1, -(-max(images[0].shape) // sheet.LONGEST))
    gap = np.full((grey[0][::every].shape[0] * scale, 6), 255, np.uint8)
    font = ImageFont.load_default(14)
    frames = []
    for panels in ([grey[0]] * len(labels), grey[1:]):
        drawn = []
        for panel in panels:
            drawn += [gap, np.kron(panel[::every, ::every], np.ones((scale, scale), np.uint8))]
        frame = Image.fromarray(np.hstack(drawn[1:]))
        pen = ImageDraw.Draw(frame)
        for k, label in enumerate(labels):
            x = k * (drawn[1].shape[1] + 6)
            if label:
                pen.rectangle((x + 4, 4, x + 14 + pen.textlength(label, font), 24), fill=0)
                pen.text((x + 9, 6), label, 255, font)
        frames.append(frame)
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=int(1000 * seconds), loop=0)
    return stream.getvalue()
