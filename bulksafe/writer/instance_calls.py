"""Calls the receivers of a write with the objects in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.signals import pre_save

from bulksafe import call_stack
from bulksafe.declarations import receivers
from bulksafe.declarations.order import in_order
from bulksafe.dispatch import arguments
from bulksafe.dispatch.arguments import Uncaptured
from bulksafe.dispatch.ordering import split_at_batches
from bulksafe.dispatch.recursion import Write, must_call
from bulksafe.writer import delivering, unstored
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.early import assigned_since, early_arguments
from bulksafe.writer.instance_scopes import InHand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.models import Model

    from bulksafe.call_stack import Row
    from bulksafe.declarations import Receiver
    from bulksafe.writer.observing import Observer
    from bulksafe.writer.session import Session


class InstanceCalls:
    """The calls of one write.

    Args:
        session: the connection's.
        model: the concrete model of the objects.
        fields_of: what receivers before the write get as ``update_fields`` for an object.

    Attributes:
        early: the receivers before the write, in their order.
        late: the receivers after the write.
    """

    def __init__(
        self,
        session: Session,
        model: type[Model],
        fields_of: Callable[[Model], frozenset[str] | None],
    ) -> None:
        self._session = session
        self._model = model
        self._fields_of = fields_of
        self._is_live = delivering.Live(("pre_save", "post_save"))
        listed = receivers.of_model(model, receivers.is_inline)
        found = [receiver for receiver in listed if self._is_live(receiver, model)]
        early = [receiver for receiver in found if receiver.signal is pre_save]
        self.early = in_order(early)
        self.late = [receiver for receiver in found if receiver not in early]
        #: Receivers before the write that are called object by object, and the others.
        self._singles, self._rest = split_at_batches(self.early)
        #: By receiver: its extra arguments, by the ``id()`` of the object.
        self._extras: dict[Receiver, dict[int, dict[str, Any]]] = {}
        #: By receiver and whether all fields are written: the arguments shared by all objects.
        self._same: dict[tuple[Receiver, bool], dict[str, Any]] = {}
        #: Whether receivers were connected or disconnected during the write.
        self._has_gone = False
        self._scope = InHand()
        self._observer: Observer | None = None

    def begin(self, scope: InHand, instances: Sequence[Model], observer: Observer) -> None:
        """Begin the write, perhaps for the second time.

        Args:
            observer: observes the calls before the write.
        """
        self._scope, self._observer = scope, observer
        self._extras = {
            receiver: early_arguments(receiver, instances, self._session.alias)
            for receiver in self._singles
        }

    def call_early(self, instance: Model, *, is_begun: bool) -> None:
        """Call the receivers that get single objects before the write.

        Args:
            is_begun: whether rows are already stored, which may have changed the object's row.
        """
        for receiver in self._connected(self._singles):
            if is_begun:
                found = early_arguments(receiver, [instance], self._session.alias)
            else:
                found = self._extras[receiver]
            self._call_before(receiver, instance, found.get(id(instance)), self._observer)

    def call_batches(self, chunk: Sequence[Model]) -> None:
        """Call the ``batch=True`` receivers before the write, and the receivers after those."""
        for receiver in self._rest:
            if receiver.batch:
                self._call_batch(receiver, chunk)
                continue
            extras = early_arguments(receiver, chunk, self._session.alias)
            for instance in chunk:
                if self._connected([receiver]):
                    self._call_before(receiver, instance, extras.get(id(instance)), None)

    def call_late(self, chunk: Iterable[tuple[Row, Model]]) -> None:
        """Call the receivers after the write for rows that the database has not buffered.

        Args:
            chunk: the objects, with their rows.
        """
        self._session.gather(self._scope)
        delivered = {change.row for change in self._scope.pending if not change.deleted}
        late = in_order(self.late)
        same = {one: self._of_each(one, Uncaptured(created=True)) for one in late}
        for row, instance in chunk:
            if row in delivered:
                continue
            for receiver in self._connected(late):
                if self._must_call(receiver, row):
                    named = arguments.of_object(receiver, same[receiver], instance)
                    self._session.call_with(receiver, named, row, observer=self._scope.observer)

    def _connected(self, listed: Sequence[Receiver]) -> Sequence[Receiver]:
        """The receivers that are still connected, checked for each row."""
        if not self._is_live.refresh() and not self._has_gone:
            return listed
        self._has_gone = True
        return [receiver for receiver in listed if self._is_live(receiver, self._model)]

    def _must_call(self, receiver: Receiver, row: Row) -> bool:
        return must_call(receiver, Write(call_stack.calls(), self._model, row))

    def _same_before(self, receiver: Receiver, fields: frozenset[str] | None) -> dict[str, Any]:
        key = receiver, fields is None
        if key not in self._same:
            self._same[key] = self._of_each(receiver, Uncaptured(update_fields=fields))
        return self._same[key]

    def _of_each(self, receiver: Receiver, known: Uncaptured) -> dict[str, Any]:
        return arguments.of_each_object(receiver, self._model, self._session.alias, known)

    def _call_before(
        self,
        receiver: Receiver,
        instance: Model,
        extra: dict[str, Any] | None,
        observer: Observer | None,
    ) -> None:
        self._scope.ledger.note(receiver, instance)
        row, fields = row_of_instance(instance), self._fields_of(instance)
        if extra is None or not self._must_call(receiver, row):
            return
        same = self._same_before(receiver, fields)
        named = arguments.of_object(receiver, same, instance, extra)
        unnamed = _unnamed(instance, fields)
        self._session.call_with(receiver, named, row, observer=observer)
        if assigned := assigned_since(instance, unnamed):
            unstored.warn(type(instance), [receiver], assigned)

    def _call_batch(self, receiver: Receiver, chunk: Sequence[Model]) -> None:
        extras = early_arguments(receiver, chunk, self._session.alias)
        chosen = [one for one in chunk if id(one) in extras]
        for instance in chunk:
            self._scope.ledger.note(receiver, instance)
        if not chosen:
            return
        row = row_of_instance(chosen[0])
        if not self._must_call(receiver, row):
            return
        named = arguments.of_batch(receiver, self._model, self._session.alias, chosen)
        self._session.call_with(receiver, named, row)


def _unnamed(instance: Model, fields: frozenset[str] | None) -> dict[str, Any]:
    """The values of the fields that a write of some fields does not store."""
    if fields is None:
        return {}
    values = instance.__dict__
    return {
        field.attname: values[field.attname]
        for field in instance._meta.concrete_fields
        if field.name not in fields and field.attname in values
    }
