"""What bulksafe writes into single objects of Django and psycopg that they have no method for.

Everything else writes to these objects through their own methods. What is replaced for all objects
of a class is in ``bulksafe.patches``. tests/unit/test_patches_in_one_place.py keeps it so.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.migrations.autodetector import OperationDependency
    from django.db.migrations.operations.base import Operation
    from django.db.models import Model
    from psycopg import Cursor

    #: As ``transaction.on_commit()`` collects it: the open savepoints, the function, and whether
    #: it is robust.
    CommitHook: TypeAlias = tuple[set[str], Callable[[], object], bool]


def attributes(owner: object) -> dict[str, Any]:
    """Where an object keeps its attributes. Names of bulksafe's own begin with ``_bulksafe``.

    What belongs to the object is freed with it: a registry beside it would keep both.
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
    """What the autodetector has to put before an operation, as its ``add_operation()`` sets it."""
    attributes(operation)["_auto_deps"] = [*dependencies]


def add_dependency(operation: Operation, dependency: OperationDependency) -> None:
    """One more for ``set_dependencies()``."""
    attributes(operation)["_auto_deps"].append(dependency)


# Connections.


def commit_hooks(connection: BaseDatabaseWrapper) -> list[CommitHook]:
    """What ``transaction.on_commit()`` has collected: Django's own list."""
    return connection.run_on_commit  # type: ignore[return-value]  # the stubs lack a third item


def set_commit_hooks(connection: BaseDatabaseWrapper, hooks: Iterable[CommitHook]) -> None:
    """Replace what ``transaction.on_commit()`` has collected."""
    attributes(connection)["run_on_commit"] = [*hooks]


@contextmanager
def in_atomic_block(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let Django know of the transaction that it is about to commit: ``atomic()`` joins it."""
    before = connection.in_atomic_block
    connection.in_atomic_block = True
    try:
        yield
    finally:
        connection.in_atomic_block = before


@contextmanager
def in_transaction_begun_by_hand(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let Django know of a ``BEGIN`` that it has not sent: ``atomic()`` sets a savepoint."""
    connection.in_atomic_block, connection.autocommit = True, False
    try:
        yield
    finally:
        connection.in_atomic_block, connection.autocommit = False, True


def set_rowcount(cursor: Cursor[Any], count: int) -> None:
    """Let a cursor of psycopg's say that its last statement has changed so many rows."""
    cursor._rowcount = count
