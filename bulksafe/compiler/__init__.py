"""The form of an invariant that migrations store: template names and their variables.

A released class path, its arguments and the templates of a released version never change their
meaning: old migrations refer to them.
"""

from bulksafe.compiler.capture import ROW, SWITCHED_OFF, CaptureTrigger, changed_rows, updated_rows
from bulksafe.compiler.trigger import MARK, VERSION, Trigger

__all__ = [
    "MARK",
    "ROW",
    "SWITCHED_OFF",
    "VERSION",
    "CaptureTrigger",
    "Trigger",
    "changed_rows",
    "updated_rows",
]
