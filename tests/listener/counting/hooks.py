"""Faults that a process brings upon itself, at a statement that its environment names.

``COUNTING_FAULT`` is ``before:7`` or ``after:7``: the seventh statement, counted from the start of
the process. There it kills itself, or has its connections cut where ``COUNTING_CUT`` says how and
by which control port of a proxy: ``unplug:40123``. ``COUNTING_STATEMENTS`` is a file that gets a
byte for each statement.
"""

import os
import signal
import socket
from pathlib import Path

from django.db.backends.signals import connection_created

from bulksafe.listener.watchdog import Watchdog


def install():
    if {"COUNTING_FAULT", "COUNTING_STATEMENTS"} & os.environ.keys():
        connection_created.connect(_watch, dispatch_uid="counting")
    if "COUNTING_PATIENCE" in os.environ:
        Watchdog.__init__.__defaults__ = (float(os.environ["COUNTING_PATIENCE"]),)


def _watch(connection, **kwargs):
    if _at_statement not in connection.execute_wrappers:
        connection.execute_wrappers.append(_at_statement)


_made = 0


def _at_statement(execute, sql, params, many, context):
    global _made  # noqa: PLW0603
    _made += 1
    number = _made
    _break_at(f"before:{number}")
    result = execute(sql, params, many, context)
    if "COUNTING_STATEMENTS" in os.environ:
        with Path(os.environ["COUNTING_STATEMENTS"]).open("ab") as file:
            file.write(b".")
    _break_at(f"after:{number}")
    return result


def _break_at(place):
    if os.environ.get("COUNTING_FAULT") != place:
        return
    if "COUNTING_CUT" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    how, port = os.environ["COUNTING_CUT"].split(":")
    with socket.create_connection(("127.0.0.1", int(port))) as proxy:
        proxy.sendall(how.encode())
        proxy.recv(100)
