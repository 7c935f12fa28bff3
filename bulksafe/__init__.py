"""Database-trigger bridge for bulk-safe invariants: bulk == per-row.

Declare what must hold in ``Meta.triggers``; ``makemigrations`` turns it into PostgreSQL triggers,
and every write path enforces it.
"""

from bulksafe import checks as _checks  # noqa: F401  (registers itself, also if not installed)
from bulksafe import compat as _compat
from bulksafe import planning as _planning  # noqa: F401  (sets the planner of declarations)
from bulksafe.contexts import context
from bulksafe.declarations import (
    Check,
    Compute,
    Emit,
    Immutable,
    Transition,
    critical,
    dead_letter,
    models_of,
    register,
)
from bulksafe.dispatch.changes import Change
from bulksafe.exceptions import (
    BrokenTransaction,
    EndlessWrites,
    InvalidDeclaration,
    InvariantViolation,
    PermanentFailure,
    ReceiversNotRun,
    RetryAfter,
)
from bulksafe.muting import muted
from bulksafe.outbox.events import Event

_compat.allow_meta_triggers()

__version__ = "0.1.0"

__all__ = [
    "BrokenTransaction",
    "Change",
    "Check",
    "Compute",
    "Emit",
    "EndlessWrites",
    "Event",
    "Immutable",
    "InvalidDeclaration",
    "InvariantViolation",
    "PermanentFailure",
    "ReceiversNotRun",
    "RetryAfter",
    "Transition",
    "context",
    "critical",
    "dead_letter",
    "models_of",
    "muted",
    "register",
]
