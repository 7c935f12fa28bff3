"""The type of mixins for the driver's cursor class."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    import psycopg

    Cursor: TypeAlias = psycopg.Cursor[Any]
else:
    # A connection's own cursor class follows in the MRO.
    Cursor = object
