"""Observes the statements of running receivers, to keep the order of per-row calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from django.core.exceptions import EmptyResultSet

from bulksafe.caching import forever, per_model
from bulksafe.rendering import quoting
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.relations import Touched

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model, QuerySet

    from bulksafe.declarations import Receiver
    from bulksafe.writer.conflicts import Conflicts

#: Clauses that may follow the key in a query for one row.
_END = r"(?:\s+ORDER BY [^()]*?)?(?:\s+LIMIT \d+)?(?:\s+FOR (?:NO KEY )?UPDATE[^()]*)?\s*\Z"

#: A statement that sets, releases or rolls back to a savepoint, with its name.
_SAVEPOINT = re.compile(
    r"\s*(?P<verb>SAVEPOINT|RELEASE|ROLLBACK\s+TO)(?:\s+SAVEPOINT)?\s+(?P<name>\"(?:[^\"]|\"\")+\"|\w+)",
    re.IGNORECASE,
)


class Restart(BaseException):
    """Repeat the write: its calls depend on their order, which was detected too late.

    A ``BaseException``, so that no ``except Exception`` of a receiver catches it.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress


class RowsMissing(Restart):
    """An UPDATE has shown that objects have no rows, after receivers were called for them."""


class Progress(Protocol):
    """A write whose rows can be stored while a receiver runs for a later row."""

    def flush(self) -> bool:
        """Store the rows before the current one.

        Returns:
            whether there were any.
        """

    def mark(self) -> Any:
        """The progress."""

    def return_to(self, mark: Any) -> None:
        """Mark rows as not stored: the database has rolled them back."""

    @property
    def is_ahead(self) -> bool:
        """Whether rows after the current one are stored."""


class Observer:
    """Observes the statements of the receivers of one write.

    Args:
        conflicts: decides which receivers depend on the order.
        progress: the write.
        connection: Django's, that is written to.
        is_after: whether the receivers run after the write.
    """

    def __init__(
        self,
        conflicts: Conflicts,
        progress: Progress,
        connection: BaseDatabaseWrapper,
        *,
        is_after: bool = False,
    ) -> None:
        self.conflicts = conflicts
        self.progress = progress
        self.connection = connection
        self.is_after = is_after
        self.instance: Model | None = None
        self.receiver: Receiver | None = None
        #: Whether a call has shown that the order matters when it could no longer be kept.
        self.must_restart = False
        self._savepoints: list[tuple[str, Any]] = []
        self._own = own_row(conflicts.model)

    def begin(self, receiver: Receiver, instance: Model | None) -> None:
        """A receiver is about to be called for a row."""
        self.instance = instance
        if receiver is not self.receiver:
            self.receiver = receiver
            self.conflicts.note_call(receiver)

    def look(self, text: str, params: Any) -> None:
        """Called before each statement of a receiver."""
        if savepoint := _SAVEPOINT.match(text):
            self._follow(savepoint["verb"].upper(), savepoint["name"])
            return
        self._note(self.conflicts.touched(text, is_own_row=self._is_own_row(text, params)))

    def look_at_unknown(self) -> None:
        """Called before a receiver executes something that has no SQL text."""
        self._note(Touched(is_opaque=True))

    def expect(self, queryset: QuerySet[Any]) -> None:
        """Called before a receiver updates or deletes the rows of a queryset.

        Such a write begins with a savepoint, and may be rolled back to it.
        """
        try:
            text, params = queryset.query.get_compiler(self.connection.alias).as_sql()
        except EmptyResultSet:
            return
        if not self._is_own_row(text, params):
            self._note(self.conflicts.writes_to(queryset.model))

    def _note(self, touched: Touched) -> None:
        receiver = self.receiver
        if receiver is None or receiver.row_by_row is not None or touched == _NOTHING:
            return
        if self.is_after:
            if self.conflicts.note_after(receiver, touched) and self.progress.is_ahead:
                self.must_restart = True
                raise Restart(self.progress)
        elif self.conflicts.note_before(receiver, touched):
            self.progress.flush()

    def _follow(self, verb: str, name: str) -> None:
        """Track the start and end of a savepoint and its nested ones.

        Rows stored inside a receiver's savepoint disappear when it is rolled back: the receiver may
        catch the error, and the write would lose them.
        """
        if self.is_after:
            return
        if verb == "SAVEPOINT":
            self._savepoints.append((name, self.progress.mark()))
            return
        names = [known for known, _ in self._savepoints]
        if name not in names:
            return
        place = len(names) - 1 - names[::-1].index(name)
        is_rollback = verb.startswith("ROLLBACK")
        if is_rollback:
            self.progress.return_to(self._savepoints[place][1])
        del self._savepoints[place + is_rollback :]

    def _is_own_row(self, text: str, params: Any) -> bool:
        """Whether a query selects the row itself by its key, like ``objects.get(pk=…)``."""
        found = self._own.search(text) if self._own and self.instance is not None else None
        if found is None or self.instance is None:
            return False
        own = str(key_of_instance(self.instance))
        if found[1] != "%s":
            return found[1] == own
        # Check only the last parameter: values that an UPDATE sets precede the key.
        key = params[-1] if isinstance(params, list | tuple) and params else None
        return key is not None and str(key) == own


_NOTHING = Touched()


@per_model(forever)
def own_row(model: type[Model]) -> re.Pattern[str] | None:
    """A pattern for the single-column key in a statement on one row."""
    keys = model._meta.pk_fields
    if len(keys) != 1:
        return None
    table = re.escape(quoting.identifier(model._meta.db_table.strip('"')))
    column = re.escape(quoting.identifier(str(keys[0].column)))
    return re.compile(rf"WHERE \(?{table}\.{column} = (%s|\d+)\)?{_END}", re.IGNORECASE)
