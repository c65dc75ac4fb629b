"""Which addresses may be spoken to, and a connection to exactly the one that was checked.

A name is resolved once, every answer is looked at, and the connection goes to that answer: a name that later resolves
to something else (DNS rebinding) leads nowhere.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import urllib.request
from urllib.parse import urlsplit

from geoalign.errors import StackError


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public network: not this machine, a private or a link-local one.

    Examples
    --------
    >>> [is_public(a) for a in ("1.1.1.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "224.0.0.1")]
    [True, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolved(host: str, port: int, shown: str, *, allow_private: bool = False) -> list[str]:
    """The addresses of a host, all of them public unless `allow_private`; StackError names `shown` where not."""
    try:
        found = [info[4][0] for info in socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)]
    except (OSError, UnicodeError) as err:
        raise StackError(f"{shown} can't be reached: the host {host!r} is not known ({err}).") from err
    for ip in found:
        if not allow_private and not is_public(ip):
            raise StackError(f"{shown} is refused: {host} is an address of this machine or a private network ({ip}).")
    return list(dict.fromkeys(found))


def connection(host, port, *, secure, timeout_s, shown, allow_private=False) -> http.client.HTTPConnection:
    """A connection, not open yet, that will go to an address of the host that was checked when it opens."""
    if secure:
        made = _Secure(host, port, timeout=timeout_s, context=ssl.create_default_context())
    else:
        made = _Plain(host, port, timeout=timeout_s)
    made.shown, made.allow_private = shown, allow_private
    return made


class _Plain(http.client.HTTPConnection):
    shown = ""
    allow_private = False

    def connect(self):
        self.sock = self._socket()

    def close_now(self):
        """End it from another thread: whoever waits on the socket gets an error."""
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _socket(self):
        error = None
        for ip in resolved(self.host, self.port, self.shown, allow_private=self.allow_private):
            try:
                return socket.create_connection((ip, self.port), self.timeout)
            except OSError as err:
                error = err
        raise error or OSError(f"{self.host} has no address")


class _Secure(_Plain, http.client.HTTPSConnection):
    def __init__(self, host, port, *, timeout, context):
        http.client.HTTPSConnection.__init__(self, host, port, timeout=timeout, context=context)
        self._own_context = context

    def connect(self):
        self.sock = self._own_context.wrap_socket(self._socket(), server_hostname=self.host)


class Pinned(urllib.request.AbstractHTTPHandler):
    """Opens urllib's requests over checked connections; `trusted_host` (host:port) may be private.

    Where the environment names a proxy it is the proxy that resolves names, and its own address is the user's affair.
    """

    handler_order = 100

    def __init__(self, trusted_host: str | None):
        super().__init__()
        self.trusted_host = trusted_host

    def http_open(self, req):
        return self._opened(req, secure=False)

    def https_open(self, req):
        return self._opened(req, secure=True)

    def _opened(self, req, *, secure):
        if req.has_proxy() or getattr(req, "_tunnel_host", None):
            return None  # the next handler's
        parts = urlsplit(req.full_url)

        def made(_, timeout=30, **__):
            return connection(
                parts.hostname, parts.port or (443 if secure else 80), secure=secure, timeout_s=timeout,
                shown=req.full_url.split("?")[0], allow_private=req.host == self.trusted_host,
            )  # fmt: skip

        return self.do_open(made, req)
