"""Reading STAC documents, local or remote, with waits, sizes and addresses bounded."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pystac

from geoalign.errors import StackError
from geoalign.io.address import Pinned
from geoalign.io.geotiff import check_path, is_remote

_TIMEOUT_S = 30
_TRIES = 3
_MAX_BYTES = 2**28
_HEAD_BYTES = 2**16
_AGAIN = (429, 500, 502, 503, 504)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to an address that would have been allowed in the first place."""

    def __init__(self, trusted_host):
        self.trusted_host = trusted_host

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        check_path(newurl, trusted_host=self.trusted_host)
        if not is_remote(newurl):
            raise StackError(f"{req.full_url.split('?')[0]} redirects to {newurl!r}; that is refused.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Documents(pystac.StacIO):
    """Reads the documents of one catalogue.

    root : its path or address. A remote catalogue can't lead to local files, nor to private addresses other than its
        own host; three tries with growing waits where a server is busy, 30 s each, 256 MB at most.
    """

    def __init__(self, root):
        super().__init__()
        self.root = str(root)
        self.trusted_host = urlsplit(self.root).netloc if is_remote(self.root) else None

    def read_text(self, source, *args, **kwargs):
        text = str(source)
        if is_remote(text):
            return self._fetch(check_path(text, trusted_host=self.trusted_host))
        if is_remote(self.root):
            raise StackError(f"{self.root.split('?')[0]} points to {text!r} on this machine; that is refused.")
        place = Path(check_path(text))
        try:
            if place.stat().st_size > _MAX_BYTES:
                raise StackError(f"{text} is larger than {_MAX_BYTES // 2**20} MB; that is no STAC document.")
            return place.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise StackError(f"{text} can't be read as STAC: {err}.") from err

    def write_text(self, dest, txt, *args, **kwargs):
        raise StackError(f"{dest}: catalogues are only read here.")

    def _fetch(self, address):
        headers = {"Accept": "application/geo+json, application/json"}
        body, _ = _got(address, self.trusted_host, headers, _MAX_BYTES + 1)
        if len(body) > _MAX_BYTES:
            shown = address.split("?")[0]
            raise StackError(f"{shown} is larger than {_MAX_BYTES // 2**20} MB; that is no STAC document.")
        return body.decode("utf-8", errors="replace")


def peek(address, trusted_host: str | None = None) -> tuple[bytes, int | None]:
    """The beginning of a remote file and its size (None where the server does not say).

    Asked for over a checked connection before GDAL sees the address: one that redirects to a private network, or whose
    header claims the world, is refused here.
    """
    body, headers = _got(address, trusted_host, {"Range": f"bytes=0-{_HEAD_BYTES - 1}"}, _HEAD_BYTES)
    text = str(headers.get("Content-Range") or headers.get("Content-Length") or "").rpartition("/")[2]
    return body, int(text) if text.isascii() and text.isdigit() else None


def _got(address, trusted_host, headers, limit):
    """(body up to a limit, headers) of an answer; three tries with growing waits where a server is busy."""
    shown = address.split("?")[0]
    opener = urllib.request.build_opener(_Redirects(trusted_host), Pinned(trusted_host))
    request = urllib.request.Request(address, headers=headers)
    for attempt in range(_TRIES):
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as answer:
                return answer.read(limit), answer.headers
        except urllib.error.HTTPError as err:
            if err.code not in _AGAIN or attempt == _TRIES - 1:
                raise StackError(f"{shown} can't be read: the server answers {err.code} {err.reason}.") from err
        except (OSError, http.client.HTTPException) as err:
            if attempt == _TRIES - 1:
                raise StackError(f"{shown} can't be reached: {err} ({_TRIES} tries).") from err
        time.sleep(0.5 * 2**attempt)
    raise AssertionError("the last try returns or raises")
