"""The watchdog ends connections whose server does not answer, and no others."""

import socket
from types import SimpleNamespace

import pytest

from bulksafe.listener.watchdog import Watchdog, shut_down


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


def test_an_answer_in_time_leaves_the_connection_alone(watchdog, pair):
    _, near, far = pair
    for _ in range(3):
        with watchdog.watch():
            far.send(b"x")
            assert near.recv(1) == b"x"
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
        near.recv(1)


def test_a_watch_that_raises_is_no_longer_pending(watchdog, pair):
    _, near, _ = pair
    with pytest.raises(ValueError, match="wrong"), watchdog.watch():
        raise ValueError("wrong")
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
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
