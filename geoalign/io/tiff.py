"""What a TIFF claims, read without GDAL: sizes are checked before anything is allocated, truncation without decoding.

Only the directories (IFDs) are read. TIFF 6.0 specification (Adobe, 1992), section 2; BigTIFF as in the libtiff notes.
"""

from __future__ import annotations

import io
import os
import struct

from geoalign.errors import StackError

MAX_PIXELS = 2**31
MAX_BLOCK_BYTES = 256 * 2**20
MAX_BANDS = 1024
MAX_RATIO = 1100
"""Bytes that one byte of a file may unpack to where more than `FREE_BYTES` come of it. Deflate reaches 1032."""
FREE_BYTES = 2**30

_TYPES = {1: "B", 2: "c", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Size of a value of each type, of those too that are not read here."""
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _PLANAR = 256, 257, 258, 277, 284
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_WANTED = {_WIDTH, _HEIGHT, _BITS, _SAMPLES, _PLANAR, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT}
_PLACES = {_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS}
_MAX_BLOCKS = 2**22
_MAX_DIRECTORIES = 64
_TOO_MANY = (-1,)


def check_tiff(path) -> None:
    """StackError where the file is not a TIFF, claims sizes no scene has, or ends before its own data do.

    Parameters
    ----------
    path : local path

    Notes
    -----
    Every directory is followed, so that overviews are checked too. Blocks of length 0 are legal (sparse: nodata).
    """
    try:
        _check(path)
    except OSError as err:
        raise StackError(f"{path} can't be read: {err.strerror or err}. Check its permissions and its disk.") from err


def check_head(shown, head: bytes, size: int | None) -> None:
    """The same for a file of which only the beginning is at hand; what lies beyond it is not looked at.

    shown : its name in messages; size : of the whole file, None where it is not known
    """
    whole = 2**63 if size is None else size
    _check_magic(shown, head[:512], whole)
    unpacked = 0
    try:
        for tags in _directories(io.BytesIO(head), head, len(head)):
            _check_sizes(shown, tags)
            _check_extent(shown, tags, whole)
            unpacked += _unpacked(tags)
    except (struct.error, EOFError):
        pass  # directories at the end of the file, or lists longer than the head: GDAL's to read
    _check_ratio(shown, unpacked, whole)


def _check(path):
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        start = stream.read(512)
        _check_magic(path, start, size)
        try:
            unpacked = 0
            for tags in _directories(stream, start, size, whole=True):
                _check_sizes(path, tags)
                _check_extent(path, tags, size)
                unpacked += _unpacked(tags)
            _check_ratio(path, unpacked, size)
        except (struct.error, EOFError) as err:
            raise StackError(
                f"{path} is truncated: its directory, or values that it names, lie beyond the end of the file "
                f"({size} bytes). Fetch it again."
            ) from err


def _check_magic(path, start, size):
    if size == 0:
        raise StackError(f"{path} is empty (0 bytes). Fetch it again.")
    text = start.lstrip()[:64].lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        raise StackError(f"{path} is an HTML page, not a raster: the server sent an error page. Fetch it again.")
    if b"<vrtdataset" in start.lower():
        raise StackError(f"{path} is a VRT, which can read any other file; give the GeoTIFFs themselves.")
    if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise StackError(f"{path} is not a TIFF (it begins with {start[:8]!r}). Convert it to GeoTIFF or COG.")


def _directories(stream, start, size, *, whole=False):
    """The tags that are wanted here, of every directory. whole : nothing may lie beyond `size`, also of other tags"""
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    count_code, entry, offset_code = ("Q", 20, "Q") if big else ("H", 12, "I")
    place = struct.unpack_from(order + offset_code, start, 8 if big else 4)[0]
    seen = set()
    while place and place not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(place)
        head = _at(stream, place, struct.calcsize(order + count_code), size)
        count = struct.unpack(order + count_code, head)[0]
        table = _at(stream, place + len(head), count * entry + struct.calcsize(offset_code), size)
        if whole:
            _check_values(table, count, entry, order, big, size)
        yield dict(_entries(stream, table, count, entry, order, big, size))
        place = struct.unpack_from(order + offset_code, table, count * entry)[0]


def _entries(stream, table, count, entry, order, big, size):
    for k in range(count):
        tag, kind = struct.unpack_from(order + "HH", table, k * entry)
        if kind not in _TYPES or (tag not in _WANTED and tag not in _PLACES):
            continue
        number = struct.unpack_from(order + ("Q" if big else "I"), table, k * entry + 4)[0]
        if number > (_MAX_BLOCKS if tag in _PLACES else MAX_BANDS * 64):
            yield tag, (number,) if tag not in _PLACES else _TOO_MANY
            continue
        code = order + str(number) + _TYPES[kind]
        length = struct.calcsize(code)
        inline = 8 if big else 4
        where = k * entry + (12 if big else 8)
        if length <= inline:
            yield tag, struct.unpack_from(code, table, where)
        else:
            place = struct.unpack_from(order + ("Q" if big else "I"), table, where)[0]
            yield tag, struct.unpack(code, _at(stream, place, length, size))


def _check_values(table, count, entry, order, big, size):
    """EOFError where the values of a tag lie beyond the end: band names and georeference may be written last."""
    inline, code = (8, "Q") if big else (4, "I")
    for k in range(count):
        kind = struct.unpack_from(order + "H", table, k * entry + 2)[0]
        number, place = (struct.unpack_from(order + code, table, k * entry + at)[0] for at in (4, 4 + inline))
        length = number * _BYTES.get(kind, 0)
        if length > inline and place + length > size:
            raise EOFError


def _at(stream, place, length, size):
    if place + length > size:
        raise EOFError
    stream.seek(place)
    return stream.read(length)


def _check_sizes(path, tags):
    width, height = (tags.get(t, (0,))[0] for t in (_WIDTH, _HEIGHT))
    samples = tags.get(_SAMPLES, (1,))[0]
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise StackError(
            f"{path} claims {width} x {height} pixels; at most 2^31 are read from one file. "
            "If that is true, cut it into tiles."
        )
    if any(tags.get(place) == _TOO_MANY for place in _PLACES):
        raise StackError(f"{path} claims more than {_MAX_BLOCKS} blocks. Rewrite it with larger ones: gdal_translate.")
    if samples > MAX_BANDS:
        raise StackError(f"{path} claims {samples} bands; at most {MAX_BANDS} are read. The header is not credible.")
    block = _block_bytes(tags)
    if block > MAX_BLOCK_BYTES:
        raise StackError(
            f"{path} has blocks of {block / 2**20:.0f} MiB; a read would allocate that at "
            f"once, and at most {MAX_BLOCK_BYTES // 2**20} MiB are. Rewrite it tiled: gdal_translate -of COG."
        )


def _block_bytes(tags):
    """What one block takes when it is unpacked."""
    width, height = (tags.get(t, (0,))[0] for t in (_WIDTH, _HEIGHT))
    sample_bytes = -(-max(tags.get(_BITS, (1,))) // 8)
    together = tags.get(_SAMPLES, (1,))[0] if tags.get(_PLANAR, (1,))[0] == 1 else 1
    if _TILE_WIDTH in tags:
        block = tags[_TILE_WIDTH][0] * tags.get(_TILE_HEIGHT, (0,))[0]
    else:
        block = width * min(height, tags.get(_ROWS_PER_STRIP, (height,))[0])
    return block * sample_bytes * together


def _unpacked(tags):
    """What all blocks that hold anything unpack to."""
    lengths = tags.get(_TILE_COUNTS, ()) or tags.get(_STRIP_COUNTS, ())
    return _block_bytes(tags) * sum(1 for n in lengths if n)


def _check_ratio(path, unpacked, size):
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * size:
        raise StackError(
            f"{path} would unpack its {size} bytes to {unpacked / 2**30:.1f} GiB; no scene packs that well "
            f"(at most {MAX_RATIO} times). It is refused as a decompression bomb."
        )


def _check_extent(path, tags, size):
    for places, counts in ((_STRIP_OFFSETS, _STRIP_COUNTS), (_TILE_OFFSETS, _TILE_COUNTS)):
        ends = [o + n for o, n in zip(tags.get(places, ()), tags.get(counts, ())) if n]
        if ends and max(ends) > size:
            lost = sum(end > size for end in ends)
            raise StackError(
                f"{path} is truncated: {lost} of {len(ends)} blocks lie beyond its end ({size} bytes, "
                f"{max(ends)} are needed). Fetch it again."
            )
