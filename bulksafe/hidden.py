"""Keeps bulksafe's own statements out of ``connection.queries`` and of users' execute wrappers.

``assertNumQueries()`` and the like then count what Django would have sent without bulksafe.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from bulksafe.object_state import attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

#: Marks of a connection: its statements are bulksafe's, and so is its transaction.
_STATEMENTS, _TRANSACTION = "_bulksafe_hides_statements", "_bulksafe_hides_transaction"


@contextmanager
def hidden(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Execute statements of bulksafe's own through Django's cursors.

    Args:
        connection: Django's, which must be open: a new one gets its execute wrappers when it opens.
    """
    kept, wrappers = attributes(connection), connection.execute_wrappers
    before = kept.get(_STATEMENTS, False)
    kept[_STATEMENTS] = True
    kept["execute_wrappers"] = [one for one in wrappers if _is_own(one)]
    try:
        yield
    finally:
        kept[_STATEMENTS], kept["execute_wrappers"] = before, wrappers


def _is_own(wrapper: object) -> bool:
    return type(wrapper).__module__.partition(".")[0] == __name__.partition(".")[0]


@contextmanager
def hiding_transaction(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Hide the BEGIN of the transaction that begins in the block, and its later end."""
    kept = attributes(connection)
    kept[_TRANSACTION] = True
    try:
        yield
    except BaseException:
        # It has not begun, because the connection could not be opened.
        kept[_TRANSACTION] = False
        raise


# For Django's functions of the same names.


def make_debug_cursor(
    original: Callable[..., CursorWrapper], connection: BaseDatabaseWrapper, cursor: Any
) -> CursorWrapper:
    """Log no statement of a hidden cursor."""
    if attributes(connection).get(_STATEMENTS):
        return connection.make_cursor(cursor)
    return original(connection, cursor)


def debug_transaction(
    original: Callable[..., AbstractContextManager[None]],
    connection: BaseDatabaseWrapper,
    sql: str,
) -> AbstractContextManager[None]:
    """Log no command of a hidden transaction.

    The mark ends before the callbacks of ``on_commit()``, whose transactions are the user's.
    """
    if not connection.__dict__.get(_TRANSACTION):
        return original(connection, sql)
    if sql != "BEGIN":
        attributes(connection)[_TRANSACTION] = False
    return nullcontext()
