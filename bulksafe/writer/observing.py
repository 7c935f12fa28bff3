"""Whether a receiver reads or writes other rows of its own table while it runs before the write.

One that does, like the loop that looks for a free slug, or the one that takes the default from the
other rows, depends on the rows before it: they are stored before it goes on.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from django.core.exceptions import EmptyResultSet

from bulksafe.declarations.lineage import lineage
from bulksafe.rendering import quoting
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.relations import Relations, Touched, relations_of
from bulksafe.writer.vocabulary import name_of, names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model, QuerySet

logger = logging.getLogger("bulksafe")

#: What may follow where a query names one row by its key.
_END = r"(?:\s+ORDER BY [^()]*?)?(?:\s+LIMIT \d+)?(?:\s+FOR (?:NO KEY )?UPDATE[^()]*)?\s*\Z"


#: What opens, ends or takes back a part of a transaction, with the name of that part.
_SAVEPOINT = re.compile(
    r"\s*(?P<verb>SAVEPOINT|RELEASE|ROLLBACK\s+TO)(?:\s+SAVEPOINT)?\s+(?P<name>\"(?:[^\"]|\"\")+\"|\w+)",
    re.IGNORECASE,
)

#: What does not ask the database anything.
_HARMLESS = frozenset({"info", "closed", "broken", "pgconn"})


class Guard:
    """Stands before the driver's connection: who uses it past Django's cursors is noticed, too.

    Args:
        driver: the connection.
        withdraw: called before it is used.
    """

    def __init__(self, driver: Any, withdraw: Callable[[], None]) -> None:
        self.__dict__["_guarded"] = driver, withdraw

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._guarded[0])

    def __getattr__(self, name: str) -> Any:
        driver, withdraw = self.__dict__["_guarded"]
        if name not in _HARMLESS:
            withdraw()
        return getattr(driver, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_guarded"][0], name, value)


@contextmanager
def guarding(connection: Any, withdraw: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Let a connection of Django's have a guard.

    Yields a function that takes it away.
    """
    driver = connection.connection
    guard = connection.connection = Guard(driver, withdraw)

    def end() -> None:
        # Somebody may keep it.
        guard.__dict__["_guarded"] = driver, lambda: None
        if connection.connection is guard:
            connection.connection = driver

    try:
        yield end
    finally:
        end()


class Progress(Protocol):
    """A write whose rows can be stored while a receiver runs for a later one."""

    def flush(self) -> bool:
        """Store the rows before the one whose receivers are running.

        Returns:
            whether there were any.
        """

    def mark(self) -> Any:
        """How far it is."""

    def return_to(self, mark: Any) -> None:
        """Store again what was stored since: the database has rolled it back."""


class Observer:
    """Looks at the statements of the receivers of one write.

    Rows that are stored inside a savepoint of the receiver's go when it is rolled back: the
    receiver may catch the error, and the write would lose them.

    Args:
        model: the concrete model whose rows are written.
        progress: the write.
        connection: Django's, that is written to.
        withdraw: called before the first statement, whatever it is.
    """

    def __init__(
        self,
        model: type[Model],
        progress: Progress,
        connection: Any,
        withdraw: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.progress = progress
        self.connection = connection
        self.withdraw = withdraw
        self._savepoints: list[tuple[str, Any]] = []
        self.instance: Model | None = None
        self._own = self._own_row(model)
        self._names = names_of(model)
        self._touched: Touched | None = None
        self._was_logged = False

    def look(self, text: str, params: Any) -> None:
        """Asked before each statement of a receiver."""
        if self.withdraw is not None:
            self.withdraw(text)
        if savepoint := _SAVEPOINT.match(text):
            self._follow(savepoint["verb"].upper(), savepoint["name"])
            return
        if self._is_own_row(text, params):
            return
        touched = relations_of(self.connection).touched(text)
        # The catalogs may have been read before the table was created.
        if self._names.search(text) is not None or touched.conflicts_with(self._own_writes()):
            self._store_before()

    def expect(self, queryset: QuerySet[Any]) -> None:
        """Asked before a receiver updates or deletes the rows of a queryset.

        Such a write begins with a savepoint, and may be rehearsed in it and rolled back.
        """
        try:
            text, params = queryset.query.get_compiler(self.connection.alias).as_sql()
        except EmptyResultSet:
            return
        touched = _written(relations_of(self.connection), queryset.model)
        if not self._is_own_row(text, params) and touched.conflicts_with(self._own_writes()):
            self._store_before()

    def _own_writes(self) -> Touched:
        """What writing a row touches."""
        if self._touched is None:
            # Triggers that put SQL together at run time, as audit logs do, say nothing of it.
            own = _written(relations_of(self.connection), self.model)
            self._touched = replace(own, is_opaque=False)
        return self._touched

    def _store_before(self) -> None:
        """Store the rows that what a receiver is about to do depends on."""
        if self.progress.flush() and not self._was_logged:
            self._was_logged = True
            logger.info(
                "a receiver of %s reads or writes other rows of its table: the rows of this "
                "write are stored one by one",
                self.model._meta.label,
            )

    def _follow(self, verb: str, name: str) -> None:
        """A savepoint begins, or ends with all that began after it."""
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

    @staticmethod
    def _own_row(model: type[Model]) -> re.Pattern[str] | None:
        keys = model._meta.pk_fields
        if len(keys) != 1:
            return None
        table = re.escape(quoting.identifier(model._meta.db_table.strip('"')))
        column = re.escape(quoting.identifier(str(keys[0].column)))
        return re.compile(rf"WHERE \(?{table}\.{column} = (%s|\d+)\)?{_END}", re.IGNORECASE)

    def _is_own_row(self, text: str, params: Any) -> bool:
        """Whether a query asks for the row itself by its key, as ``objects.get(pk=…)`` does."""
        found = self._own.search(text) if self._own and self.instance else None
        if found is None or self.instance is None:
            return False
        if found[1] != "%s":
            return found[1] == str(key_of_instance(self.instance))
        # What an UPDATE sets comes before the key, and may be equal to that of this row.
        key = params[-1] if isinstance(params, list | tuple) and params else None
        return key is not None and str(key) == str(key_of_instance(self.instance))


def _written(relations: Relations, model: type[Model]) -> Touched:
    """What writing a row of the model touches."""
    found = Touched()
    for table in lineage(model):
        found |= relations.closed(name_of(table))
    return found
