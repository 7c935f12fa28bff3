"""``bulk_create(ignore_conflicts=True)``: objects that are left out, since their rows exist."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import IntegrityError

from bulksafe.sqlstates import sqlstate
from bulksafe.writer.blocks import Block
from bulksafe.writer.retrying import CONFLICTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from bulksafe.writer.session import Session


class LeftOut(Exception):  # noqa: N818
    """A row for the object exists."""


class ObjectSavepoint:
    """Savepoint for one object: rolls back its receivers' work if the object is left out.

    Args:
        session: the connection's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._block: Block | None = None

    def begin(self) -> None:
        self._block = Block(self._session.alias, may_wait=not self._session.observers)
        self._block.__enter__()

    @property
    def is_open(self) -> bool:
        return self._block is not None

    def end(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(kind, error, traceback)

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Roll back if the object conflicts with a stored row."""
        try:
            yield
        except (LeftOut, IntegrityError) as error:
            if not isinstance(error, LeftOut) and not _is_conflict(error):
                raise
            self.end(type(error), error, error.__traceback__)
            self._session.due.clear()


def _is_conflict(error: IntegrityError) -> bool:
    """Whether a constraint was violated that ``ON CONFLICT`` covers."""
    return sqlstate(error) in CONFLICTS
