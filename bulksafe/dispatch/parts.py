"""Rows of several tables (multi-table inheritance): the events say what the row was.

An event holds the whole row. It is certain of the part in its own table, whose row was locked. The
other parts are what the writer's statement could see, and another transaction may have changed
them in the meantime: two transactions that change a parent's and a child's part at once both show
a row that never existed. Locks in the capture would deadlock, so this is put right when the events
are read.

The events of one part are in the order of its changes. So the state of another part, at the place
of an event, is the one from which the next event of that part starts. Where no such event is left,
it is the stored row: a transaction that changed it has left an event, or has not committed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections

from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.images import Image
from bulksafe.dispatch.sources import by_oid
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED, Event, chained
from bulksafe.planning import fields
from bulksafe.planning.capture import Lineage, key_of, row_as_json
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from django.db.models import Model

    from bulksafe.dispatch.images import Images, Table
    from bulksafe.outbox.store import Cursor, Store

    #: The source and the key of a row. Events for receivers of a writer's transaction that did not
    #: run there are a sequence of their own.
    _Row: TypeAlias = tuple[int, str, bool]
    _Part: TypeAlias = type[Model]
    #: Reads the images of events of one or more tables.
    _Read: TypeAlias = Callable[[Sequence[Event], Sequence[str]], Images]


class _State(NamedTuple):
    """One part of a row.

    Attributes:
        values: as an image has them, of the part's columns alone.
        event, side: the event and the side of it that has the image; None for a stored row.
        text: a stored part as JSON; that of an image is read where it is needed.
    """

    values: tuple[Any, ...]
    event: Event | None
    side: str
    text: str = ""


#: The parts of a row that are known.
_States = dict[type["Model"], _State]


class Parts:
    """The tables in which the rows of one model lie.

    Args:
        table: of the model, which has parents.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.places: dict[_Part, list[int]] = {
            part: [
                place
                for place, one in enumerate(table.fields)
                if one.model._meta.concrete_model is part
            ]
            for part in lineage(table.model)
        }
        self._by_oid: dict[int, _Part | None] = dict(by_oid(list(self.places), table.using))

    def of(self, event: Event) -> _Part | None:
        """The part that an event is certain of; None if its table is not one of the model's."""
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

    def state(self, part: _Part, event: Event, side: str, images: Images) -> _State | None:
        """A part of an image; None if the event has no such image."""
        image = images[side].get(event.seq)
        absent = INSERTED if side == "old" else DELETED
        if event.operation == absent or not isinstance(image, Image):
            return None
        return _State(tuple(image.values[place] for place in self.places[part]), event, side)

    def own_values(self, event: Event, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """Those of an image's values that the event is certain of."""
        part = self.of(event)
        if values is None or part is None:
            return values
        return tuple(values[place] for place in self.places[part])

    def stored(self, events: Sequence[Event]) -> dict[int, _States]:
        """The rows of events as they are stored now, by the events' numbers."""
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

    def _states(self, columns: tuple[Any, ...]) -> _States:
        texts = columns[len(self.table.fields) :]
        return {
            part: _State(tuple(columns[place] for place in places), None, "new", text)
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
        # A change of the key is the row's last event under the old one.
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
        # Names of tables and columns may hold what psycopg takes for a parameter.
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


@dataclass(frozen=True)
class Amendment:
    """Finds out in what the rows of events differ from their images.

    Attributes:
        store: the outbox.
        parts: the tables of each source, by its oid.
        read: reads images.
    """

    store: Store
    parts: Callable[[Event], Parts]
    read: _Read

    def amended(
        self, events: Sequence[Event], cursors: Sequence[Cursor]
    ) -> tuple[dict[int, Event], Images]:
        """The events whose images are not what the row was, amended, by number.

        Args:
            events: of rows of several tables, each row's in the order in which they are delivered.
            cursors: as they are when the events are dealt with; none if no others are left.

        Returns:
            the amended events, and the images of all events as they were captured.
        """
        images = self.read([m for event in events for m in _members(event)], ("old", "new"))
        rows: dict[_Row, list[Event]] = defaultdict(list)
        for event in events:
            rows[_row(event)].append(event)
        # In this order: a change to the stored row after it was read has left an event by the
        # time at which events are looked for.
        stored = self._stored([listed[-1] for listed in rows.values()], images)
        rest = self._rest([listed[-1] for listed in rows.values()], cursors)
        found: dict[int, dict[str, list[tuple[_Part, _State]]]] = {}
        for row, listed in rows.items():
            parts = self.parts(listed[-1])
            after = _after(parts, *rest.get(row, ([], {})), stored.get(listed[-1].seq, {}))
            found |= _differences(parts, listed, images, after)
        return self._with_texts([event for event in events if event.seq in found], found), images

    def _stored(self, events: Sequence[Event], images: Images) -> dict[int, _States]:
        by_source: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            if event.operation != DELETED and isinstance(images["new"].get(event.seq), Image):
                by_source[event.source].append(event)
        return {
            seq: states
            for group in by_source.values()
            for seq, states in self.parts(group[0]).stored(group).items()
        }

    def _rest(
        self, events: Sequence[Event], cursors: Sequence[Cursor]
    ) -> dict[_Row, tuple[list[Event], Images]]:
        rest = self.store.fetch_rest(cursors, events) if cursors else []
        images = self.read(rest, ("old", "new"))
        found: dict[_Row, tuple[list[Event], Images]] = {}
        for event in rest:
            found.setdefault(_row(event), ([], images))[0].append(event)
        return found

    def _with_texts(
        self,
        events: Sequence[Event],
        found: Mapping[int, Mapping[str, Sequence[tuple[_Part, _State]]]],
    ) -> dict[int, Event]:
        wanted: dict[_Part, dict[tuple[int, str], Event]] = defaultdict(dict)
        for sides in found.values():
            for part, state in (pair for listed in sides.values() for pair in listed):
                if state.event is not None:
                    wanted[part][state.event.seq, state.side] = state.event
        texts = {part: self._texts(part, images) for part, images in wanted.items()}

        def text(part: _Part, state: _State) -> str:
            if state.event is None:
                return state.text
            return texts[part][state.event.seq, state.side]

        return {
            event.seq: replace(
                event,
                amended={
                    side: _joined(text(part, state) for part, state in listed)
                    for side, listed in found[event.seq].items()
                },
            )
            for event in events
        }

    def _texts(
        self, part: _Part, images: Mapping[tuple[int, str], Event]
    ) -> dict[tuple[int, str], str]:
        """The part of some images as JSON, by number and side."""
        rows = self.store.rows(
            "parts_of_images",
            {
                "columns": [one.column for one in part._meta.local_concrete_fields],
                "slots": [event.slot for event in images.values()],
                "buckets": [event.bucket for event in images.values()],
                "seqs": [event.seq for event in images.values()],
                "sides": [side for _, side in images],
            },
        )
        return {(seq, side): text for seq, side, text in rows}


def _joined(texts: Iterable[str]) -> str:
    """One JSON object from several that have no key in common."""
    return f"{{{', '.join(text.strip()[1:-1] for text in texts)}}}"


def _row(event: Event) -> _Row:
    return event.source, event.key, event.is_handed_over


def _members(event: Event) -> Sequence[Event]:
    return event.members or (event,)


def _after(
    parts: Parts, rest: Sequence[Event], images: Images | dict[str, Any], stored: _States
) -> _States:
    """The parts of a row after the last event that is dealt with, as far as they are known.

    Args:
        rest: the first events of each part and operation that are left, by number.
        stored: the row that is stored; empty if there is none.
    """
    if not rest:
        return stored
    own = parts.table.model
    first: dict[tuple[_Part, str], Event] = {}
    for part in parts.places:
        for operation in (INSERTED, UPDATED, DELETED):
            members = [e for e in rest if e.operation == operation and parts.of(e) is part]
            if members:
                first[part, operation] = _first_of(parts, part, members, images)
    inserted, deleted = first.get((own, INSERTED)), first.get((own, DELETED))
    # With an insertion another row begins.
    found = {key: e for key, e in first.items() if inserted is None or e.seq < inserted.seq}
    known: _States = {} if inserted is not None or deleted is not None else dict(stored)
    for part in parts.places:
        event = found.get((part, UPDATED)) or found.get((own, DELETED))
        if part is own and deleted is not None and event is not None and deleted.seq < event.seq:
            event = deleted
        state = event and parts.state(part, event, "old", images)
        if state:
            known[part] = state
        elif event:
            known.pop(part, None)
    return known


def _first_of(
    parts: Parts, part: _Part, members: list[Event], images: Images | dict[str, Any]
) -> Event:
    """The first event of a part, among those of one transaction by number."""
    if all(event.depth == 1 for event in members):
        return members[0]
    sides = {
        side: {event.seq: parts.state(part, event, side, images) for event in members}
        for side in ("old", "new")
    }
    old, new = (
        {seq: state and state.values for seq, state in sides[side].items()}
        for side in ("old", "new")
    )
    return chained(members, old, new)[0]


def _differences(
    parts: Parts, events: Sequence[Event], images: Images, after: _States
) -> dict[int, dict[str, list[tuple[_Part, _State]]]]:
    """What is wrong in the images of one row's events, by number and side: the right parts.

    Goes back from the last event: ``after`` is the row after it.
    """
    found: dict[int, dict[str, list[tuple[_Part, _State]]]] = {}
    for number, event in reversed(list(enumerate(events))):
        certain = _certain(parts, event)
        if certain is None:
            # A table that the model has no more: there is nothing to compare with.
            after = {}
            continue
        if event.operation == DELETED:
            after = _before_deletion(parts, events[: number + 1], images) | after
        before: _States = {}
        wrong: dict[str, list[tuple[_Part, _State]]] = defaultdict(list)
        for part in parts.places:
            for side, base in (("old", event.before), ("new", event)):
                imaged = parts.state(part, base, side, images)
                if part in certain:
                    member = certain[part][0 if side == "old" else -1]
                    right = parts.state(part, member, side, images)
                else:
                    right = after.get(part, imaged)
                if imaged is None or right is None:
                    continue
                if _differ(imaged.values, right.values):
                    wrong[side].append((part, right))
                if side == "old":
                    before[part] = right
        if wrong:
            found[event.seq] = dict(wrong)
        after = before
    return found


def _certain(parts: Parts, event: Event) -> dict[_Part, list[Event]] | None:
    """The parts that an event is certain of, each with the events that say so."""
    found: dict[_Part, list[Event]] = defaultdict(list)
    for member in _members(event):
        part = parts.of(member)
        if part is None:
            return None
        found[part].append(member)
    return found


def _before_deletion(parts: Parts, events: Sequence[Event], images: Images) -> _States:
    """The parts of a row that its deletion, the last of the events, shows as they were before.

    Its parents may be gone, or live on without the row, so that the stored rows say nothing. But
    its image may show a part from which one of the events before has led on.
    """
    found: _States = {}
    for part in parts.places:
        imaged = parts.state(part, events[-1], "old", images)
        changes = [
            member
            for event in events[:-1]
            for member in _members(event)
            if member.operation == UPDATED and parts.of(member) is part
        ]
        if imaged is None or not changes:
            continue
        befores = [parts.state(part, change, "old", images) for change in changes]
        last = parts.state(part, changes[-1], "new", images)
        if last and any(one and not _differ(one.values, imaged.values) for one in befores):
            found[part] = last
    return found


def _differ(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two states differ: a NaN, wherever it lies, is a NaN."""
    return one != other and repr(one) != repr(other)
