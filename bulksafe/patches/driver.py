"""The type of what is mixed in before the driver's class of cursors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    import psycopg

    Cursor: TypeAlias = psycopg.Cursor[Any]
else:
    # A connection's own class of cursors comes behind it.
    Cursor = object
