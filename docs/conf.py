"""Sphinx, built by `pip install .[docs] && sphinx-build -W docs docs/_build`. Pages are MyST, the API is docstrings."""

import importlib.metadata

project = "geoalign"
release = version = importlib.metadata.version("geoalign")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"geoalign {release}"
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
# Docstrings have sections of plain words besides those of numpydoc; theirs are set as paragraphs
napoleon_custom_sections = ["Files", "Laws", "To add one"]
suppress_warnings = ["myst.xref_missing", "docutils"]
