"""Writes to internal state of single Django and psycopg objects that have no method for it.

Everything else writes to these objects through their own methods. Patches of whole classes are in
``bulksafe.patches``. tests/unit/test_patches_in_one_place.py enforces this.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg.adapt import Transformer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.migrations.autodetector import OperationDependency
    from django.db.migrations.operations.base import Operation
    from django.db.models import Model
    from psycopg import Cursor
    from psycopg._queries import PostgresQuery

    #: An entry of ``transaction.on_commit()``: the open savepoints, the function, and whether it is
    #: robust.
    CommitHook: TypeAlias = tuple[set[str], Callable[[], object], bool]


def attributes(owner: object) -> dict[str, Any]:
    """The ``__dict__`` of an object. bulksafe's own attributes begin with ``_bulksafe``.

    Such an attribute is freed with its object; a separate registry would keep both alive.
    """
    return owner.__dict__


# Models.


def forget_returning_fields(model: type[Model]) -> None:
    """Let Django compute ``Options.db_returning_fields``, a cached property, again."""
    model._meta.__dict__.pop("db_returning_fields", None)


def set_meta_triggers(model: type[Model], triggers: list[Any]) -> None:
    """Replace ``Meta.triggers``, for pgtrigger and for the states of migrations."""
    meta = model._meta
    attributes(meta)["triggers"] = meta.original_attrs["triggers"] = triggers


# Migrations.


def set_dependencies(operation: Operation, dependencies: Iterable[OperationDependency]) -> None:
    """Set the operations that must precede this one, as Django's ``add_operation()`` does."""
    attributes(operation)["_auto_deps"] = [*dependencies]


def add_dependency(operation: Operation, dependency: OperationDependency) -> None:
    """Add one dependency to an operation."""
    attributes(operation)["_auto_deps"].append(dependency)


# Connections.


def commit_hooks(connection: BaseDatabaseWrapper) -> list[CommitHook]:
    """The callbacks collected by ``transaction.on_commit()``: Django's own list."""
    return connection.run_on_commit  # type: ignore[return-value]  # the stubs lack a third item


def set_commit_hooks(connection: BaseDatabaseWrapper, hooks: Iterable[CommitHook]) -> None:
    """Replace the callbacks collected by ``transaction.on_commit()``."""
    attributes(connection)["run_on_commit"] = [*hooks]


@contextmanager
def in_atomic_block(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Mark a transaction about to commit as an atomic block, so that ``atomic()`` joins it."""
    before = connection.in_atomic_block
    connection.in_atomic_block = True
    try:
        yield
    finally:
        connection.in_atomic_block = before


@contextmanager
def in_transaction_begun_by_hand(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Mark a transaction started with a raw ``BEGIN``, so that ``atomic()`` creates a savepoint."""
    connection.in_atomic_block, connection.autocommit = True, False
    try:
        yield
    finally:
        connection.in_atomic_block, connection.autocommit = False, True


def set_rowcount(cursor: Cursor[Any], count: int) -> None:
    """Set the row count of a psycopg cursor's last statement."""
    cursor._rowcount = count


def set_query(cursor: Cursor[Any], query: PostgresQuery) -> None:
    """Set the statement that a psycopg cursor reports as its last one.

    Django logs what the cursor reports: users must find their own statement in the log.
    """
    cursor._query = query


def query_of(cursor: Cursor[Any], sql: str, params: Any) -> PostgresQuery:
    """A statement with its parameters, in the form that ``set_query()`` takes."""
    query = cursor._query_cls(Transformer.from_context(cursor))
    query.convert(sql, params)
    return query


def log_mark(connection: BaseDatabaseWrapper) -> int:
    """A mark in ``connection.queries``, for ``forget_logged()``."""
    return len(connection.queries_log)


def forget_logged(connection: BaseDatabaseWrapper, mark: int) -> list[dict[str, str]]:
    """Take what was logged since the mark out of ``connection.queries``, and return it.

    For an attempt that has been rolled back: what it executed is executed and logged again.
    """
    logged = connection.queries_log
    return [logged.pop() for _ in range(len(logged) - mark)][::-1]


def log_again(connection: BaseDatabaseWrapper, logged: Sequence[dict[str, str]]) -> None:
    """Put it back: the attempt stands for what was executed."""
    connection.queries_log.extend(logged)
