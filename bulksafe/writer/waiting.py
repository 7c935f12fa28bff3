"""Changes that wait for their receivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.writer.taking import Taken

#: A table, by its oid, and an operation.
Key: TypeAlias = tuple[int, str]


class Home(str):
    """The schema of the buffer with the changes of one table by one operation.

    Attributes:
        taken: those that came back with their statement.
        has_more: whether others are still in the buffer.
    """

    __slots__ = ("has_more", "taken")

    taken: Sequence[Taken]
    has_more: bool

    @classmethod
    def of(cls, schema: str, taken: Sequence[Taken] = (), *, has_more: bool) -> Home:
        found = cls(schema)
        found.taken, found.has_more = taken, has_more
        return found

    @classmethod
    def with_more(cls, schema: str, known: Home | None) -> Home:
        """The same after the database has reported changes in the buffer."""
        return cls.of(schema, () if known is None else known.taken, has_more=True)
