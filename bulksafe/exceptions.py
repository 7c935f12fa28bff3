"""bulksafe's exceptions. See ``docs/errors.md`` for the list of system checks."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Protocol

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model

# The DETAIL of migrations_templates/v1/refuse.sql, which names the invariant in every client.
_DETAIL = re.compile(
    r"\AInvariant (?P<invariant>[^\s:]+:.+?) refuses the (?P<operation>[A-Z]+)"
    r"(?: of the row with (?P<row>.+)\.\Z)?",
    re.DOTALL,
)


class InvalidDeclaration(ImproperlyConfigured):
    """An invariant was compiled although ``manage.py check`` refuses its declaration."""


class Declaration(Protocol):
    """A declared invariant, as its violations need it."""

    @property
    def model(self) -> type[Model]: ...

    @property
    def only_field(self) -> str | None:
        """The name of the field that the rule is about, if it is about one."""

    def message(self, raised: str) -> str:
        """The message to show; ``raised`` is the one that PostgreSQL raised."""


class InvariantViolation(IntegrityError):  # noqa: N818  (a contract)
    """A write would have broken an invariant; PostgreSQL refused the whole statement.

    Raised at the statement, or at the commit if the invariant is deferred, on every write path of
    Django. A subclass of ``django.db.IntegrityError``, with the same arguments and the same
    ``__cause__`` (psycopg's error, whose ``diag`` holds all fields).

    Attributes:
        invariant: the invariant's label, ``"shop.Order:discount_within_amount"``.
        message: the declared message, or the default one.
        model: the model that declares it; None if no loaded model does.
        field: the name of the model's field that the rule is about; None if it is about several.
        row: the primary key of the refused row, ``"id=5"``; empty if the writing role may not
            read it.
    """

    #: Replaced by bulksafe.apps: finds the declaration of a label.
    declaration: Callable[[str], Declaration | None] = staticmethod(lambda invariant: None)

    def __init__(self, *args: Any, invariant: str = "", message: str = "", row: str = "") -> None:
        super().__init__(*args)
        self.invariant = invariant
        self._message = message
        self.row = row

    @property
    def message(self) -> str:
        declaration = type(self).declaration(self.invariant)
        return declaration.message(self._message) if declaration else self._message

    @property
    def model(self) -> type[Model] | None:
        declaration = type(self).declaration(self.invariant)
        return declaration.model if declaration else None

    @property
    def field(self) -> str | None:
        declaration = type(self).declaration(self.invariant)
        return declaration.only_field if declaration else None

    def as_validation_error(self) -> ValidationError:
        """Convert it for forms, admin pages and serializers. Its code is the invariant's name."""
        return ValidationError(self.message, code=self.invariant.rpartition(":")[2])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.args, self.invariant, self._message, self.row)


def _rebuild(
    args: tuple[Any, ...], invariant: str, message: str, row: str = ""
) -> InvariantViolation:
    return InvariantViolation(*args, invariant=invariant, message=message, row=row)


class ReceiversNotRun(IntegrityError):  # noqa: N818
    """A transaction with a write that bypassed its in-transaction receivers was refused.

    PostgreSQL raises it at the commit. The message names the receivers, and the hint gives the fix.
    """

    def as_validation_error(self) -> ValidationError:
        """Convert it for forms, admin pages and serializers.

        The text is for users, who cannot fix it: it names no receivers.
        """
        message = "The change was not saved: it bypassed code that has to run with it."
        return ValidationError(message, code="receivers_not_run")


class BrokenTransaction(Exception):  # noqa: N818
    """A receiver left its transaction unusable, or ended it, without raising an error.

    It caught a database error without a savepoint, called ``set_rollback()``, closed the
    connection, or sent COMMIT or ROLLBACK. The whole write was rolled back. Wrap statements that
    may fail in ``transaction.atomic()`` inside the receiver.
    """


class EndlessWrites(Exception):  # noqa: N818
    """Receivers react to each other's writes without end.

    The message names them, and the row of the last write. Nothing of the write has taken place.
    """


class RetryAfter(Exception):  # noqa: N818
    """Raise it in an after-commit receiver to choose the time of the retry.

    For a service that answers “429 Too Many Requests” with a ``Retry-After`` header. The call
    counts as an attempt.

    Args:
        seconds: until the next attempt, at least 0.

    Raises:
        ValueError: ``seconds`` is negative, or is not a finite number.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"RetryAfter({seconds!r}): the seconds must be finite, 0 or more.")
        super().__init__(seconds)
        self.seconds = float(seconds)

    def __str__(self) -> str:
        return f"in {self.seconds:g} s"


class PermanentFailure(Exception):  # noqa: N818
    """Raise it in an after-commit receiver for an event that a retry cannot fix.

    The event becomes a dead letter at once.

    Args:
        reason: shown with the dead letter.
    """


class CallTimedOut(KeyboardInterrupt):
    """A call of an after-commit receiver took longer than its ``timeout``.

    A ``KeyboardInterrupt``: no ``except Exception`` in a receiver catches it, and psycopg cancels
    the running statement.
    """


#: The constraint that refuses such a commit.
_TICKET = "bulksafe_ticket_open"


def violation_from(error: BaseException) -> InvariantViolation | ReceiversNotRun | None:
    """Convert psycopg's ``error`` to bulksafe's exception; None if the error is not bulksafe's."""
    diag = getattr(error, "diag", None)
    if diag is None or not (getattr(error, "sqlstate", None) or "").startswith("23"):
        return None
    if diag.constraint_name == _TICKET:
        return ReceiversNotRun(*error.args)
    match = _DETAIL.match(diag.message_detail or "")
    if match is None:
        return None
    return InvariantViolation(
        *error.args,
        invariant=match["invariant"],
        message=diag.message_primary or "",
        row=match["row"] or "",
    )
