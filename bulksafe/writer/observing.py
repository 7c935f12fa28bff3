"""Whether a receiver looks at other rows of its own table while it runs before the write.

One that does, like the loop that looks for a free slug, depends on the rows before it: they are
stored before it goes on.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bulksafe.rendering import quoting
from bulksafe.statements import WRITES
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.vocabulary import names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

logger = logging.getLogger("bulksafe")

#: What may follow where a query names one row by its key.
_END = r"(?:\s+ORDER BY [^()]*?)?(?:\s+LIMIT \d+)?(?:\s+FOR (?:NO KEY )?UPDATE[^()]*)?\s*\Z"


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


class Observer:
    """Looks at the statements of the receivers of one write.

    Args:
        model: the concrete model whose rows are written.
        flush: stores the rows before the one that is looked at.
        withdraw: called before the first statement, whatever it is.
    """

    def __init__(
        self,
        model: type[Model],
        flush: Callable[[], bool],
        withdraw: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.flush = flush
        self.withdraw = withdraw
        self.instance: Model | None = None
        self._names = names_of(model)
        self._own = self._own_row(model)
        self._was_logged = False

    def look(self, text: str, params: Any) -> None:
        """Asked before each statement of a receiver."""
        if self.withdraw is not None:
            self.withdraw(text)
        if WRITES.match(text) and not text.lstrip().upper().startswith("WITH"):
            return
        if self._names.search(text) is None or self._is_own_row(text, params):
            return
        if self.flush() and not self._was_logged:
            self._was_logged = True
            logger.info(
                "a receiver of %s looks at other rows of its table: the rows of this write are "
                "stored one by one",
                self.model._meta.label,
            )

    @staticmethod
    def _own_row(model: type[Model]) -> re.Pattern[str] | None:
        keys = model._meta.pk_fields
        if len(keys) != 1:
            return None
        table = re.escape(quoting.identifier(model._meta.db_table.strip('"')))
        column = re.escape(quoting.identifier(str(keys[0].column)))
        return re.compile(rf"WHERE \(?{table}\.{column} = (?:%s|\d+)\)?{_END}", re.IGNORECASE)

    def _is_own_row(self, text: str, params: Any) -> bool:
        """Whether a query asks for the row itself by its key, as ``objects.get(pk=…)`` does."""
        if self._own is None or self.instance is None or self._own.search(text) is None:
            return False
        if text.count("%s") > len(params or ()) or not params:
            return False
        key = key_of_instance(self.instance)
        field = self.model._meta.pk
        return len(params) >= 1 and any(_same(field, value, key) for value in params)


def _same(field: Any, value: Any, key: Any) -> bool:
    return bool(value == key or str(value) == str(key))
