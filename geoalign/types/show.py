"""How objects show themselves in a notebook: a heading, a line and a table, in plain HTML without a script."""

from __future__ import annotations

from html import escape

STYLE = (
    "<style>.geoalign{font:13px/1.45 system-ui,sans-serif}.geoalign table{border-collapse:collapse;margin:6px 0}"
    # a notebook has rules of its own for tables
    "div.geoalign table tr td,div.geoalign table tr th{text-align:left!important;padding:2px 12px 2px 0;"
    "border-bottom:1px solid #8884}"
    "div.geoalign table tr .n{text-align:right!important;font-variant-numeric:tabular-nums}"
    ".geoalign .soft{opacity:.7}</style>"
)


def card(title: str, lines=(), tables=(), picture: str = "") -> str:
    """HTML of one object. lines : texts under the title; tables : HTML of `table`; picture : HTML put beside them"""
    text = "".join(f"<div class=soft>{escape(line)}</div>" for line in lines)
    inner = f"<div><b>{escape(title)}</b>{text}{''.join(tables)}</div>"
    return f"<div class=geoalign>{STYLE}<div style='display:flex;gap:24px;flex-wrap:wrap'>{inner}{picture}</div></div>"


def table(head, rows) -> str:
    """A table of texts and numbers; numbers are set to the right.

    Examples
    --------
    >>> table(["a"], [["<b>"], [2]])
    '<table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr><tr><td class=n>2</td></tr></table>'
    """
    right = [bool(rows) and all(isinstance(row[k], int | float) for row in rows) for k in range(len(head))]
    cells = "".join(f"<th{' class=n' * number}>{escape(str(name))}</th>" for name, number in zip(head, right))
    out = [f"<tr>{cells}</tr>"]
    for row in rows:
        parts = []
        for value in row:
            kind = " class=n" if isinstance(value, int | float) else ""
            parts.append(f"<td{kind}>{escape(_shown(value))}</td>")
        out.append(f"<tr>{''.join(parts)}</tr>")
    return f"<table>{''.join(out)}</table>"


def _shown(value) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if value != value else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
