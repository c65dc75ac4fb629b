"""Which detectors there are, and their options, without importing them.

Importing the detectors takes seconds (numba, dask, xarray); checking a site file should not. So the registry and the
fields of the dataclasses are read from the source. Where the detectors are loaded already, or the source is not there,
the registry itself is asked; a test holds both to be the same.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import fields
from pathlib import Path

FOLDER = Path(__file__).parent / "detectors"


def detector_options() -> dict[str, dict[str, str]]:
    """Detector -> its options -> their annotation, as text.

    Examples
    --------
    >>> "prior" in detector_options()["log_ratio"]
    True
    """
    if "geoalign.detectors" in sys.modules or not (FOLDER / "__init__.py").is_file():
        return loaded_options()
    return source_options()


def loaded_options() -> dict[str, dict[str, str]]:
    """From the classes themselves."""
    from geoalign.detectors import DETECTORS

    return {
        name: {
            f.name: f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type)) for f in fields(cls)
        }
        for name, cls in DETECTORS.items()
    }


def source_options() -> dict[str, dict[str, str]]:
    """From the source: the literal registry, and the annotated fields of the classes it names."""
    classes: dict[str, ast.ClassDef] = {}
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    tree = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
    names = {key: _class_name(value) for table in _tables(tree) for key, value in table}
    return {name: _fields(classes[cls], classes) for name, cls in names.items() if cls in classes}


def _tables(tree):
    """Dict literals at module level with texts for keys."""
    for statement in tree.body:
        for node in [] if isinstance(statement, ast.FunctionDef | ast.ClassDef) else ast.walk(statement):
            if isinstance(node, ast.Dict) and node.keys and all(isinstance(k, ast.Constant) for k in node.keys):
                yield [(k.value, v) for k, v in zip(node.keys, node.values)]


def _class_name(node) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else str(getattr(node, "value", ""))


def _fields(node, classes) -> dict[str, str]:
    out: dict[str, str] = {}
    for base in node.bases:
        if _class_name(base) in classes:
            out |= _fields(classes[_class_name(base)], classes)
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            text = ast.unparse(item.annotation)
            if not text.startswith(("ClassVar", "typing.ClassVar")):
                out[item.target.id] = text
    return out
