"""Whether it matters that a bulk write moves the calls of receivers.

Per-row order is ``pre₁ store₁ post₁ pre₂ store₂ post₂ …``, bulk order is ``pre₁ pre₂ … store post₁
post₂ …``. The two differ only if a call that was moved touches what another moved call, or the
store, writes. So the statements of receivers are looked at while they run, and what each receiver
has touched is remembered for the next write.
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

#: What receivers have touched beside the row that they were called for, by the operation.
_remembered: WeakKeyDictionary[Receiver, dict[str, Touched]] = WeakKeyDictionary()

#: Goes up whenever more is known: whether rows go one by one is asked for each of them.
_changes = [0]


class Conflicts:
    """The receivers of one write, and whether they depend on the order.

    Args:
        connection: Django's, that is written to.
        model: the concrete model whose rows are written.
        operation: what the write does to most of them.
        late: the receivers that come after the write.
        early: those before it, if it is to be known of them before they are called.
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
        self._late = [one for one in late if one.row_by_row is None and not one.batch]
        self._forecast = [one for one in early if one.row_by_row is None and not one.batch]
        self._own: Touched | None = None
        self._names = names_of(model)
        self._touched_before = Touched()
        #: Those before the write that have depended on the order.
        self._dependent: list[Receiver] = []
        self._answer = -1, False

    @property
    def has_unknown(self) -> bool:
        """Whether receivers have never been looked at: the first row teaches."""
        listed = [*self._late, *self._forecast]
        return any(self._operation not in _remembered.get(one, {}) for one in listed)

    @property
    def is_row_by_row(self) -> bool:
        """Whether receivers are known to touch the rows of the table, or each other's."""
        if self._answer[0] != _changes[0]:
            self._answer = _changes[0], self._depends_on_order()
        return self._answer[1]

    def _depends_on_order(self) -> bool:
        after = self._known(self._late)
        if after.conflicts_with(self._own_writes()):
            return True
        before = self._known(self._forecast)
        return before.conflicts_with(self._own_writes()) or before.conflicts_with(after)

    def touched(self, text: str, *, is_own_row: bool) -> Touched:
        """What a statement of a receiver touches beside the row that it is called for."""
        if is_own_row:
            return self._along() if _is_write(text) else Touched()
        found = relations_of(self._connection).touched(text)
        if self._names.search(text) is not None:
            # The catalogs may have been read before the table was created.
            found |= Touched(reads=frozenset({name_of(self.model).lower()}))
        return found

    def writes_to(self, model: type[Model]) -> Touched:
        """What writing rows of a model touches."""
        return _written(relations_of(self._connection), model)

    def note_call(self, receiver: Receiver) -> None:
        """A receiver is called: from now on it is known."""
        _remembered.setdefault(receiver, {}).setdefault(self._operation, Touched())

    def note_before(self, receiver: Receiver, touched: Touched) -> bool:
        """A receiver before the write is about to touch this.

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
        """The receivers for which rows are written one by one."""
        own = self._own_writes()
        late = [one for one in self._late if self._known([one]).conflicts_with(own)]
        return [*self._dependent, *late]

    def note_after(self, receiver: Receiver, touched: Touched) -> bool:
        """A receiver after the write is about to touch this.

        Returns:
            whether it depends on the rows behind its own.
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
        """What writing a row touches."""
        if self._own is None:
            # Triggers that put SQL together at run time, as audit logs do, say nothing of it.
            self._own = replace(self.writes_to(self.model), is_opaque=False)
        return self._own

    def _along(self) -> Touched:
        """What writing a row touches beside the table."""
        own, names = self._own_writes(), {name_of(one).lower() for one in lineage(self.model)}
        return Touched(own.reads - names, own.writes - names)


def is_asked_for(receivers: Collection[Receiver]) -> bool:
    """Whether a receiver wants each row to be stored before it is called for the next."""
    return any(receiver.row_by_row for receiver in receivers)


def _is_write(text: str) -> bool:
    return text.lstrip()[:6].upper() != "SELECT"


def _written(relations: Relations, model: type[Model]) -> Touched:
    found = Touched()
    for table in lineage(model):
        found |= relations.closed(name_of(table))
    return found
