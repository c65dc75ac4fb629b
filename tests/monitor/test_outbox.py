import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from geoalign.errors import ConfigError
from geoalign.io import address
from geoalign.monitor import outbox
from geoalign.monitor.ledger import Ledger
from tests.monitor.things import alert_of, config_of, site_of

SECRET = "s3cret-of-the-test"


class Receiver:
    """A server on this machine that notes what it gets and answers as told."""

    def __init__(self):
        self.got, self.status, self.headers, self.slow_s, self.drip_s = [], [], {}, 0.0, 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body, self.path))
                time.sleep(receiver.slow_s)
                if receiver.drip_s:
                    for letter in "HTTP/1.1 200 a very long reason":
                        self.wfile.write(letter.encode())
                        time.sleep(receiver.drip_s)
                self.send_response(receiver.status.pop(0) if receiver.status else 204)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *args: None
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=t0ken"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def keys(self):
        return [head["Idempotency-Key"] for head, *_ in self.got]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def config(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    return config_of(tmp_path, hook(receiver.url))


def hook(url, name="duty", more="allow_private = true\ntimeout_s = 2"):
    return f'[[monitor.webhook]]\nname = "{name}"\nurl = "{url}"\nsecret = "HOOK_SECRET"\n{more}\n'


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as made:
        yield made


def publish(ledger, config, *alerts, visit=1):
    with ledger.writing() as db:
        return outbox.enqueue(db, [(a, "new") for a in alerts], site_of(config, visit))


def test_each_revision_is_posted_once_signed_and_in_order(ledger, config, receiver):
    first, second = alert_of(1), alert_of(2, probability=float("nan"))
    assert publish(ledger, config, first, second, first.with_revision(2)) == 3
    assert outbox.deliver(ledger, config) == {"sent": 3, "waiting": 0, "failed": 0, "next_at": None}
    assert receiver.keys == [first.key, second.key, first.with_revision(2).key]
    head, body, path = receiver.got[0]
    assert path == "/hook?token=t0ken"
    assert outbox.verify(SECRET, head, body)
    assert not outbox.verify(SECRET, head, body + b" ")
    assert not outbox.verify(SECRET, head, body, now=time.time() + 3600)
    assert not outbox.verify("another", head, body)
    event = json.loads(body)
    assert (event["specversion"], event["id"], event["type"]) == ("1.0", first.key, "geoalign.alert.confirmed")
    lon, lat = event["data"]["geometry"]["coordinates"][0][0]
    assert 15.0 < lon < 15.01
    assert 48.7 < lat < 48.8
    assert json.loads(receiver.got[1][1])["data"]["probability"] is None
    assert outbox.deliver(ledger, config)["sent"] == 0
    assert len(receiver.got) == 3


def test_rows_are_written_once_and_only_for_what_the_webhook_wants(ledger, tmp_path, receiver, monkeypatch):
    more = hook(receiver.url) + hook(receiver.url, "other", 'allow_private = true\nthemes = ["flood"]')
    config = config_of(tmp_path, more)
    assert publish(ledger, config, alert_of(1), alert_of(2, status="first")) == 1
    assert publish(ledger, config, alert_of(1)) == 0
    assert publish(ledger, config, alert_of(4, theme="flood")) == 2


def test_a_retraction_is_told_to_those_who_heard_of_the_alert(ledger, tmp_path, receiver, monkeypatch):
    more = hook(receiver.url) + hook(receiver.url, "all", 'allow_private = true\nstatuses = ["first", "retracted"]')
    config = config_of(tmp_path, more)
    assert publish(ledger, config, alert_of(1), alert_of(2, status="first")) == 2
    gone = [alert_of(n, status="retracted").with_revision(2) for n in (1, 2, 3)]
    assert publish(ledger, config, *gone) == 2
    rows = ledger.rows("SELECT alert, endpoint FROM outbox WHERE revision = 2 ORDER BY endpoint")
    assert [(r["alert"], r["endpoint"]) for r in rows] == [(gone[1].id, "all"), (gone[0].id, "duty")]
    alone = config_of(tmp_path, hook(receiver.url, "log", 'allow_private = true\nstatuses = ["retracted"]'))
    assert publish(ledger, alone, *gone) == 3


def test_a_rolled_back_publication_sends_nothing(ledger, config, receiver):
    with pytest.raises(RuntimeError), ledger.writing() as db:  # noqa: PT012
        outbox.enqueue(db, [(alert_of(1), "new")], site_of(config))
        raise RuntimeError("killed before the commit")
    assert outbox.deliver(ledger, config)["waiting"] == 0
    assert receiver.got == []


@pytest.mark.parametrize("status", [500, 503, 429, 408, 302])
def test_a_receiver_in_trouble_is_left_alone_and_gets_the_same_keys_later(ledger, config, receiver, status):
    publish(ledger, config, alert_of(1), alert_of(2))
    receiver.status = [status]
    receiver.headers = {"Location": "http://169.254.169.254/latest/meta-data"} if status == 302 else {}
    now = time.time()
    told = outbox.deliver(ledger, config, now=now)
    assert (told["sent"], told["waiting"]) == (0, 2)
    assert 45 <= told["next_at"] - now <= 75
    assert len(receiver.got) == 1
    assert outbox.deliver(ledger, config, now=now + 30)["sent"] == 0
    assert len(receiver.got) == 1
    assert outbox.deliver(ledger, config, now=told["next_at"] + 1) == {
        "sent": 2, "waiting": 0, "failed": 0, "next_at": None,
    }  # fmt: skip
    assert receiver.keys == [alert_of(1).key, alert_of(1).key, alert_of(2).key]


def test_the_waits_grow_up_to_six_hours_and_a_day_counts_as_failed(ledger, config, receiver):
    publish(ledger, config, alert_of(1))
    now, waits = time.time(), []
    for _ in range(14):
        receiver.status = [500]
        told = outbox.deliver(ledger, config, now=now)
        waits.append(told["next_at"] - now)
        now = told["next_at"] + 1
    assert all(b > 1.1 * a for a, b in itertools.pairwise(waits[:9]))
    assert max(waits) <= 1.25 * 6 * 3600
    assert told["failed"] == 1
    assert outbox.deliver(ledger, config, now=now)["sent"] == 1


def test_what_the_receiver_asks_to_wait_is_honoured_up_to_a_day(ledger, config, receiver):
    publish(ledger, config, alert_of(1))
    now = 1_700_000_000.0
    for asked, waited in (("900", 900), ("Wed, 15 Nov 2023 22:13:20 GMT", 86400), ("9" * 30, 86400)):
        receiver.status, receiver.headers = [503], {"Retry-After": asked}
        told = outbox.deliver(ledger, config, now=now)
        assert told["next_at"] == pytest.approx(now + waited, abs=1)
        with ledger.writing() as db:
            db.execute("UPDATE outbox SET next_at = 0, attempts = 0")


def test_one_message_that_is_refused_does_not_hold_the_others_but_its_own_later_ones(ledger, config, receiver):
    publish(ledger, config, alert_of(1), alert_of(2), alert_of(1).with_revision(2))
    receiver.status = [413]
    assert outbox.deliver(ledger, config)["sent"] == 1
    assert receiver.keys == [alert_of(1).key, alert_of(2).key]


def test_a_receiver_that_is_down_or_slow_costs_one_wait(ledger, config, receiver, tmp_path):
    publish(ledger, config, *(alert_of(k) for k in range(20)))
    receiver.slow_s = 6.0
    start = time.perf_counter()
    assert outbox.deliver(ledger, config)["waiting"] == 20
    assert time.perf_counter() - start < 5
    receiver.server.shutdown()
    receiver.server.server_close()
    told = outbox.deliver(ledger, config, now=time.time() + 600)
    assert told["waiting"] == 20
    assert "no answer" in ledger.row("SELECT error FROM outbox WHERE attempts = 2")["error"]


def test_an_answer_that_comes_drop_by_drop_does_not_hold_the_visit(ledger, tmp_path, receiver, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    config = config_of(tmp_path, hook(receiver.url, more="allow_private = true\ntimeout_s = 0.5"))
    publish(ledger, config, alert_of(1))
    receiver.drip_s = 0.3
    start = time.perf_counter()
    assert outbox.deliver(ledger, config)["sent"] == 0
    assert time.perf_counter() - start < 4


def test_a_kill_between_the_answer_and_the_note_sends_again_under_the_same_key(ledger, config, receiver, tmp_path):
    publish(ledger, config, alert_of(1), alert_of(2))
    code = f"""
import os, signal
from pathlib import Path
from tests.monitor.things import config_of
from geoalign.monitor import outbox
from geoalign.monitor.ledger import Ledger
real = outbox._post
def post(*args):
    answer = real(*args)
    os.kill(os.getpid(), signal.SIGKILL)
outbox._post = post
folder = Path({str(tmp_path)!r})
outbox.deliver(Ledger(folder / "ledger.sqlite"), config_of(folder, {hook(receiver.url)!r}))
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == -signal.SIGKILL
    assert receiver.keys == [alert_of(1).key]
    assert outbox.deliver(ledger, config)["sent"] == 2
    assert receiver.keys == [alert_of(1).key, alert_of(1).key, alert_of(2).key]
    assert outbox.deliver(ledger, config)["sent"] == 0


def test_a_clock_that_was_set_back_does_not_silence_the_outbox(ledger, config, receiver):
    publish(ledger, config, alert_of(1))
    receiver.status = [500]
    outbox.deliver(ledger, config, now=time.time() + 30 * 86400)
    assert outbox.deliver(ledger, config)["sent"] == 1


def test_without_its_secret_nothing_is_sent_and_secrets_are_never_shown(ledger, config, receiver, monkeypatch, caplog):
    publish(ledger, config, alert_of(1))
    monkeypatch.delenv("HOOK_SECRET")
    now = time.time()
    assert outbox.deliver(ledger, config, now=now)["waiting"] == 1
    assert receiver.got == []
    assert "HOOK_SECRET is not set" in caplog.text
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    receiver.status = [500, 302]
    for later in (600, 6000):
        outbox.deliver(ledger, config, now=now + later)
    kept = json.dumps(ledger.rows("SELECT * FROM outbox"))
    assert len(receiver.got) == 2
    for secret in (SECRET, "t0ken"):
        assert secret not in caplog.text
        assert secret not in kept


@pytest.fixture
def no_socket(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]", "2130706433", "[::ffff:10.0.0.1]"])
def test_a_webhook_to_the_inside_is_refused_before_a_socket_is_opened(ledger, tmp_path, monkeypatch, no_socket, host):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    config = config_of(tmp_path, hook(f"https://{host}/hook", more=""))
    publish(ledger, config, alert_of(1))
    assert outbox.deliver(ledger, config)["sent"] == 0
    error = ledger.row("SELECT error FROM outbox")["error"]
    assert "private network" in error or "not known" in error


def test_a_name_that_turns_inside_after_it_was_checked_leads_nowhere(ledger, tmp_path, monkeypatch, receiver):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    config = config_of(tmp_path, hook("https://rebinding.example/hook", more="timeout_s = 1"))
    publish(ledger, config, alert_of(1))
    port = receiver.server.server_port
    answers = iter([("93.184.216.34", 443), ("127.0.0.1", port), ("127.0.0.1", port)])
    asked, opened = [], []

    def lookup(host, *args, **kwargs):
        asked.append(host)
        return [(2, 1, 6, "", next(answers))]

    def connect(place, *args, **kwargs):
        opened.append(place)
        raise OSError("not in a test")

    monkeypatch.setattr(address.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(address.socket, "create_connection", connect)
    assert outbox.deliver(ledger, config)["sent"] == 0
    assert asked == ["rebinding.example"]
    assert opened == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (hook("http://example.com/x", more=""), "https"),
        (hook("https://user:pass@example.com/x"), "password"),
        (hook("https://example.com") + hook("https://example.org"), "twice"),
        ('[[monitor.webhook]]\nname = "a"\nurl = "https://example.com"\n', "secret: missing"),
        (hook("https://example.com", more="timeout = 3"), "did you mean 'timeout_s'"),
        ('[[monitor.area]]\nname = "a"\npath = "nowhere.geojson"\n', "is not there"),
    ],
)
def test_what_is_wrong_with_a_webhook_is_said_with_its_line(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words) as err:
        config_of(tmp_path, text)
    assert "site.toml:" in str(err.value)


def test_messages_for_a_webhook_that_is_gone_are_kept_and_counted(ledger, config, tmp_path, receiver):
    publish(ledger, config, alert_of(1))
    (tmp_path / "other").mkdir()
    told = outbox.deliver(ledger, config_of(tmp_path / "other"))
    assert told == {"sent": 0, "waiting": 1, "failed": 1, "next_at": None}
