"""What receivers get for a row while the capture of its table is switched off.

Django's signal has the instance only. For receivers with ``when=``, ``old``, ``changed`` or
``batch=True``, the stored row is read before and after the write, so that they get the same values
as from a capture. Other receivers cost no such query.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.db import connections
from django.db.models.signals import post_delete, post_save

from bulksafe.caching import per_model
from bulksafe.contexts import current
from bulksafe.declarations import receivers
from bulksafe.declarations.signals import DELETE, INSERT, UPDATE
from bulksafe.dispatch.changes import Change
from bulksafe.outbox.events import Event
from bulksafe.own_cursor import own_cursor
from bulksafe.planning.capture import condition_of
from bulksafe.rendering import quoting
from bulksafe.writer import switched
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.early import is_another
from bulksafe.writer.storing import batches, placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.writer.switched import State


@dataclass
class UncapturedChange(Change):
    """A change that no trigger has captured.

    Attributes:
        fields: the names of the fields that differ; empty if the receiver does not ask for them.
    """

    fields: frozenset[str] = frozenset()

    @property
    def changed(self) -> frozenset[str]:
        return self.fields

    def stored(self, attname: str) -> object:
        return getattr(self.instance, attname)


def _needs_rows(receiver: Receiver) -> bool:
    return receiver.when is not None or receiver.batch or bool(receiver.extras & {"old", "changed"})


@per_model(receivers.changes)
def _compares_saved(model: type[Model]) -> bool:
    listed = receivers.of_model(model)
    return any(receiver.signal is post_save and _needs_rows(receiver) for receiver in listed)


@per_model(receivers.changes)
def _tests_deleted(model: type[Model]) -> bool:
    listed = receivers.of_model(model)
    return any(receiver.signal is post_delete and receiver.when is not None for receiver in listed)


@contextmanager
def saving(instance: Model, using: str) -> Iterator[None]:
    """Around ``save()``: a receiver may save the same object again inside."""
    state = switched.state(connections[using], type(instance))
    if state is None:
        yield
        return
    key = id(instance)
    before = {key: state.stored.pop(key)} if key in state.stored else {}
    try:
        yield
    finally:
        state.stored.pop(key, None)
        state.stored.update(before)


def note_before_save(instance: Model, using: str) -> None:
    """Read the stored row of an object, right before Django writes it."""
    state = switched.state(connections[using], type(instance))
    if state is None or not state.is_off or id(instance) in state.stored:
        return
    if _compares_saved(type(instance)):
        _read(state, [instance], using)


def note_before_delete(instances: Collection[Model], using: str) -> None:
    """Read the stored rows of objects of one model that ``delete()`` is called for."""
    model = type(next(iter(instances)))
    state = switched.state(connections[using], model)
    if state is not None and state.is_off and _tests_deleted(model):
        _read(state, list(instances), using)


def _read(state: State, instances: Sequence[Model], using: str) -> None:
    """Lock and read the rows: between this and the write, no other transaction may change them."""
    model = _concrete(instances[0])
    keys = [key for one in instances if _is_whole(key := key_of_instance(one))]
    rows = model._base_manager.using(using).select_for_update(no_key=True)
    found = {
        row.pk: row
        for batch in batches(keys, len(model._meta.pk_fields))
        for row in rows.filter(pk__in=batch)
    }
    for one in instances:
        state.stored[id(one)] = found.get(key_of_instance(one))


def _is_whole(key: Any) -> bool:
    return key is not None and not (isinstance(key, tuple) and None in key)


def change_for(
    receiver: Receiver, state: State, named: dict[str, Any], using: str
) -> Change | None:
    """The change that a receiver after the write is called for.

    Returns:
        None if it does not meet the receiver's ``when``.
    """
    instance: Model = named["instance"]
    if receiver.signal is post_delete:
        operation, old, new = DELETE, state.stored.get(id(instance), instance), None
    else:
        operation = INSERT if named["created"] else UPDATE
        old = None if named["created"] else state.stored.get(id(instance))
        new = _stored(instance, using) if _needs_rows(receiver) else None
    connection = connections[using]
    if receiver.when is not None and not _meets(receiver, operation, old, new, connection):
        return None
    is_deletion = operation == DELETE
    return UncapturedChange(
        event=_event(instance, operation),
        model=_concrete(instance),
        old_image=None,
        new_image=None,
        using=using,
        event_id=uuid4().hex,
        _instances={"old": instance} if is_deletion else {"old": old, "new": instance},
        fields=frozenset() if new is None else _changed(old, new),
    )


def _event(instance: Model, operation: str) -> Event:
    """The event of a change that is in no outbox."""
    return Event(
        slot=-1,
        seq=0,
        xid=0,
        bucket=0,
        at=time.time(),
        source=0,
        part=None,
        operation=operation[0],
        depth=1,
        key=str(key_of_instance(instance)),
        context=dict(current()),
    )


def _concrete(instance: Model) -> Any:
    return type(instance)._meta.concrete_model


def _stored(instance: Model, using: str) -> Model | None:
    model = _concrete(instance)
    found: Model | None = model._base_manager.using(using).filter(pk=instance.pk).first()
    return found


def _changed(old: Model | None, new: Model) -> frozenset[str]:
    return frozenset(
        one.name
        for one in new._meta.concrete_fields
        if old is None or is_another(one, getattr(old, one.attname), getattr(new, one.attname))
    )


def _meets(
    receiver: Receiver,
    operation: str,
    old: Model | None,
    new: Model | None,
    connection: BaseDatabaseWrapper,
) -> bool:
    """Whether the rows before and after a change meet ``when=``, evaluated by the database."""
    present = [(name, row) for name, row in (("old", old), ("new", new)) if row is not None]
    if not present:
        # Another receiver has deleted the row meanwhile.
        return False
    model = _concrete(present[0][1])
    condition = condition_of(receiver, model, operation) or "true"
    fields = model._meta.local_concrete_fields
    sources, params = [], []
    for name, row in present:
        values = [getattr(row, one.attname) for one in fields]
        cells = [placeholder(f, v, connection) for f, v in zip(fields, values, strict=True)]
        columns = [quoting.identifier(str(one.column)).replace("%", "%%") for one in fields]
        sources.append(f'(VALUES ({", ".join(cells)})) AS "{name}" ({", ".join(columns)})')
        params += [f.get_db_prep_save(v, connection) for f, v in zip(fields, values, strict=True)]
    asked = condition.replace("%", "%%")
    with own_cursor(connection) as cursor:
        cursor.execute(f"SELECT FROM {' CROSS JOIN '.join(sources)} WHERE ({asked})", params)
        return bool(cursor.rowcount)
