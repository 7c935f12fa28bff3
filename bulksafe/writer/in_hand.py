"""Objects in hand: ``bulk_create()`` and ``bulk_update()`` with their receivers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.db.models import Model
from django.db.models.signals import pre_save

from bulksafe import call_stack
from bulksafe.declarations import receivers
from bulksafe.declarations.order import in_order
from bulksafe.dispatch import arguments
from bulksafe.dispatch.arguments import Uncaptured
from bulksafe.dispatch.ordering import split_at_batches
from bulksafe.dispatch.recursion import Write, must_call
from bulksafe.outbox.events import INSERTED, UPDATED
from bulksafe.writer import delivering, parents, unstored
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.conflicts import Conflicts, is_asked_for
from bulksafe.writer.early import assigned_since, early_arguments
from bulksafe.writer.instances import copied, take_over
from bulksafe.writer.observing import Observer, Restart
from bulksafe.writer.retrying import CONFLICTS
from bulksafe.writer.row_queue import RowQueue
from bulksafe.writer.scopes import InHand

if TYPE_CHECKING:
    from bulksafe.call_stack import Row
    from bulksafe.declarations import Receiver
    from bulksafe.writer.session import Session

logger = logging.getLogger("bulksafe")


class BulkWrite:
    """A write of objects in hand.

    Args:
        model: their concrete model.
        instances: the objects.
        update_fields: what receivers get as ``update_fields``; None where the rows are new.
        is_spared: whether the database need not buffer the rows.
        ignores: whether objects are left out for which there is a row already.
        store: writes some of the objects.
    """

    def __init__(
        self,
        watch: Session,
        model: type[Model],
        instances: Sequence[Model],
        update_fields: frozenset[str] | None,
        store: Callable[[Sequence[Model]], Any],
        *,
        is_spared: bool = False,
        ignores: bool = False,
    ) -> None:
        self.watch = watch
        self.model = model
        self.instances = instances
        self.update_fields = update_fields
        #: What receivers get as ``update_fields`` for rows that are updated.
        self.given_fields = update_fields
        self.results: list[Any] = []
        self._store = store
        self._is_spared = is_spared
        self._ignores = ignores
        #: Around one object: what receivers have done for it goes with it if it is left out.
        self._block: transaction.Atomic | None = None
        #: The write itself, made new when it begins again.
        self.scope = InHand()
        #: What the caller has given: the key of each object, and whether it is a new one.
        self._given = [
            (instance, (instance.pk, instance._state.adding, instance._state.db))
            for instance in instances
        ]
        self._was_new = {id(one): one._state.adding and one.pk is None for one in instances}
        self._is_live = delivering.Live(("pre_save", "post_save"))
        #: Receivers that are called object by object before the write, and the rest of those.
        self._singles: list[Receiver] = []
        self._rest: list[Receiver] = []
        self._late: list[Receiver] = []
        #: By receiver, what it gets beside Django's arguments, by the ``id()`` of the object.
        self._extras: dict[Receiver, dict[int, dict[str, Any]]] = {}
        #: By receiver, and whether all fields are written: what is the same for all objects.
        self._same: dict[tuple[Receiver, bool], Mapping[str, Any]] = {}
        #: The related objects that the caller has given; None where no receiver comes first.
        self._cached: parents.Cached | None = None
        #: Whether receivers were connected or disconnected on the way.
        self._has_gone = False
        self._observer: Observer | None = None
        self._progress: RowQueue | None = None
        self._is_begun = False

    def run(self) -> list[Any]:
        """Store all of the objects.

        Returns:
            what storing them has returned.
        """
        early, self._late = self._receivers()
        self._singles, self._rest = split_at_batches(early)
        self._ignores = self._ignores and bool(early)
        is_row_by_row = self._ignores or is_asked_for([*early, *self._late])
        kept = None if is_row_by_row or not self._late else [_Kept(one) for one in self.instances]
        try:
            self._run(early, is_row_by_row=is_row_by_row)
        except Restart as restart:
            if kept is None or self._observer is None or restart.progress is not self._progress:
                raise
            for one in kept:
                one.restore()
            self.watch.due.clear()
            self.results.clear()
            logger.warning(
                "a receiver of %s looks at other rows of its table after the write: the write is "
                "made again, row by row. Write row_by_row=True, or False if the order makes no "
                "difference to it.",
                self.model._meta.label,
            )
            self._run(early, is_row_by_row=True)
        return self.results

    def _run(self, early: Sequence[Receiver], *, is_row_by_row: bool) -> None:
        self.scope = InHand(
            model=self.model, given_fields=self.given_fields, is_spared=self._is_spared
        )
        operation = INSERTED if self.update_fields is None else UPDATED
        conflicts = Conflicts(self.watch.connection, self.model, operation, self._late)
        queue = RowQueue(
            self.watch,
            self.scope,
            self,
            conflicts,
            is_row_by_row=is_row_by_row,
            is_whole=any(one.batch for one in (*early, *self._late)),
        )
        self._progress = queue
        self._is_begun = False
        connection = self.watch.connection
        self._observer = Observer(conflicts, queue, connection)
        with self.watch.within(self.scope):
            self.begin()
            self._cached = parents.cached(self.instances) if early else None
            self._extras = {
                receiver: early_arguments(receiver, self.instances, self.watch.alias)
                for receiver in self._singles
            }
            self.scope.observer = Observer(conflicts, queue, connection, is_after=True)
            try:
                queue.run()
            except BaseException:
                self._end_block(*sys.exc_info())
                raise

    def _receivers(self) -> tuple[list[Receiver], list[Receiver]]:
        listed = receivers.of_model(self.model, receivers.is_inline)
        found = [receiver for receiver in listed if self._is_live(receiver, self.model)]
        early = [receiver for receiver in found if receiver.signal is pre_save]
        return in_order(early), [receiver for receiver in found if receiver not in early]

    def _connected(self, listed: Sequence[Receiver]) -> Sequence[Receiver]:
        """Those that are still connected, asked for each row."""
        if not self._is_live.refresh() and not self._has_gone:
            return listed
        self._has_gone = True
        return [receiver for receiver in listed if self._is_live(receiver, self.model)]

    # The rows.

    def __len__(self) -> int:
        return len(self.instances)

    def before(self, place: int) -> None:
        if not self._ignores:
            self._call_before(place)
            return
        self._block = transaction.atomic(using=self.watch.alias)
        self._block.__enter__()
        with self._leaving_out():
            self._call_before(place)

    def _call_before(self, place: int) -> None:
        instance = self.instances[place]
        for receiver in self._connected(self._singles):
            if self._is_begun:
                # Rows before it are stored, and may have changed what is stored of this one.
                found = early_arguments(receiver, [instance], self.watch.alias)
            else:
                found = self._extras[receiver]
            self._before(receiver, instance, found.get(id(instance)), self._observer)

    def store(self, start: int, end: int) -> None:
        chunk = self.instances[start:end]
        if not self._ignores:
            self._store_chunk(chunk)
        elif self._block is not None:
            with self._leaving_out():
                self._store_chunk(chunk)
                self._end_block()

    def _store_chunk(self, chunk: Sequence[Model]) -> None:
        self._is_begun = True
        self._from_batches(chunk)
        self.watch.is_answered = False
        # Those that are there already may change along with rows of other models.
        self.scope.take(instance for instance in chunk if instance.pk is not None)
        self._write(chunk)
        self.forget_parents(chunk)
        self.scope.take(chunk)
        if self.scope.is_spared:
            self.watch.sync()
            if self.watch.is_answered:
                self._after(chunk)
        self.watch.settle(self.scope)

    def begin(self) -> None:
        """The transaction is open, and no receiver has been called."""

    def fields_of(self, instance: Model) -> frozenset[str] | None:
        """What receivers before the write get as ``update_fields`` for an object."""
        return self.update_fields

    def forget_parents(self, chunk: Sequence[Model]) -> None:
        """Related objects that receivers before the write have fetched may be stale."""
        if self._cached is not None and len(chunk) > 1:
            parents.forget(chunk, self._cached)

    def _write(self, chunk: Sequence[Model]) -> None:
        begun, self.scope.stored = len(self.scope.pending), 0
        # A receiver has called save() on these itself: Django's own goes on from there.
        saved = [one for one in chunk if self._is_saved(one)]
        rest = [one for one in chunk if not self._is_saved(one)] if saved else chunk
        with self.scope.storing():
            for instance in saved:
                any_instance: Any = instance
                any_instance._save_table(cls=self.model, using=self.watch.alias)
            if rest:
                self.results.append(self._store(rest))
        if not self._ignores:
            return
        if self.scope.stored == 0:
            raise _LeftOut
        self.watch.gather(self.scope)
        for change in self.scope.pending[begun:]:
            if change.created and change.model is self.model:
                # Django does not ask for the keys of what may be left out.
                change.take_in_hand(chunk[0])
                take_over(change)
                chunk[0]._state.adding, chunk[0]._state.db = False, self.watch.alias
                self.scope.take(chunk)
                self.scope.prepare(change)

    @contextmanager
    def _leaving_out(self) -> Iterator[None]:
        """Take back what was done for an object that there is a row for already."""
        try:
            yield
        except (_LeftOut, IntegrityError) as error:
            if not isinstance(error, _LeftOut) and not _is_conflict(error):
                raise
            self._end_block(type(error), error, error.__traceback__)
            self.watch.due.clear()

    def _end_block(self, *error: Any) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(*(error or (None, None, None)))

    def _is_saved(self, instance: Model) -> bool:
        # With a key of its own an object is inserted in any case, as by save(force_insert=True).
        was_new = self._was_new.get(id(instance), False)
        return self.update_fields is None and was_new and not instance._state.adding

    def mark(self) -> int:
        return len(self.results)

    def return_to(self, mark: int, start: int, end: int) -> None:
        del self.results[mark:]
        for instance, given in self._given[start:end]:
            # What it got when it was stored.
            instance.pk, instance._state.adding, instance._state.db = given

    # Calls.

    def _must_call(self, receiver: Receiver, row: Row) -> bool:
        return must_call(receiver, Write(call_stack.calls(), self.model, row))

    def _same_before(self, receiver: Receiver, fields: frozenset[str] | None) -> Mapping[str, Any]:
        """The arguments that a receiver before the write gets for each object."""
        key = receiver, fields is None
        if key not in self._same:
            known = Uncaptured(update_fields=fields)
            self._same[key] = arguments.of_each_object(
                receiver, self.model, self.watch.alias, known
            )
        return self._same[key]

    def _before(
        self,
        receiver: Receiver,
        instance: Model,
        extra: dict[str, Any] | None,
        observer: Observer | None,
    ) -> None:
        self.scope.ledger.note(receiver, instance)
        row, fields = row_of_instance(instance), self.fields_of(instance)
        if extra is None or not self._must_call(receiver, row):
            return
        same = self._same_before(receiver, fields)
        named = arguments.of_object(receiver, same, instance, extra)
        unnamed = _unnamed(instance, fields)
        self.watch.call_with(receiver, named, row, observer=observer)
        if assigned := assigned_since(instance, unnamed):
            unstored.warn(type(instance), [receiver], assigned)

    def _from_batches(self, chunk: Sequence[Model]) -> None:
        """Call what is called for many rows at once, and what comes after that."""
        for receiver in self._rest:
            if receiver.batch:
                self._all_at_once(receiver, chunk)
                continue
            extras = early_arguments(receiver, chunk, self.watch.alias)
            for instance in chunk:
                if self._connected([receiver]):
                    self._before(receiver, instance, extras.get(id(instance)), None)

    def _all_at_once(self, receiver: Receiver, chunk: Sequence[Model]) -> None:
        extras = early_arguments(receiver, chunk, self.watch.alias)
        chosen = [one for one in chunk if id(one) in extras]
        for instance in chunk:
            self.scope.ledger.note(receiver, instance)
        if not chosen:
            return
        row = row_of_instance(chosen[0])
        if not self._must_call(receiver, row):
            return
        named = arguments.of_batch(receiver, self.model, self.watch.alias, chosen)
        self.watch.call_with(receiver, named, row)

    def _after(self, chunk: Sequence[Model]) -> None:
        """Call the receivers for rows of which the database says nothing, as it was asked to."""
        self.watch.gather(self.scope)
        delivered = {change.row for change in self.scope.pending if not change.deleted}
        late = in_order(self._late)
        known = Uncaptured(created=True)
        same = {
            one: arguments.of_each_object(one, self.model, self.watch.alias, known) for one in late
        }
        for instance in chunk:
            row = row_of_instance(instance)
            if row in delivered:
                continue
            for receiver in self._connected(late):
                if self._must_call(receiver, row):
                    named = arguments.of_object(receiver, same[receiver], instance)
                    self.watch.call_with(receiver, named, row, observer=self.scope.observer)


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


class _LeftOut(Exception):  # noqa: N818
    """There is a row for an object already."""


def _is_conflict(error: IntegrityError) -> bool:
    """Whether a constraint was violated that ``ON CONFLICT`` is about."""
    return getattr(error.__cause__, "sqlstate", None) in CONFLICTS


class _Kept:
    """An object as the caller has given it."""

    def __init__(self, instance: Model) -> None:
        self.instance = instance
        state = instance._state
        self.state = state.adding, state.db, dict(state.fields_cache)
        self.values = {
            name: copied(value) for name, value in instance.__dict__.items() if name != "_state"
        }

    def restore(self) -> None:
        state = self.instance._state
        values = self.instance.__dict__
        values.clear()
        values.update(self.values, _state=state)
        state.adding, state.db, state.fields_cache = self.state
