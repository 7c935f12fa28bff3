"""Database-trigger bridge for bulk-safe invariants: bulk == per-row.

Declare what must hold in ``Meta.triggers``; ``makemigrations`` turns it into PostgreSQL triggers,
and every write path enforces it.
"""

from bulksafe import planning as _planning  # noqa: F401  (planning tells declarations how to compile)
from bulksafe.declarations import Check, Compute, Immutable, Transition, register
from bulksafe.exceptions import InvalidDeclaration, InvariantViolation
from bulksafe.muting import muted

__version__ = "0.1.0"

__all__ = [
    "Check",
    "Compute",
    "Immutable",
    "InvalidDeclaration",
    "InvariantViolation",
    "Transition",
    "muted",
    "register",
]
