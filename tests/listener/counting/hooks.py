"""Faults that a process brings upon itself, at a statement that its environment names.

``COUNTING_FAULT`` is ``before:7`` or ``after:7``: the seventh statement, counted from the start of
the process. ``COUNTING_STATEMENTS`` is a file that gets a byte for each statement.
"""

import os
import signal

from django.db.backends.signals import connection_created


def install():
    if {"COUNTING_FAULT", "COUNTING_STATEMENTS"} & os.environ.keys():
        connection_created.connect(_watch, dispatch_uid="counting")


def _watch(connection, **kwargs):
    if _at_statement not in connection.execute_wrappers:
        connection.execute_wrappers.append(_at_statement)


_made = 0


def _at_statement(execute, sql, params, many, context):
    global _made  # noqa: PLW0603
    _made += 1
    number = _made
    _die_at(f"before:{number}")
    result = execute(sql, params, many, context)
    if "COUNTING_STATEMENTS" in os.environ:
        with open(os.environ["COUNTING_STATEMENTS"], "ab") as file:  # noqa: PTH123
            file.write(b".")
    _die_at(f"after:{number}")
    return result


def _die_at(place):
    if os.environ.get("COUNTING_FAULT") == place:
        os.kill(os.getpid(), signal.SIGKILL)
