"""Objects in hand: ``bulk_create()`` and ``bulk_update()`` with their receivers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import Model

from bulksafe.compat import BULK_CREATE_IS_ATOMIC
from bulksafe.outbox.events import INSERTED, UPDATED
from bulksafe.writer import parents
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.conflicts import Conflicts, is_asked_for
from bulksafe.writer.ignored import LeftOut, ObjectSavepoint
from bulksafe.writer.instance_calls import InstanceCalls
from bulksafe.writer.instance_scopes import InHand
from bulksafe.writer.instances import take_over
from bulksafe.writer.matching import without_rows
from bulksafe.writer.observing import Observer, Restart, RowsMissing
from bulksafe.writer.row_queue import RowQueue
from bulksafe.writer.session import Session
from bulksafe.writer.snapshots import Snapshot

logger = logging.getLogger("bulksafe")


class BulkWrite:
    """A write of objects in hand.

    Args:
        model: their concrete model.
        instances: the objects.
        update_fields: ``update_fields`` for receivers; None if the rows are new.
        is_spared: whether the database need not buffer the rows.
        ignores: whether objects whose rows exist are left out.
        store: writes some of the objects.
    """

    def __init__(
        self,
        session: Session,
        model: type[Model],
        instances: Sequence[Model],
        update_fields: frozenset[str] | None,
        store: Callable[[Sequence[Model]], Any],
        *,
        is_spared: bool = False,
        ignores: bool = False,
    ) -> None:
        self.session = session
        self.model = model
        self.instances = instances
        self.update_fields = update_fields
        #: ``update_fields`` for receivers of updated rows.
        self.given_fields = update_fields
        self.results: list[Any] = []
        self.calls = InstanceCalls(session, model, self.fields_of)
        self._store = store
        self._is_spared = is_spared
        self._ignores = ignores and bool(self.calls.early)
        self._savepoint = ObjectSavepoint(session)
        #: The scope of the write; a new one when it begins again.
        self.scope = InHand()
        #: The original state of each object: its key, and whether it is new.
        self._given = [
            (instance, (instance.pk, instance._state.adding, instance._state.db))
            for instance in instances
        ]
        self._was_new = {id(one): one._state.adding and one.pk is None for one in instances}
        #: The caller's cached related objects; None without receivers before the write.
        self._cached: parents.Cached | None = None
        self._progress: RowQueue | None = None
        self._is_begun = False
        #: Whether objects without a row are left out, and the ``id()`` of these.
        self._leaves_out = False
        self._missing: frozenset[int] = frozenset()

    def run(self) -> list[Any]:
        """Store all of the objects.

        Returns:
            the result of storing them.
        """
        is_row_by_row = self._ignores or is_asked_for([*self.calls.early, *self.calls.late])
        is_ordered = is_row_by_row or not self.calls.late
        may_restart = self.may_begin_again or not is_ordered
        kept = [Snapshot(one) for one in self.instances] if may_restart else []
        while True:
            try:
                self._run(is_row_by_row=is_row_by_row)
            except Restart as restart:
                if not may_restart or restart.progress is not self._progress:
                    raise
                self._restore(kept)
                is_row_by_row = self.begin_again(restart, is_row_by_row=is_row_by_row)
            else:
                return self.results

    def _restore(self, kept: Sequence[Snapshot]) -> None:
        for one in kept:
            one.restore()
        self.session.due.clear()
        self.results.clear()

    def begin_again(self, restart: Restart, *, is_row_by_row: bool) -> bool:
        """The objects are as they were before. Returns whether to write them row by row."""
        if isinstance(restart, RowsMissing):
            self._leaves_out = True
            return is_row_by_row
        logger.warning(
            "a receiver of %s reads other rows of its table after the write: the write is "
            "repeated row by row. Write row_by_row=True, or False if the order makes no "
            "difference to it.",
            self.model._meta.label,
        )
        return True

    def _run(self, *, is_row_by_row: bool) -> None:
        self.scope = InHand(
            model=self.model,
            given_fields=self.given_fields,
            is_spared=self._is_spared,
            is_logged=self.update_fields is not None or BULK_CREATE_IS_ATOMIC,
        )
        early, late = self.calls.early, self.calls.late
        operation = INSERTED if self.update_fields is None else UPDATED
        connection = self.session.connection
        conflicts = Conflicts(connection, self.model, operation, late)
        queue = RowQueue(
            self.session,
            self.scope,
            self,
            conflicts,
            is_row_by_row=is_row_by_row,
            is_whole=any(one.batch for one in (*early, *late)),
        )
        self._progress = queue
        self._is_begun = False
        observer = Observer(conflicts, queue, connection)
        with self.session.within(self.scope):
            self.begin()
            self._cached = parents.cached(self.instances) if early else None
            self.calls.begin(self.scope, self.instances, observer)
            self.scope.observer = Observer(conflicts, queue, connection, is_after=True)
            try:
                queue.run()
            except BaseException:
                self._savepoint.end(*sys.exc_info())
                raise

    @property
    def progress(self) -> RowQueue:
        """The rows of the attempt in progress."""
        assert self._progress is not None  # noqa: S101
        return self._progress

    # The rows.

    def __len__(self) -> int:
        return len(self.instances)

    def before(self, place: int) -> None:
        instance = self.instances[place]
        if id(instance) in self._missing:
            return
        if not self._ignores:
            self.calls.call_early(instance, is_begun=self._is_begun)
            return
        self._savepoint.begin()
        with self._savepoint.leaving_out():
            self.calls.call_early(instance, is_begun=self._is_begun)

    def store(self, start: int, end: int) -> None:
        chunk = [one for one in self.instances[start:end] if id(one) not in self._missing]
        if not chunk:
            return
        if not self._ignores:
            self._store_chunk(chunk)
        elif self._savepoint.is_open:
            with self._savepoint.leaving_out():
                self._store_chunk(chunk)
                self._savepoint.end()

    def _store_chunk(self, chunk: Sequence[Model]) -> None:
        self._is_begun = True
        self.calls.call_batches(chunk)
        self.session.is_answered = False
        # Objects with a key may have rows whose change also changes rows of other models.
        self.scope.take(instance for instance in chunk if instance.pk is not None)
        self._write(chunk)
        if self._may_miss_rows and not self._leaves_out and self._misses_rows(chunk):
            # Their receivers have been called.
            raise RowsMissing(self.progress)
        self.forget_parents(chunk)
        rows = self.scope.take(chunk)
        if self.scope.is_spared:
            self.session.sync()
            if self.session.is_answered:
                self.calls.call_late(zip(rows, chunk, strict=True))
        self.session.settle(self.scope)

    def begin(self) -> None:
        """The transaction is open, and no receiver has been called."""
        if self._leaves_out:
            self._missing = without_rows(self.model, self.instances, self.session.alias)

    @property
    def may_begin_again(self) -> bool:
        """Whether the write may have to be repeated, apart from the order of its receivers."""
        return self._may_miss_rows

    @property
    def _may_miss_rows(self) -> bool:
        """Whether receivers may have been called for objects that an UPDATE finds no rows of."""
        return self.update_fields is not None and bool(self.calls.early)

    def _misses_rows(self, chunk: Sequence[Model]) -> bool:
        updated = self.results[-1]
        if updated is None or updated >= len({key_of_instance(one) for one in chunk}):
            return False
        return bool(without_rows(self.model, chunk, self.session.alias))

    def fields_of(self, instance: Model) -> frozenset[str] | None:
        """``update_fields`` of an object for receivers before the write."""
        return self.update_fields

    def forget_parents(self, chunk: Sequence[Model]) -> None:
        """Drop related objects fetched by receivers before the write, which may be stale."""
        if self._cached is not None and len(chunk) > 1:
            parents.forget(chunk, self._cached)

    def _write(self, chunk: Sequence[Model]) -> None:
        begun, self.scope.stored = len(self.scope.pending), 0
        # A receiver has already called save() on these: Django's own save() continues from there.
        saved = [one for one in chunk if self._is_saved(one)]
        rest = [one for one in chunk if not self._is_saved(one)] if saved else chunk
        with self.scope.storing():
            for instance in saved:
                any_instance: Any = instance
                any_instance._save_table(cls=self.model, using=self.session.alias)
            if rest:
                self.results.append(self._store(rest))
        if not self._ignores:
            return
        if self.scope.stored == 0:
            raise LeftOut
        self.session.gather(self.scope)
        for change in self.scope.pending[begun:]:
            if change.created and change.model is self.model:
                # Django does not return the keys of objects that may be left out.
                change.take_in_hand(chunk[0])
                take_over(change)
                chunk[0]._state.adding, chunk[0]._state.db = False, self.session.alias
                self.scope.take(chunk)
                self.scope.prepare(change)

    def _is_saved(self, instance: Model) -> bool:
        # An object with a key is always inserted, as by save(force_insert=True).
        was_new = self._was_new.get(id(instance), False)
        return self.update_fields is None and was_new and not instance._state.adding

    def mark(self) -> int:
        return len(self.results)

    def return_to(self, mark: int, start: int, end: int) -> None:
        del self.results[mark:]
        for instance, given in self._given[start:end]:
            # Undo the changes of Django's store to the object.
            instance.pk, instance._state.adding, instance._state.db = given
