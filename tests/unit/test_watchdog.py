"""The watchdog ends connections whose server does not answer, and no others."""

import socket
from types import SimpleNamespace

import pytest

from bulksafe.listener import watchdog as module
from bulksafe.listener.watchdog import Watchdog, shut_down
from tests.listener.site import wait_until


class Clock:
    """It stands still until it is set: a busy machine is not to look like a silent server."""

    def __init__(self):
        self.now = 0.0
        self.reads = 0

    def monotonic(self):
        self.reads += 1
        return self.now

    def pass_every_deadline(self):
        """Return once the watchdog has looked at all that is pending by then."""
        self.now += 1000.0
        enough = self.reads + 3
        wait_until(lambda: self.reads >= enough, "the watchdog does not look")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def pair():
    """Two ends of a connection; the first looks like one of psycopg's."""
    near, far = socket.socketpair()
    near.settimeout(10)
    with near, far:
        yield SimpleNamespace(pgconn=SimpleNamespace(socket=near.fileno())), near, far


@pytest.fixture
def watchdog(pair):
    watchdog = Watchdog(patience=0.1)
    watchdog.monitor(lambda: pair[0])
    yield watchdog
    watchdog.close()


def test_a_query_without_an_answer_is_cut_off(watchdog, pair, caplog):
    _, near, _ = pair
    with watchdog.watch():
        assert near.recv(1) == b""
    assert "no answer from the server" in caplog.text


def test_an_answer_in_time_leaves_the_connection_alone(clock, watchdog, pair):
    _, near, far = pair
    for _ in range(3):
        with watchdog.watch():
            far.send(b"x")
            assert near.recv(1) == b"x"
    clock.pass_every_deadline()
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        near.recv(1)


def test_a_watch_that_raises_is_no_longer_pending(clock, watchdog, pair):
    _, near, _ = pair
    with pytest.raises(ValueError, match="wrong"), watchdog.watch():
        raise ValueError("wrong")
    clock.pass_every_deadline()
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        near.recv(1)


def test_a_connection_that_is_opened_late_is_cut_off_at_a_later_deadline(pair):
    connection, near, _ = pair
    found = iter([None])
    watchdog = Watchdog(patience=0.1)
    watchdog.monitor(lambda: next(found, connection))
    try:
        with watchdog.watch():
            assert near.recv(1) == b""
    finally:
        watchdog.close()


def test_a_connection_that_is_closed_already_is_passed_over():
    shut_down(SimpleNamespace(pgconn=SimpleNamespace(socket=-1)))
