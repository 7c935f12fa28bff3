"""Repeats a write that other transactions have interfered with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import IntegrityError, OperationalError

from bulksafe.sqlstates import sqlstate
from bulksafe.writer.observing import Restart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulksafe.writer.observing import Progress
    from bulksafe.writer.session import Session

#: How often the rows of a write may change between its recording and their locks.
_MOST = 50

#: The maximum number of deadlocks of a write, and their SQLSTATE.
MOST_DEADLOCKS, _DEADLOCK = 5, "40P01"


#: The SQLSTATEs of ``ON CONFLICT``: a unique index, or an exclusion.
CONFLICTS = frozenset({"23505", "23P01"})


class Overtaken(BaseException):
    """Another transaction has stored a row like one that was recorded as new.

    The write is repeated from its beginning. An ``except Exception`` of a receiver must not catch
    it.

    Args:
        error: the violation of a unique index or an exclusion.
    """

    def __init__(self, error: IntegrityError) -> None:
        super().__init__()
        self.error = error


class Deadlock(Restart):
    """A write that locks stored rows before it stores new ones has met another such write.

    Args:
        progress: the write.
        error: PostgreSQL's.
    """

    def __init__(self, progress: Progress, error: OperationalError) -> None:
        super().__init__(progress)
        self.error = error


@contextmanager
def beginning_again_after_deadlocks(progress: Progress) -> Iterator[None]:
    """Wrap a statement of a write that can begin again.

    Raises:
        Deadlock: it should.
    """
    try:
        yield
    except OperationalError as error:
        if sqlstate(error) != _DEADLOCK:
            raise
        raise Deadlock(progress, error) from error


class Retries:
    """The attempts of one write.

    Args:
        session: the connection's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._deadlocks = self._attempts = 0

    @contextmanager
    def of_deadlocks(self) -> Iterator[None]:
        """Wrap a savepoint: a deadlock ends the attempt, and the next one may succeed.

        Releasing and retaking locks can deadlock where a single statement would not.
        """
        try:
            yield
        except OperationalError as error:
            self._deadlocks += 1
            is_deadlock = sqlstate(error) == _DEADLOCK
            if not is_deadlock or self._deadlocks > MOST_DEADLOCKS:
                raise
            self._session.due.clear()

    def count(self) -> None:
        """Count another attempt.

        Raises:
            OperationalError: there were too many.
        """
        self._attempts += 1
        if self._attempts >= _MOST:
            raise OperationalError(
                f"Other transactions changed the rows of a write {_MOST} times before its "
                "receivers could be called. Try again."
            )
