"""Decides for a write, during a rollout, whether its receivers run from the capture.

While the capture of a model in ``BULKSAFE["ROLLOUT"]`` is missing or switched off, its receivers
run like plain signal receivers. The decision must be right also for a transaction that is open
while the capture is switched:

1. The write locks the table as any INSERT does (ROW EXCLUSIVE), before the first receiver runs.
   Switching needs SHARE ROW EXCLUSIVE, and so waits for the end of the transaction.
2. Then it asks for the state. Both the answer and the triggers are those of the present catalogs,
   whatever the snapshot of the transaction is.
3. The answer holds for this write. It is not kept for later ones: ``ROLLBACK TO SAVEPOINT`` gives
   up the lock.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connections

from bulksafe import conf
from bulksafe.caching import per_model
from bulksafe.compiler import SWITCHED_OFF
from bulksafe.declarations import Capture, receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.object_state import attributes
from bulksafe.outbox.queries import query
from bulksafe.own_cursor import own_cursor
from bulksafe.rendering import quoting
from bulksafe.writer.transactions import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

_STATES = "_bulksafe_switched"


@dataclass(frozen=True)
class State:
    """The decision for the writes in progress of one model on one connection.

    Attributes:
        is_off: whether receivers run like plain signal receivers.
        stored: the rows before the write, by the ``id()`` of the instance, for receivers that need
            more than the instance.
    """

    is_off: bool
    stored: dict[int, Model | None] = field(default_factory=dict)


def _version() -> object:
    return receivers.changes(), conf.rollout()


def is_listed(model: type[Model]) -> bool:
    """Whether the model is in rollout and has receivers to run."""
    # The usual case first: this is asked for every write and signal.
    return conf.rollout() != _NONE and _is_listed(model)


_NONE: frozenset[str] = frozenset()


@per_model(_version)
def _is_listed(model: type[Model]) -> bool:
    concrete = _concrete(model)
    return conf.is_in_rollout(concrete._meta.label) and bool(receivers.of_model(concrete))


def state(connection: BaseDatabaseWrapper, model: type[Model]) -> State | None:
    """The decision for the model; None outside of ``decided()``, or if it is not in rollout."""
    found: State | None = _states(connection).get(_concrete(model))
    return found


def is_off(connection: BaseDatabaseWrapper, model: type[Model]) -> bool:
    """Whether the receivers of the model's writes run like plain signal receivers."""
    found = state(connection, model)
    return found is not None and found.is_off


@contextmanager
def decided(models: Iterable[type[Model]], using: str) -> Iterator[None]:
    """Decide for a write to rows of these models, in a transaction with all of its receivers.

    In autocommit it begins that transaction: a receiver that raises undoes the write.
    """
    connection = connections[using]
    known = _states(connection)
    wanted = dict.fromkeys(_concrete(model) for model in models if is_listed(model))
    asked = [model for model in wanted if model not in known]
    if not asked or connection.vendor != "postgresql":
        yield
        return
    transaction = Transaction(connection)
    if connection.connection is not None and transaction.is_broken:
        # Django refuses the write itself.
        yield
        return
    with (
        nullcontext()
        if transaction.is_open
        else transaction.atomic(may_wait=False, is_logged=False)
    ):
        try:
            for model in asked:
                known[model] = State(is_off=not _is_on(connection, model))
            yield
        finally:
            for model in asked:
                known.pop(model, None)


@contextmanager
def deciding(model: type[Model], using: str) -> Iterator[bool]:
    """The same for one model; yields whether its receivers run like plain signal receivers."""
    if not is_listed(model):
        yield False
        return
    with decided([model], using):
        yield is_off(connections[using], model)


def _is_on(connection: BaseDatabaseWrapper, model: type[Model]) -> bool:
    tables = lineage(model)
    values = {
        "tables": [quoting.relation(table._meta.db_table) for table in tables],
        "triggers": [Capture().get_pgid(table) for table in tables],
        "mark": SWITCHED_OFF,
    }
    connection.ensure_connection()
    with own_cursor(connection) as cursor:
        for table in values["tables"]:
            cursor.execute(f"LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE")
        cursor.execute(query("is_switched_on"), values)
        ((is_on,),) = cursor.fetchall()
    return bool(is_on)


def _states(connection: BaseDatabaseWrapper) -> dict[type[Model], State]:
    found: dict[type[Model], State] = attributes(connection).setdefault(_STATES, {})
    return found


def _concrete(model: type[Model]) -> type[Model]:
    found: Any = model._meta.concrete_model
    return found or model
