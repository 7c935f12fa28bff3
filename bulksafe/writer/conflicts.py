"""Decides whether a bulk write may reorder the calls of receivers.

Per-row order is ``pre₁ store₁ post₁ pre₂ store₂ post₂ …``, bulk order is ``pre₁ pre₂ … store post₁
post₂ …``. The two differ only if a moved call touches rows that a different moved call, or the
store, writes. So the statements of receivers are observed, and the tables that each receiver
touches are remembered for the next write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from bulksafe.declarations.lineage import lineage
from bulksafe.writer.relations import Relations, Touched, relations_of
from bulksafe.writer.vocabulary import name_of, names_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from bulksafe.declarations import Receiver

#: The tables that receivers touched besides their own row, by operation.
_remembered: WeakKeyDictionary[Receiver, dict[str, Touched]] = WeakKeyDictionary()

#: Version counter; changes whenever more is known. The decision is made for each row.
_changes = [0]


class Conflicts:
    """The receivers of one write, and whether they depend on the order.

    Args:
        connection: Django's, that is written to.
        model: the concrete model whose rows are written.
        operation: the main operation of the write.
        late: the receivers after the write.
        early: the receivers before it, to check them before they are called.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        model: type[Model],
        operation: str,
        late: Iterable[Receiver],
        early: Iterable[Receiver] = (),
    ) -> None:
        self.model = model
        self._connection = connection
        self._operation = operation
        before, after = [*early], [*late]
        self._late = [one for one in after if _is_observed(one)]
        self._forecast = [one for one in before if _is_observed(one)]
        self._has_unobserved = not all(map(_is_observed, [*before, *after]))
        self._own: Touched | None = None
        self._names = names_of(model)
        self._touched_before = Touched()
        #: Receivers before the write that depended on the order.
        self._dependent: list[Receiver] = []
        self._answer = -1, False
        self._may_write = -1, False

    @property
    def has_unknown(self) -> bool:
        """Whether some receivers were never observed: then the first row goes alone."""
        listed = [*self._late, *self._forecast]
        return any(self._operation not in _remembered.get(one, {}) for one in listed)

    @property
    def is_row_by_row(self) -> bool:
        """Whether receivers are known to touch rows of the table, or each other's rows."""
        if self._answer[0] != _changes[0]:
            self._answer = _changes[0], self._depends_on_order()
        return self._answer[1]

    @property
    def may_write_to_table(self) -> bool:
        """Whether receivers may write to other rows of the table, by what is known of them."""
        if self._may_write[0] != _changes[0]:
            self._may_write = _changes[0], self._writes_to_table()
        return self._may_write[1]

    def _writes_to_table(self) -> bool:
        if self._has_unobserved or self.has_unknown:
            return True
        found = self._known([*self._late, *self._forecast])
        return found.is_opaque or not found.writes.isdisjoint(self._own_names())

    def _own_names(self) -> set[str]:
        return {name_of(one).lower() for one in lineage(self.model)}

    def _depends_on_order(self) -> bool:
        after = self._known(self._late)
        if after.conflicts_with(self._own_writes()):
            return True
        before = self._known(self._forecast)
        return before.conflicts_with(self._own_writes()) or before.conflicts_with(after)

    def touched(self, text: str, *, is_own_row: bool) -> Touched:
        """The tables that a receiver's statement touches besides its own row."""
        if is_own_row:
            return self._along() if _is_write(text) else Touched()
        found = relations_of(self._connection).touched(text)
        if self._names.search(text) is not None:
            # The catalogs may have been read before the table was created.
            found |= Touched(reads=frozenset({name_of(self.model).lower()}))
        return found

    def writes_to(self, model: type[Model]) -> Touched:
        """The tables that writing rows of a model touches."""
        return _written(relations_of(self._connection), model)

    def note_call(self, receiver: Receiver) -> None:
        """Record that a receiver was called and observed."""
        _remembered.setdefault(receiver, {}).setdefault(self._operation, Touched())

    def note_before(self, receiver: Receiver, touched: Touched) -> bool:
        """Record the tables that a receiver before the write is about to touch.

        Returns:
            whether it depends on the rows before its own.
        """
        self._remember(receiver, touched)
        self._touched_before |= touched
        after = self._known(self._late)
        depends = touched.conflicts_with(self._own_writes()) or touched.conflicts_with(after)
        if depends and receiver not in self._dependent:
            self._dependent.append(receiver)
        return depends

    def dependent(self) -> list[Receiver]:
        """The receivers that require rows to be written one by one."""
        own = self._own_writes()
        late = [one for one in self._late if self._known([one]).conflicts_with(own)]
        return [*self._dependent, *late]

    def note_after(self, receiver: Receiver, touched: Touched) -> bool:
        """Record the tables that a receiver after the write is about to touch.

        Returns:
            whether it depends on the rows after its own.
        """
        self._remember(receiver, touched)
        before = self._touched_before
        return touched.conflicts_with(self._own_writes()) or touched.conflicts_with(before)

    def _remember(self, receiver: Receiver, touched: Touched) -> None:
        self.note_call(receiver)
        known = _remembered[receiver]
        if known[self._operation] | touched != known[self._operation]:
            known[self._operation] |= touched
            _changes[0] += 1

    def _known(self, listed: Iterable[Receiver]) -> Touched:
        found = Touched()
        for receiver in listed:
            found |= _remembered.get(receiver, {}).get(self._operation, found)
        return found

    def _own_writes(self) -> Touched:
        """The tables that writing a row touches."""
        if self._own is None:
            # Ignore triggers with dynamic SQL, such as audit logs.
            self._own = replace(self.writes_to(self.model), is_opaque=False)
        return self._own

    def _along(self) -> Touched:
        """The tables that writing a row touches besides its own."""
        own, names = self._own_writes(), self._own_names()
        return Touched(own.reads - names, own.writes - names)


def _is_observed(receiver: Receiver) -> bool:
    """Whether it is found out which tables a receiver touches."""
    return receiver.row_by_row is None and not receiver.batch


def is_asked_for(receivers: Collection[Receiver]) -> bool:
    """Whether a receiver requires each row to be stored before its next call."""
    return any(receiver.row_by_row for receiver in receivers)


def _is_write(text: str) -> bool:
    return text.lstrip()[:6].upper() != "SELECT"


def _written(relations: Relations, model: type[Model]) -> Touched:
    found = Touched()
    for table in lineage(model):
        found |= relations.closed(name_of(table))
    return found
