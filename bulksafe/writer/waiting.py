"""Changes that wait for their receivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.writer.taking import Taken

#: A table, by its oid, and an operation.
Key: TypeAlias = tuple[int, str]


class Waiting(NamedTuple):
    """The waiting changes of one table by one operation.

    Attributes:
        home: the schema of their buffer.
        taken: those that came back with their statement.
        notices: how many notices have announced those that are still in the buffer.
        rows: the number of these, or less if they were captured one by one.
    """

    home: str
    taken: Sequence[Taken] = ()
    notices: int = 0
    rows: int = 0

    def announced(self, rows: int) -> Waiting:
        """The same after a notice about further rows in the buffer."""
        return self._replace(notices=self.notices + 1, rows=self.rows + rows)
