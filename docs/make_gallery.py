"""Runs the code of docs/gallery.md, block after block, and draws its pictures: `python docs/make_gallery.py [FOLDER]`.

Run it from the repository's root. FOLDER: where the pictures go, by default beside the page.
"""

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

PAGE = Path(__file__).with_name("gallery.md")
PART = re.compile(r"```python\n(?P<code>.*?)```|!\[[^\]]*\]\((?P<picture>[^)]+)\)", re.DOTALL)


def main(folder=PAGE.parent):
    """Paths of the pictures drawn. A picture shows the `figure` that the block before it made."""
    names, drawn = {}, []
    for part in PART.finditer(PAGE.read_text(encoding="utf-8")):
        if part["code"]:
            names.pop("figure", None)
            exec(compile(part["code"], str(PAGE), "exec"), names)
            continue
        path = Path(folder, part["picture"])
        path.parent.mkdir(parents=True, exist_ok=True)
        names["figure"].savefig(path, dpi=90, bbox_inches="tight", pil_kwargs={"quality": 80})
        drawn.append(path)
    return drawn


if __name__ == "__main__":
    main(*sys.argv[1:2])
