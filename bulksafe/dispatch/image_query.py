"""The queries for the images of events, as columns with the types of their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.declarations.lineage import lineage
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django.db.models import Model

    from bulksafe.outbox.events import Event

#: PostgreSQL returns at most 1664 columns.
MOST_COLUMNS = 1600

#: Event numbers are unique; slot and bucket select the partition and its index. A join with the
#: keys would sometimes be planned as a scan of the whole outbox.
CAPTURED = (
    "FROM bulksafe_outbox AS e {joins} WHERE e.slot = ANY (%s::smallint[]) "
    "AND e.bucket = ANY (%s::smallint[]) AND e.seq = ANY (%s::bigint[])"
)

#: The same for events with amended images.
AMENDED = (
    "FROM (SELECT a.seq, f.old || COALESCE(k.old, '{{}}')::jsonb AS old, "
    "a.new || COALESCE(k.new, '{{}}')::jsonb AS new "
    "FROM unnest(%s::smallint[], %s::smallint[], %s::bigint[], %s::smallint[], %s::bigint[], "
    "%s::text[], %s::text[]) AS k (slot, bucket, seq, first_slot, first, old, new) "
    "JOIN bulksafe_outbox AS a ON (a.slot, a.bucket, a.seq) = (k.slot, k.bucket, k.seq) "
    "JOIN bulksafe_outbox AS f ON (f.slot, f.bucket, f.seq) = (k.first_slot, k.bucket, k.first) "
    "OFFSET 0) AS e {joins}"
)

PARKED = "FROM bulksafe_parked AS e {joins} WHERE e.id = ANY (%s::bigint[])"


def select(model: type[Model], fields: Sequence[Any], sides: Sequence[str], found: str) -> str:
    """The query for images.

    Args:
        fields: the stored fields, in the order of an image's values.
        sides: ``"old"``, ``"new"`` or both.
        found: the source of the images: ``CAPTURED``, ``AMENDED`` or ``PARKED``.
    """
    tables = lineage(model)
    columns, records = [], []
    for side in sides:
        aliases = {model: f'"{side} {number}"' for number, model in enumerate(tables)}
        columns += [
            f"{aliases[one.model._meta.concrete_model]}.{quoting.identifier(one.column)}"
            for one in fields
        ]
        records += [
            f"CROSS JOIN LATERAL jsonb_populate_record(NULL::"
            f"{quoting.relation(model._meta.db_table)}, e.{side}) AS {alias}"
            for model, alias in aliases.items()
        ]
    number = "id" if found is PARKED else "seq"  # see Event.number
    wanted = f"SELECT e.{number}, {', '.join(columns)}", " ".join(records)
    # Table and column names may contain psycopg's parameter syntax.
    head, joins = (part.replace("%", "%%") for part in wanted)
    return f"{head} {found.format(joins=joins)}"


def meets(model: type[Model], event: Event, conditions: Sequence[str]) -> str:
    """The query that says which conditions over the rows ``old`` and ``new`` an event meets."""
    row = f"NULL::{quoting.relation(model._meta.db_table)}"
    answers = ", ".join(f"COALESCE(({condition}), false)" for condition in conditions)
    before = event.before
    old, new = (_amending(event, side) for side in ("old", "new"))
    # Conditions of planning's own, quoted names and numbers, and literals.
    return (
        f"SELECT {answers} FROM bulksafe_outbox AS e JOIN bulksafe_outbox AS f "  # noqa: S608
        f"ON (f.slot, f.bucket, f.seq) = ({before.slot:d}, {event.bucket:d}, {before.seq:d}) "
        f"CROSS JOIN LATERAL jsonb_populate_record({row}, f.old{old}) AS old "
        f"CROSS JOIN LATERAL jsonb_populate_record({row}, e.new{new}) AS new "
        f"WHERE (e.slot, e.bucket, e.seq) = ({event.slot:d}, {event.bucket:d}, {event.seq:d})"
    )


def keys(events: Sequence[Event]) -> list[str]:
    """The event keys for the query, as PostgreSQL array texts.

    They are long, and psycopg would take ten times as long to format them.
    """
    if events[0].parked is not None:
        return [_array(event.parked for event in events)]
    return [
        _array({event.slot for event in events}),
        _array({event.bucket for event in events}),
        _array(event.seq for event in events),
    ]


def amended_keys(events: Sequence[Event]) -> list[list[Any]]:
    texts = [event.amended or {} for event in events]
    return [
        [event.slot for event in events],
        [event.bucket for event in events],
        [event.seq for event in events],
        [event.before.slot for event in events],
        [event.before.seq for event in events],
        [text.get("old") for text in texts],
        [text.get("new") for text in texts],
    ]


def _amending(event: Event, side: str) -> str:
    """SQL that amends an image."""
    text = (event.amended or {}).get(side)
    return "" if text is None else f" || {quoting.literal(text)}::jsonb"


def _array(numbers: Iterable[int | None]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"
