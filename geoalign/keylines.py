"""Where each key of a TOML text stands: tomllib gives values without lines, and an error needs its line."""

from __future__ import annotations


def key_lines(text: str) -> dict[tuple, int]:
    """Line of every key and table of a valid TOML text: path (names and list positions) -> line, from 1.

    tomllib gives no lines. Keys inside inline tables are found too; strings, comments and arrays are stepped over.
    """
    lines: dict[tuple, int] = {}
    counts: dict[tuple, int] = {}
    table: tuple = ()
    at, n = 0, len(text)
    while at < n:
        at = _skip(text, at, " \t\r\n")
        if at >= n:
            break
        if text[at] == "#":
            at = _line_end(text, at)
        elif text[at] == "[":
            line, double = _line(text, at), text.startswith("[[", at)
            names, at = _key(text, at + 1 + double)
            at = _line_end(text, at)
            table = _resolve(names, counts)
            if double:
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, line)
                table = (*table, counts[table])
            lines[table] = line
        else:
            at = _pair(text, at, table, lines)
    return lines


def _pair(text, at, table, lines):
    """Step over `key = value` at `at`, noting its line; returns the place after the value."""
    line = _line(text, at)
    names, at = _key(text, at)
    path = (*table, *names)
    for i in range(len(table) + 1, len(path) + 1):
        lines.setdefault(path[:i], line)
    at = _skip(text, at + 1, " \t")  # the equals sign
    return _value(text, at, path, lines)


def _resolve(names, counts):
    path: tuple = ()
    for i, name in enumerate(names):
        path = (*path, name)
        if i < len(names) - 1 and path in counts:
            path = (*path, counts[path])
    return path


def _key(text, at):
    names = []
    while True:
        at = _skip(text, at, " \t")
        if text[at] in "\"'":
            end = _string_end(text, at)
            names.append(text[at + 1 : end - 1])
            at = end
        else:
            end = at
            while end < len(text) and (text[end].isalnum() or text[end] in "_-"):
                end += 1
            names.append(text[at:end])
            at = end
        at = _skip(text, at, " \t")
        if at >= len(text) or text[at] != ".":
            return tuple(names), at
        at += 1


def _value(text, at, path, lines):
    if text[at] in "\"'":
        return _string_end(text, at)
    if text[at] == "{":
        at = _skip(text, at + 1, " \t\r\n,")
        while text[at] != "}":
            at = _skip(text, _pair(text, at, path, lines), " \t\r\n,")
        return at + 1
    if text[at] == "[":
        at, i = _gap(text, at + 1), 0
        while text[at] != "]":
            lines.setdefault((*path, i), _line(text, at))
            at, i = _gap(text, _value(text, at, (*path, i), lines)), i + 1
        return at + 1
    while at < len(text) and text[at] not in ",]}#\r\n":
        at += 1
    return at


def _gap(text, at):
    """Over white space, commas and comments inside an array."""
    while True:
        at = _skip(text, at, " \t\r\n,")
        if text[at] != "#":
            return at
        at = _line_end(text, at)


def _string_end(text, at):
    quote = text[at]
    if text.startswith(quote * 3, at):
        end = at + 3
        while not text.startswith(quote * 3, end):
            end += 2 if quote == '"' and text[end] == "\\" else 1
        end += 3
        while end < len(text) and text[end] == quote:
            end += 1
        return end
    end = at + 1
    while text[end] != quote:
        end += 2 if quote == '"' and text[end] == "\\" else 1
    return end + 1


def _skip(text, at, characters):
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _line_end(text, at):
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _line(text, at):
    return text.count("\n", 0, at) + 1
