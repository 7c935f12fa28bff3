"""Combines the rows returned by several statements into one result for the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.writer.session import Session


def select(
    session: Session, description: Sequence[Any], rows: Sequence[tuple[Any, ...]]
) -> tuple[str, list[Any]]:
    """A query that returns the rows, in the types that the statement returns.

    Args:
        description: the statement's columns, as the driver describes them.

    Returns:
        its text and its parameters.
    """
    with session.asking() as cursor:
        cursor.execute(
            "SELECT pg_catalog.format_type(t.oid, NULL) FROM "
            "pg_catalog.unnest(%s::pg_catalog.oid[]) WITH ORDINALITY AS t (oid, n) ORDER BY t.n",
            [[column.type_code for column in description]],
        )
        one = ", ".join(f"%s::{name}" for (name,) in cursor.fetchall())
    names = [quoting.identifier(column.name) for column in description]
    columns = ", ".join(f"c{place} AS {name}" for place, name in enumerate(names))
    aliases = ", ".join(f"c{place}" for place in range(len(names)))
    if rows:
        listed = f"(VALUES {', '.join([f'({one})'] * len(rows))})"
    else:
        listed = f"(SELECT {one} WHERE false)"
    text = f"SELECT {columns} FROM ".replace("%", "%%")  # noqa: S608
    params = [value for row in rows or [(None,) * len(names)] for value in row]
    return f"{text}{listed} AS v ({aliases})", params
