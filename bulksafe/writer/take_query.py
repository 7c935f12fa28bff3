"""The queries for the changes of one table, buffered or staged."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from django.db.models import CharField, ForeignKey, TextField

from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.routes import asked_of
from bulksafe.outbox.events import INSERTED, UPDATED
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db.models import Field, Model

    from bulksafe.dispatch.images import Table
    from bulksafe.dispatch.routes import Route


#: The function that takes changes, with explicit types: an overload could match untyped numbers
#: better.
_TAKE = (
    '{home}.bulksafe_take(%s::pg_catalog.oid, %s::pg_catalog."char", %s::pg_catalog.int8, '
    "%s::pg_catalog.int8)"
)


#: The maximum number of image columns in one result row, which may have 1,664 columns including
#: those of the event and the conditions.
_MOST_COLUMNS = 1500

#: Whether any change may belong to the one before it, as ``taking.is_any_shared`` asks.
_SHARED = (
    "shared AS MATERIALIZED "
    "(SELECT bool_or(b.depth > 1 OR b.part IS NOT NULL) AS is_any FROM taken AS b)"
)

_IS_SHARED = "(SELECT is_any FROM shared)"

EVENT = (
    "e.seq",
    "date_part('epoch', e.at)",
    "e.part::oid::bigint",
    "e.depth",
    "e.key",
)

#: The number comes first; all other columns are NULL if no change belongs to a previous one.
_LEAN_EVENT = (
    EVENT[0],
    *(f"CASE WHEN {_IS_SHARED} THEN {column} END" for column in EVENT[1:]),
)


def in_schema(home: str, text: str) -> str:
    """A query with the schema of our function filled in.

    Without it, a function of that name earlier on the search_path would be called.

    Args:
        text: with ``{home}`` before the function, and nowhere before that.
    """
    return text.replace("{home}", quoting.identifier(home).replace("%", "%%"), 1)


def is_wide(table: Table, sides: Sequence[str]) -> bool:
    """Whether a query cannot return both images in one row: then each has its own row."""
    return len(sides) * len(table.fields) > _MOST_COLUMNS


def take_query(
    table: Table,
    operation: str,
    sides: Sequence[str],
    routes: Sequence[Route],
    *,
    is_lean: bool,
    in_chunks: bool = False,
) -> str:
    """The query, with ``{home}`` before the function that takes.

    Args:
        sides: ``"old"``, ``"new"`` or both: the images that it returns.
        routes: the receivers; the query returns which of their conditions a change meets.
        is_lean: whether it omits the columns that are unused if no change belongs to a previous
            one.
        in_chunks: whether the result is read in chunks: updated and deleted rows in the order of
            their keys, and a last column for ``is_any_shared``. Not if ``is_wide``.
    """
    columns = [*(_LEAN_EVENT if is_lean else EVENT), *_conditions(routes)]
    # Conditions are over rows called old and new, also where only one of them is read.
    has_conditions = any(route.condition is not None for route in routes)
    joined = ("old", "new") if has_conditions else sides
    images = [_image(table, side) for side in sides]
    if is_wide(table, sides):
        selects = [[*columns, *side, str(number)] for number, side in enumerate(images)]
        order = f"1, {len(selects[0])}"
    else:
        selects = [[*columns, *chain(*images)]]
        order = "e.seq"
        if in_chunks and operation != INSERTED:
            # Of lean rows, the new row alone is read.
            order = ", ".join(by_key(table, sides[-1] if is_lean else sides[0]))
        if in_chunks and not is_lean:
            selects[0].append(_IS_SHARED)
    # Table and column names may contain psycopg's parameter syntax.
    selected = [", ".join(one).replace("%", "%%") for one in selects]
    joins = " ".join(_records(table.model, joined)).replace("%", "%%")
    if is_lean and operation == UPDATED:
        # The old rows are needed to chain changes of one row.
        joins = joins.replace("e.old)", f"CASE WHEN {_IS_SHARED} THEN e.old END)")
    return (
        f"WITH taken AS MATERIALIZED (SELECT * FROM {_TAKE}), "  # noqa: S608
        f"{_SHARED} "
        + " UNION ALL ".join(f"SELECT {one} FROM taken AS e {joins}" for one in selected)  # noqa: S608
        + f" ORDER BY {order}"
    )


def by_key(table: Table, side: str) -> Iterator[str]:
    """What sorts rows by their keys as Python does."""
    alias = _aliases(table.model, side)[table.model]
    for key in table.model._meta.pk_fields:
        column = f"{alias}.{quoting.identifier(str(key.column))}".replace("%", "%%")
        yield f'{column} COLLATE "C"' if _is_text(key) else column


def _is_text(field: Field[Any, Any]) -> bool:
    while isinstance(field, ForeignKey):
        field = field.target_field
    return isinstance(field, CharField | TextField)


def _conditions(routes: Sequence[Route]) -> Iterator[str]:
    """Columns that say whether a change meets the condition of each receiver that has one."""
    asked = quoting.literal(asked_of(routes) or "")
    for route in routes:
        if route.condition is not None:
            assert route.condition_id is not None  # noqa: S101
            yield (
                f"CASE WHEN {asked} = ANY (e.matched) "
                f"THEN {quoting.literal(route.condition_id)} = ANY (e.matched) "
                f"ELSE COALESCE(({route.condition}), false) END"
            )


def _records(model: type[Model], sides: Sequence[str]) -> Iterator[str]:
    """Joins that turn the JSON of a change into rows of the model's tables."""
    for side in sides:
        for table, alias in _aliases(model, side).items():
            relation = quoting.relation(table._meta.db_table)
            yield (
                f"CROSS JOIN LATERAL jsonb_populate_record(NULL::{relation}, e.{side}) AS {alias}"
            )


def _image(table: Table, side: str) -> list[str]:
    """The columns of one image."""
    aliases = _aliases(table.model, side)
    return [
        f"{aliases[one.model._meta.concrete_model]}.{quoting.identifier(one.column)}"
        for one in table.fields
    ]


def _aliases(model: type[Model], side: str) -> dict[type[Model], str]:
    """The aliases of the rows of the model's tables, its own first."""
    return {
        table: f'"{side}"' if number == 0 else f'"{side} {number}"'
        for number, table in enumerate(lineage(model))
    }
