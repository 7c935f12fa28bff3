"""What a migration stores of an invariant: which templates to fill, with what.

A released class path, its arguments and the templates of a released version never change their
meaning: migrations of years ago refer to them.
"""

from bulksafe.compiler.capture import ROW, CaptureTrigger, changed_rows, updated_rows
from bulksafe.compiler.trigger import MARK, VERSION, Trigger

__all__ = [
    "MARK",
    "ROW",
    "VERSION",
    "CaptureTrigger",
    "Trigger",
    "changed_rows",
    "updated_rows",
]
