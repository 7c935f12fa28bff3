"""The tables of a model with multi-table inheritance, and the parts of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from django.db import connections

from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.images import Image
from bulksafe.dispatch.sources import by_oid
from bulksafe.outbox.events import DELETED, INSERTED, Event
from bulksafe.planning import fields
from bulksafe.planning.images import Lineage, key_of, row_as_json
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Model

    from bulksafe.dispatch.images import Images, Table


#: The model of one of the tables.
Part: TypeAlias = "type[Model]"


class State(NamedTuple):
    """One part of a row.

    Attributes:
        values: the values of the part's columns, in image order.
        event, side: the event and side of the image; None for a stored row.
        text: a stored part as JSON; the text of an image is read on demand.
    """

    values: tuple[Any, ...]
    event: Event | None
    side: str
    text: str = ""


#: The known parts of a row.
States = dict[type["Model"], State]


class Parts:
    """The tables that store the rows of one model.

    Args:
        table: the table of the model, which has parents.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.places: dict[Part, list[int]] = {
            part: [
                place
                for place, one in enumerate(table.fields)
                if one.model._meta.concrete_model is part
            ]
            for part in lineage(table.model)
        }
        self._by_oid: dict[int, Part | None] = dict(by_oid(list(self.places), table.using))

    def of(self, event: Event) -> Part | None:
        """The certain part of an event; None if its table is not one of the model's."""
        oid = event.part
        assert oid is not None  # noqa: S101  (events of rows of several tables have one)
        if oid not in self._by_oid:
            self._by_oid[oid] = self._by_oid.get(self._root(oid))
        return self._by_oid[oid]

    def _root(self, oid: int) -> int:
        """The partitioned table that a partition belongs to."""
        with connections[self.table.using].cursor() as cursor:
            cursor.execute("SELECT pg_partition_root(%s::oid::regclass)::oid::bigint", [oid])
            return int(cursor.fetchone()[0] or 0)

    def state(self, part: Part, event: Event, side: str, images: Images) -> State | None:
        """A part of an image; None if the event has no such image."""
        image = images[side].get(event.seq)
        absent = INSERTED if side == "old" else DELETED
        if event.operation == absent or not isinstance(image, Image):
            return None
        return State(tuple(image.values[place] for place in self.places[part]), event, side)

    def own_values(self, event: Event, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """The values of an image that are certain."""
        part = self.of(event)
        if values is None or part is None:
            return values
        return tuple(values[place] for place in self.places[part])

    def stored(self, events: Sequence[Event]) -> dict[int, States]:
        """The currently stored rows of events, by event number."""
        if not events:
            return {}
        with connections[self.table.using].cursor() as cursor:
            cursor.execute(
                self._stored_query(),
                {
                    "slots": [event.slot for event in events],
                    "buckets": [event.bucket for event in events],
                    "seqs": [event.seq for event in events],
                },
            )
            return {row[0]: self._states(row[1:]) for row in cursor.fetchall()}

    def _states(self, columns: tuple[Any, ...]) -> States:
        texts = columns[len(self.table.fields) :]
        return {
            part: State(tuple(columns[place] for place in places), None, "new", text)
            for (part, places), text in zip(self.places.items(), texts, strict=True)
        }

    def _stored_query(self) -> str:
        model = self.table.model
        row = "row"
        joined = Lineage(model, {model: row}, "JOIN")
        columns = [
            f"{quoting.identifier(joined.aliases[one.model._meta.concrete_model])}."
            f"{quoting.identifier(one.column)}"
            for one in self.table.fields
        ]
        texts = [f"({row_as_json(part, joined.aliases[part])})::text" for part in self.places]
        keys = [quoting.identifier(key) for key in fields.primary_key_columns(model)]
        relation = quoting.relation(model._meta.db_table)
        joins = [
            f"JOIN {join['table']} AS {quoting.identifier(join['alias'])} ON {join['on']}"
            for join in joined.joins
        ]
        # A change of the key is the row's last event under the old key.
        text = " ".join(
            [
                f"SELECT e.seq, {', '.join([*columns, *texts])} {_PROBES}",
                f"CROSS JOIN LATERAL jsonb_populate_record(NULL::{relation}, e.new) AS known",
                f'JOIN {relation} AS "{row}" ON',
                " AND ".join(f'"{row}".{key} = known.{key}' for key in keys),
                *joins,
                f"WHERE {key_of(model, row)} = e.key",
            ]
        )
        # Table and column names may contain psycopg's parameter syntax.
        head, tail = text.split(_PROBES)
        return f"{head.replace('%', '%%')}{_PROBES}{tail.replace('%', '%%')}{_ONCE_MORE}"


_PROBES = (
    "FROM unnest(%(slots)s::smallint[], %(buckets)s::smallint[], %(seqs)s::bigint[]) "
    "AS k (slot, bucket, seq) "
    "JOIN bulksafe_outbox AS e ON (e.slot, e.bucket, e.seq) = (k.slot, k.bucket, k.seq)"
)
#: So that no plan scans the whole outbox.
_ONCE_MORE = (
    " AND e.slot = ANY (%(slots)s::smallint[]) AND e.bucket = ANY (%(buckets)s::smallint[]) "
    "AND e.seq = ANY (%(seqs)s::bigint[])"
)
