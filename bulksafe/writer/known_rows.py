"""The rows of a twice-executed write whose receivers have been called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.writer.fingerprints import Found, differing, may_differ
from bulksafe.writer.through_rows import RecordedRow, recorded_row

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from bulksafe.call_stack import Row
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.ledger import Ledger


class KnownRows:
    """The known rows, by their name in the next execution.

    Args:
        using: the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._rows: dict[Hashable, RecordedRow] = {}
        #: Whether the last execution changed exactly the known rows.
        self._is_aligned = False

    def __bool__(self) -> bool:
        return bool(self._rows)

    def unknown(self, found: Sequence[Found]) -> list[Found]:
        """The changes of an execution without receiver calls."""
        self._is_aligned = {one.name for one in found} == self._rows.keys()
        return [one for one in found if not self._is_known(one)]

    def known(self, found: Found) -> RecordedRow | None:
        """The row of a change, if receivers have been called for it."""
        return self._rows[found.name] if self._is_known(found) else None

    def add(
        self, found: Iterable[Found], new: Iterable[Found], ledger: Ledger, *, has_no_cascades: bool
    ) -> list[RecordedRow]:
        """Add new rows, and follow the known ones to their changes of the last execution.

        Args:
            found: the changes of the execution.
            new: the unknown changes among them.
            ledger: the ledger of the write.
            has_no_cascades: whether no rows of other models are deleted too.

        Returns:
            all of the rows, in the order of the changes.
        """
        order: list[RecordedRow] = []
        last: dict[Row, RecordedRow] = {}
        is_new = {id(one) for one in new}
        for one in found:
            change = one.change
            if id(one) in is_new:
                row = self._rows[one.name] = recorded_row(one, ledger)
                row.earlier = last.get(change.row)
            else:
                row = self._rows[one.name]
                self.carry(row, change, has_no_cascades=has_no_cascades)
                row.found = one
            last[change.new_row] = row
            order.append(row)
        return order

    def carry(self, row: RecordedRow, change: InlineChange, *, has_no_cascades: bool) -> None:
        row.carry_to(change, self._using, has_no_cascades=has_no_cascades)

    def missed_by(self, executed: Iterable[Found]) -> list[RecordedRow]:
        """The known rows that an execution has not changed."""
        names = {found.name for found in executed}
        return [row for name, row in self._rows.items() if name not in names]

    def _is_known(self, found: Found) -> bool:
        """Whether receivers have been called for a change.

        If the statement is not deterministic (``Now()``), the row gets the values that its
        receivers have seen.
        """
        row = self._rows.get(found.name)
        if row is None:
            return False
        if row.found.print == found.print:
            return True
        different = differing(row.found, found)
        if different is None or not (self._is_aligned or may_differ(found.change, different)):
            return False
        row.inherited |= different
        row.found = Found(row.found.name, row.found.change, found.print)
        return True
