"""Decides which statements can be collected: executed once without writing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db.models import Model
from django.db.models.signals import m2m_changed

from bulksafe.declarations import receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED
from bulksafe.outbox.queries import query
from bulksafe.own_cursor import own_cursor
from bulksafe.writer import vocabulary
from bulksafe.writer.conflicts import Conflicts, is_asked_for
from bulksafe.writer.delivering import BEFORE, LATE, Live
from bulksafe.writer.observing import own_row
from bulksafe.writer.sql_text import Statement, names_only, parse
from bulksafe.writer.vocabulary import name_of, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from bulksafe.declarations import Receiver

#: The operation of a statement, by its verb. A MERGE has several.
_OPERATIONS = {"INSERT": INSERTED, "UPDATE": UPDATED, "DELETE": DELETED}

_SIGNALS = {
    INSERTED: ("pre_save", "post_save"),
    UPDATED: ("pre_save", "post_save"),
    DELETED: ("pre_delete", "post_delete"),
}


#: Both images are read in one row of a result, which may have 1,664 columns with the conditions.
_MOST_COLUMNS = 1500


class Uncollectable(Exception):  # noqa: N818
    """A statement turned out to write from inside functions or triggers."""


@dataclass(frozen=True)
class Target:
    """A statement that may be collected.

    Attributes:
        statement: the parsed statement.
        model: the concrete model whose rows it writes.
    """

    statement: Statement
    model: type[Model]

    @property
    def operation(self) -> str:
        """Its operation; for a MERGE, the most likely one."""
        return _OPERATIONS.get(self.statement.verb, UPDATED)


@dataclass(frozen=True)
class Places:
    """The tables of a database that can be collected.

    Attributes:
        home: the schema of bulksafe's own tables; empty without them.
        names: the names of the tables.
    """

    home: str
    names: frozenset[str]


_of_databases: dict[str, tuple[int, Places]] = {}


def places(connection: BaseDatabaseWrapper) -> Places:
    """Queried once for each database, and again after ``forget``."""
    found = _of_databases.get(connection.alias)
    changes = receivers.changes()
    if found is None or found[0] != changes:
        names = [name_of(model) for model in vocabulary.vocabulary().models]
        connection.ensure_connection()
        with own_cursor(connection) as cursor:
            cursor.execute(query("home"), {"table": "bulksafe_outbox"})
            home = cursor.fetchone()
            cursor.execute(query("collectable"), {"names": names})
            tables = frozenset(name for (name,) in cursor.fetchall())
        found = changes, Places(home[0] if home else "", tables)
        _of_databases[connection.alias] = found
    return found[1]


def forget(alias: str) -> None:
    """Read the catalogs of a database again, because its tables have changed."""
    _of_databases.pop(alias, None)
    vocabulary.forget(alias)


def is_collectable(model: type[Model], connection: BaseDatabaseWrapper) -> bool:
    """Whether statements on the model's table can be collected, by the catalogs."""
    return _fits(model) and name_of(model) in places(connection).names


def _fits(model: type[Model]) -> bool:
    """Whether the rows of a model are in one table and fit into one result row."""
    return (
        len(lineage(model)) == 1
        and 2 * len(model._meta.concrete_fields) <= _MOST_COLUMNS
        and not receivers.of_model(model, _is_of_links)
    )


def target_of(text: str, connection: BaseDatabaseWrapper) -> Target | None:
    """The target of a statement, if its text and the catalogs allow collecting it."""
    statement = parse(text)
    if statement is None:
        return None
    if statement.returning and (statement.verb == "MERGE" or "%" in statement.returning):
        # RETURNING may call the merge action, or contain parameters.
        return None
    known = places(connection)
    if not known.home or statement.table not in known.names:
        return None
    models = [
        model
        for model in vocabulary.vocabulary().by_name.get(statement.table.lower(), ())
        if any(name_of(table) == statement.table for table in lineage(model))
    ]
    if not models:
        # A partition.
        models = list(vocabulary_of(connection).by_name.get(statement.table.lower(), ()))
    if len(models) != 1 or not _fits(models[0]):
        # It contains rows of several models.
        return None
    if statement.has_source and not _returns_own_columns(statement, models[0]):
        return None
    return Target(statement, models[0])


def _returns_own_columns(statement: Statement, model: type[Model]) -> bool:
    """Whether a statement with joined tables returns only columns of its own table."""
    if not statement.returning or statement.verb == "INSERT":
        return True
    columns = [str(field.column) for field in model._meta.local_concrete_fields]
    return names_only(statement.returning, [statement.alias or statement.table], columns)


def _is_of_links(receiver: Receiver) -> bool:
    return receiver.is_inline and receiver.signal is m2m_changed


def needs_turns(target: Target, connection: BaseDatabaseWrapper, text: str) -> bool:
    """Whether receivers must be called before the rows are written, or row by row."""
    early, late = live(target)
    if early or is_asked_for(late):
        return True
    pattern = own_row(target.model)
    if not late or (pattern is not None and pattern.search(text)):
        # A single row needs no order.
        return False
    conflicts = Conflicts(connection, target.model, target.operation, late)
    return conflicts.has_unknown or conflicts.is_row_by_row


def may_need_turns(models: Iterable[type[Model]], connection: BaseDatabaseWrapper) -> bool:
    """Whether receivers after a write depend on the order of its rows, or are not known yet."""
    for model in models:
        for operation, signals in _SIGNALS.items():
            _, late = _connected(model, set(signals))
            conflicts = Conflicts(connection, model, operation, late)
            if is_asked_for(late) or conflicts.has_unknown or conflicts.is_row_by_row:
                return True
    return False


def live(target: Target) -> tuple[list[Receiver], list[Receiver]]:
    """The receivers that are connected, those before the write and those after it."""
    wanted = (
        {*_SIGNALS[UPDATED], *_SIGNALS[DELETED]}
        if target.statement.verb == "MERGE"
        else set(_SIGNALS[target.operation])
    )
    return _connected(target.model, wanted)


def _connected(
    model: type[Model], signals: Collection[str]
) -> tuple[list[Receiver], list[Receiver]]:
    is_live = Live((*BEFORE, *LATE))
    found = [
        receiver
        for receiver in receivers.of_model(model, receivers.is_inline)
        if receiver.signal_name in signals and is_live(receiver, model)
    ]
    early = [receiver for receiver in found if receiver.signal_name in BEFORE]
    return early, [receiver for receiver in found if receiver.signal_name not in BEFORE]
