"""Faults that a process brings upon itself, at a statement that its environment names.

``COUNTING_FAULT`` is ``default:before:7`` or ``keeper:after:7``: the seventh statement, counted
from the start, of the worker of the queue “default”, or of the keeper. There it kills itself, or
has its connections cut where ``COUNTING_CUT`` says how and by which control port of a proxy:
``unplug:40123``. That happens once: ``COUNTING_DONE`` is a file that is made then.
``COUNTING_STATEMENTS`` is a file that gets a line for each statement. ``default:connecting`` is a
query of that worker during Django's ``connect()``, ``default:images`` the first one for images.

``COUNTING_PATIENCE`` is how many seconds a dead connection is waited for. ``COUNTING_PROXY``, the
control port, says which connections are dead: on a busy machine, an answer may take longer.
"""

import os
import signal
import socket
import time
from collections import Counter
from contextlib import suppress
from multiprocessing import current_process
from pathlib import Path

import psycopg
from django.db.backends.signals import connection_created

from bulksafe.listener.watchdog import Watchdog


def install():
    if {"COUNTING_FAULT", "COUNTING_STATEMENTS"} & os.environ.keys():
        connection_created.connect(_watch, dispatch_uid="counting")
    if "COUNTING_PATIENCE" in os.environ:
        Watchdog.__init__.__defaults__ = (float(os.environ["COUNTING_PATIENCE"]),)
        Watchdog._has_expired = _has_expired


_is_overdue = Watchdog._has_expired


def _has_expired(watchdog):
    return _is_overdue(watchdog) and _is_any_dead(watchdog._current())


def _is_any_dead(drivers):
    ports = []
    for driver in drivers:
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(driver.fileno())) as end:
            ports.append(end.getsockname()[1])
    question = " ".join(map(str, ["dead", *ports]))
    return int(_ask(os.environ["COUNTING_PROXY"], question)) > 0


def _watch(connection, **kwargs):
    if _at_statement not in connection.execute_wrappers:
        connection.execute_wrappers.append(_at_statement)
    place = f"{current_process().name}:connecting"
    if os.environ.get("COUNTING_FAULT") == place:
        _break_at(place)
        # As django.contrib.postgres does, which looks its types up.
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


#: By the name of the process: one that is forked goes on from where its parent was.
_made = Counter()


def _at_statement(execute, sql, params, many, context):
    who = current_process().name
    _made[who] += 1
    number = _made[who]
    _break_at(f"{who}:before:{number}")
    if '"new 0"' in sql:
        _break_at(f"{who}:images")
    result = execute(sql, params, many, context)
    if "COUNTING_STATEMENTS" in os.environ:
        with Path(os.environ["COUNTING_STATEMENTS"]).open("a") as file:
            file.write(f"{who}\n")
    _break_at(f"{who}:after:{number}")
    return result


def _break_at(place):
    if os.environ.get("COUNTING_FAULT") != place:
        return
    try:
        Path(os.environ["COUNTING_DONE"]).touch(exist_ok=False)
    except FileExistsError:
        return
    if "COUNTING_CUT" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    how, port = os.environ["COUNTING_CUT"].split(":")
    _ask(port, how)


def _ask(port, what):
    with socket.create_connection(("127.0.0.1", int(port))) as proxy:
        proxy.sendall(what.encode())
        return proxy.recv(100)


def do_deed(receiver, instance):
    """Hang, or end the process, at some rows: once each."""
    deed, _, folder = os.environ.get("COUNTING_DEED", "").partition(":")
    if not deed or (instance.pk + instance.version) % 5:
        return
    try:
        (Path(folder) / f"{receiver}-{instance.pk}-{instance.version}").touch(exist_ok=False)
    except FileExistsError:
        return
    if deed == "end":
        os._exit(1)
    time.sleep(3600)
