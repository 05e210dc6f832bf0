"""An alert reaches a webhook whole, or a sentence says why not: in bounded time, without secret or redirects."""

import json
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from resources.alerts import Failed, LogAlerts, WebhookAlerts

FAILED = Failed("0123456789abcdef", "everything", "may", "retraining", ["sft_checkpoint: out of memory. Lower it."])
SECRET = "T0/B0/sEcReT"


@contextmanager
def server(*behaviours):
    """A server whose nth connection is handled by the nth behaviour, the last for all further; the requests it saw."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen, stop = [], threading.Event()

    def serve():
        number = 0
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            behave = behaviours[min(number, len(behaviours) - 1)]
            number += 1
            threading.Thread(target=handle, args=(connection, behave), daemon=True).start()

    def handle(connection, behave):
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65_536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(
                next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split(b":")[1]
            )
            while len(body) < length:
                body += connection.recv(65_536)
            seen.append((head.split(b"\r\n")[0].decode(), json.loads(body)))
            with suppress(OSError):
                behave(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        stop.set()
        listener.close()


def answer(status, extra=""):
    return lambda connection: connection.sendall(f"HTTP/1.1 {status} x\r\n{extra}Content-Length: 0\r\n\r\n".encode())


def silent(connection):
    time.sleep(3)


def dripping(connection):
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 50:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def cut(connection):
    connection.sendall(b"HTTP/1.1 20")


def rubbish(connection):
    connection.sendall(b"\x00\xff not http at all\r\n\r\n")


def send(port, monkeypatch, **options):
    monkeypatch.setenv("DPO_PIPELINE_ALERT_WEBHOOK", f"http://127.0.0.1:{port}/{SECRET}?key={SECRET}")
    return WebhookAlerts(**{"seconds": 0.5, "pause": 0.01, **options}).send(FAILED)


def test_the_webhook_hears_what_failed_where_and_why_with_a_link(monkeypatch):
    with server(answer(200)) as (port, seen):
        assert send(port, monkeypatch) is None
    [(request, words)] = seen
    assert request == f"POST /{SECRET}?key={SECRET} HTTP/1.1"
    link = "http://127.0.0.1:3000/runs/0123456789abcdef"
    assert words == {
        "text": "everything of drop may failed (run 01234567, started by retraining).\n"
        f"- sft_checkpoint: out of memory. Lower it.\n{link}",
        "run": "0123456789abcdef",
        "job": "everything",
        "drop": "may",
        "started_by": "retraining",
        "reasons": ["sft_checkpoint: out of memory. Lower it."],
        "link": link,
    }


@pytest.mark.parametrize("bad", [answer(503), answer(429), silent, dripping, cut, rubbish])
def test_a_server_that_misbehaves_once_is_asked_again(bad, monkeypatch):
    with server(bad, answer(204)) as (port, seen):
        assert send(port, monkeypatch) is None
        assert len(seen) == 2


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (answer(500), "127.0.0.1 answered 500"),
        (silent, "127.0.0.1 "),
        (dripping, "127.0.0.1 gave no answer within 0.5 s"),
        (cut, "127.0.0.1 could not be asked"),
        (rubbish, "127.0.0.1 could not be asked"),
    ],
)
def test_one_that_stays_that_way_is_named_after_three_tries_in_bounded_time(bad, sentence, monkeypatch):
    started = time.monotonic()
    with server(bad) as (port, seen):
        fault = send(port, monkeypatch)
        assert len(seen) == 3
    assert fault.startswith(sentence)
    assert SECRET not in fault
    assert time.monotonic() - started < 15, "three tries of half a second; the rest is a busy machine"


@pytest.mark.parametrize("status", [301, 307, 400, 404, 410])
def test_a_refusal_or_a_redirect_is_final(status, monkeypatch):
    with (
        server(answer(200)) as (elsewhere, never),
        server(answer(status, f"Location: http://127.0.0.1:{elsewhere}/\r\n")) as (port, seen),
    ):
        assert send(port, monkeypatch) == f"127.0.0.1 answered {status}"
        assert (len(seen), never) == (1, [])


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://x/y", "http://", "http://[half", "http://h:port/x"])
def test_what_is_no_webhook_is_refused_without_repeating_it(url, monkeypatch):
    monkeypatch.setenv("DPO_PIPELINE_ALERT_WEBHOOK", url)
    fault = WebhookAlerts(pause=0.0).send(FAILED)
    assert fault
    assert "passwd" not in fault


def test_nobody_listening_is_a_sentence(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert send(port, monkeypatch) == "127.0.0.1 could not be asked (ConnectionRefusedError)"


def test_the_url_is_in_no_representation_of_the_resource(monkeypatch):
    monkeypatch.setenv("DPO_PIPELINE_ALERT_WEBHOOK", f"https://hooks.example/{SECRET}")
    assert SECRET not in repr(WebhookAlerts()) + WebhookAlerts().model_dump_json()


def test_without_a_webhook_nothing_is_sent():
    assert LogAlerts().send(FAILED) is None
