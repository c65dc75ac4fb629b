"""What is sent: every revision of an alert to every webhook, at least once, signed.

Rows are written in the transaction that publishes and are done only when the receiver has answered 2xx. A kill between
the answer and the note sends once more, under the same key: receivers drop what they have seen (`Idempotency-Key`).
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import os
import random
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from geoalign import __version__
from geoalign.errors import GeoalignError
from geoalign.io.address import connection
from geoalign.monitor.alerts import RETRACTED, outline
from geoalign.publish import finite

log = logging.getLogger("geoalign")

FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 6 * 3600.0
FAILED_AFTER_S = 24 * 3600.0
"""A message that has waited longer than this counts as failed; it is still tried."""
AT_ONCE = 1000
"""Messages a webhook gets in one visit; the rest waits for the next."""

_AGAIN = (408, 425, 429)


def message(alert, change: str, site) -> dict:
    """A revision as a CloudEvents 1.0 message.

    alert : Alert with its revision; change : words of what moved; site : `visit.Site`
    """
    import shapely

    from geoalign.io.lonlat import to_lonlat

    shape = outline(alert.runs, site.geobox)
    shape = shape if site.geobox.crs is None else to_lonlat(shape, str(site.geobox.crs))
    data = {k: v for k, v in alert.plain().items() if k != "runs"}
    data |= {
        "change": change.split(),
        "site": site.name,
        "generation": site.generation,
        "geometry": json.loads(shapely.to_geojson(shape)),
    }
    return {
        "specversion": "1.0",
        "id": alert.key,
        "source": f"/geoalign/{site.name}",
        "type": f"geoalign.alert.{alert.status}",
        "subject": alert.id,
        "time": _stamp(site),
        "datacontenttype": "application/json",
        "data": data,
    }


def enqueue(db, revisions, site) -> int:
    """Rows of the outbox for these revisions, inside the transaction that publishes them; returns how many.

    db : connection in a transaction; revisions : list of (Alert, change); site : `visit.Site`
    """
    hooks = site.config.monitor.webhook
    rows = 0
    for alert, change in revisions if hooks else ():
        body = ""
        for hook in hooks:
            if alert.status not in hook.statuses or (hook.themes is not None and alert.theme not in hook.themes):
                continue
            if alert.status == RETRACTED and len(hook.statuses) > 1 and not _told(db, alert, hook):
                continue  # who has not heard of it need not hear that it was nothing
            body = body or json.dumps(finite(message(alert, change, site)), sort_keys=True, default=str)
            found = db.execute(
                "INSERT OR IGNORE INTO outbox (alert, revision, endpoint, body, created) VALUES (?, ?, ?, ?, ?)",
                (alert.id, alert.revision, hook.name, body, _stamp(site)),
            )
            rows += found.rowcount
    return rows


def _told(db, alert, hook) -> bool:
    """Whether a webhook was to be told of an alert before."""
    rows = db.execute("SELECT 1 FROM outbox WHERE alert = ? AND endpoint = ? LIMIT 1", (alert.id, hook.name))
    return rows.fetchone() is not None


def deliver(ledger, config, *, now: float | None = None) -> dict:
    """Send what is due, webhook by webhook, each alert's revisions in order.

    A webhook that does not answer, or answers 3xx, 408, 425, 429 or 5xx, is left alone for a while: 60 s at first,
    twice as long each time, 6 h at most, with a random share of it off or on; what the receiver asks for in
    `Retry-After` is honoured. Any other answer is about this one message, and the others go on.

    Parameters
    ----------
    ledger : Ledger, open for writing
    config : Config
    now : seconds since 1970; the clock by default

    Returns
    -------
    dict: sent (now), waiting (all that is undelivered), failed (of those, what has waited more than a day or has no
    webhook any more), next_at (seconds since 1970 of the next try, None where nothing waits)
    """
    now = time.time() if now is None else now
    sent = 0
    for hook in config.monitor.webhook:
        sent += _deliver_to(hook, ledger, now)
    known = [hook.name for hook in config.monitor.webhook]
    waiting = ledger.rows("SELECT endpoint, created, next_at FROM outbox WHERE delivered IS NULL")
    failed = [w for w in waiting if w["endpoint"] not in known or now - _seconds(w["created"]) > FAILED_AFTER_S]
    next_at = min((w["next_at"] for w in waiting if w["endpoint"] in known), default=None)
    return {"sent": sent, "waiting": len(waiting), "failed": len(failed), "next_at": next_at}


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Hex HMAC-SHA256 of `timestamp.body`: what the header `Geoalign-Signature` carries after "v1="."""
    return hmac.new(secret.encode(), str(timestamp).encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(secret: str, headers, body: bytes, *, now: float | None = None, tolerance_s: float = 300.0) -> bool:
    """For receivers: whether a message is from who holds the secret, and not an old one sent again.

    headers : mapping with Geoalign-Timestamp and Geoalign-Signature

    Examples
    --------
    >>> head = {"Geoalign-Timestamp": "1700000000", "Geoalign-Signature": "v1=" + signature("s", 1700000000, b"{}")}
    >>> verify("s", head, b"{}", now=1700000010), verify("t", head, b"{}", now=1700000010)
    (True, False)
    """
    stamp = str(headers.get("Geoalign-Timestamp", ""))
    given = str(headers.get("Geoalign-Signature", "")).removeprefix("v1=")
    if not (stamp.isascii() and stamp.isdigit()):
        return False
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance_s:
        return False
    return hmac.compare_digest(given.encode(), signature(secret, int(stamp), body).encode())


def wait_s(attempts: int, key: str) -> float:
    """How long to wait after so many tries; the jitter follows from the message, so that a rerun waits the same."""
    spread = random.Random(f"{key}/{attempts}").uniform(0.75, 1.25)
    return min(FIRST_WAIT_S * 2.0 ** min(attempts - 1, 20), LONGEST_WAIT_S) * spread


def _deliver_to(hook, ledger, now) -> int:
    rows = ledger.rows(
        "SELECT id, alert, revision, attempts, next_at FROM outbox "
        "WHERE endpoint = ? AND delivered IS NULL ORDER BY id",
        hook.name,
    )
    sent, held = 0, set()
    for row in rows:
        # a clock that was set back must not hold a message for longer than any wait can be
        waits = now < row["next_at"] <= now + 2 * 86400
        if waits or row["alert"] in held:
            held.add(row["alert"])
            continue
        key = f"{row['alert']}+{row['revision']}"
        body = ledger.row("SELECT body FROM outbox WHERE id = ?", row["id"])["body"]
        answer = _post(hook, body.encode(), key, now)
        if answer.delivered:
            with ledger.writing() as db:
                db.execute(
                    "UPDATE outbox SET delivered = ?, attempts = attempts + 1, error = '' WHERE id = ?",
                    (f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}", row["id"]),
                )
            sent += 1
            if sent == AT_ONCE:
                break
            continue
        later = now + max(wait_s(row["attempts"] + 1, f"{hook.name}/{key}"), answer.wait_s)
        log.warning("webhook %s: %s; %s again in %.0f s", hook.name, answer.error, key, later - now)
        held.add(row["alert"])
        with ledger.writing() as db:
            db.execute(
                "UPDATE outbox SET attempts = attempts + 1, next_at = ?, error = ? WHERE id = ?",
                (later, answer.error, row["id"]),
            )
            if answer.down:
                db.execute(
                    "UPDATE outbox SET next_at = max(next_at, ?) WHERE endpoint = ? AND delivered IS NULL",
                    (later, hook.name),
                )
        if answer.down:
            break
    return sent


class _Answer:
    """What came of one POST: delivered; else error, whether the whole webhook is down, and what wait it asks for."""

    def __init__(self, error="", *, down=False, wait_s=0.0):
        self.delivered, self.error, self.down, self.wait_s = not error, error, down, wait_s


def _post(hook, body, key, now) -> _Answer:
    """One POST. Nothing of the address but its host is ever logged: a path or a query may hold a token."""
    secret = os.environ.get(hook.secret, "")
    if not secret:
        return _Answer(f"the environment variable {hook.secret} is not set, and nothing is sent unsigned", down=True)
    parts = urlsplit(hook.url)
    if parts.scheme != "https" and not (hook.allow_private and parts.scheme == "http"):
        return _Answer(f"{parts.scheme or 'no'} address; only https is used", down=True)
    secure = parts.scheme == "https"
    stamp = int(now)
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": f"geoalign/{__version__}",
        "Idempotency-Key": key,
        "Geoalign-Timestamp": str(stamp),
        "Geoalign-Signature": f"v1={signature(secret, stamp, body)}",
        "Connection": "close",
    }
    try:
        line = connection(
            parts.hostname or "", parts.port or (443 if secure else 80), secure=secure, timeout_s=hook.timeout_s,
            shown=f"the webhook {hook.name}", allow_private=hook.allow_private,
        )  # fmt: skip
    except ValueError as err:
        return _Answer(f"no valid address ({err})", down=True)
    # the time limit of a socket is for each piece: an answer that comes drop by drop would hold the visit
    watchdog = threading.Timer(2 * hook.timeout_s, line.close_now)
    watchdog.daemon = True
    try:
        watchdog.start()
        line.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
        answer = line.getresponse()
        status, again = answer.status, answer.headers.get("Retry-After", "")
    except GeoalignError as err:
        return _Answer(str(err).rstrip("."), down=True)
    except (OSError, http.client.HTTPException, ValueError) as err:
        return _Answer(f"no answer ({type(err).__name__}: {err})"[:300], down=True)
    finally:
        watchdog.cancel()
        line.close()
    if 200 <= status < 300:
        return _Answer()
    if 300 <= status < 400:
        return _Answer(f"it redirects (status {status}); redirects are not followed, give the final address", down=True)
    down = status in _AGAIN or status >= 500
    return _Answer(f"it answers {status}", down=down, wait_s=min(_retry_after(again, now), 86400.0))


def _retry_after(text, now) -> float:
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (TypeError, ValueError):
        return 0.0


def _stamp(site) -> str:
    return f"{site.created.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _seconds(stamp) -> float:
    moment = datetime.fromisoformat(str(stamp))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
