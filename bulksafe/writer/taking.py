"""Taking the changes that the database has buffered, with their images."""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bulksafe.call_stack import running
from bulksafe.contexts import current
from bulksafe.declarations import receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.assigning import keeps_values
from bulksafe.dispatch.images import Image, Table
from bulksafe.dispatch.routes import asked_of, routes_of
from bulksafe.outbox import events as outbox_events
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED, Event
from bulksafe.rendering import quoting
from bulksafe.writer.changes import InlineChange
from bulksafe.writer.django_sql import is_plain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver


class Taken(NamedTuple):
    """One buffered change."""

    event: Event
    model: type[Model]
    old: Image | None
    new: Image | None
    met: frozenset[Receiver]


class Source:
    """A captured table of one database, and the receivers of its rows.

    Args:
        oid: the table's, as its changes name it.
        model: the concrete model.
        using: the database.
    """

    def __init__(self, oid: int, model: type[Model], using: str) -> None:
        self.oid = oid
        self.model = model
        self.using = using
        self.table = Table(model, using)
        self._kinds: dict[str, Kind] = {}

    def take(self, cursor: Any, operation: str, after: int, home: str) -> list[Taken]:
        """The changes of one operation that the transaction has made since number ``after``.

        Args:
            cursor: the driver's.
            home: the schema of the buffer.
        """
        return self.kind(operation).take(cursor, after, home)

    def receivers(self, operation: str) -> list[Receiver]:
        """The receivers of an operation, in their order."""
        return [route.receiver for route in self.kind(operation).routes]

    def kind(self, operation: str) -> Kind:
        """What is known of an operation."""
        if operation not in self._kinds:
            self._kinds[operation] = Kind(self, operation)
        return self._kinds[operation]


class Kind:
    """The changes of one table by one operation."""

    def __init__(self, source: Source, operation: str) -> None:
        self.source = source
        self.operation = operation
        self.routes = routes_of(source.model, operation, receivers.is_inline)
        self.sides = [
            side for side, absent in (("old", INSERTED), ("new", DELETED)) if operation != absent
        ]
        #: Whether rows of this kind may be returned by the statement, and have not been in vain.
        self.may_return = bool(self.routes) and self.is_lean and is_plain_name(source.model)
        self.every = frozenset(route.receiver for route in self.routes)
        self.conditional = [route for route in self.routes if route.condition is not None]

    @cached_property
    def is_lean(self) -> bool:
        """Whether nothing but the row as it is now decides who is called, and with what.

        Then neither the row before is read, nor are objects made of the changes.
        """
        model = self.source.model
        return (
            len(lineage(model)) == 1
            and not keeps_values(model)
            and all(map(_is_lean, (route.receiver for route in self.routes)))
        )

    @cached_property
    def opening(self) -> str:
        """How Django's statement begins that does this to many rows."""
        table = f'"{self.source.model._meta.db_table}"'
        return " ".join(
            ["UPDATE", table, "SET "] if self.operation == UPDATED else ["DELETE FROM", table]
        )

    @cached_property
    def returning(self) -> str:
        """What lets such a statement return the rows, as ``images`` has them."""
        table = quoting.relation(self.source.model._meta.db_table)
        columns = [f"{table}.{quoting.identifier(one.column)}" for one in self.source.table.fields]
        return "RETURNING " + ", ".join(columns).replace("%", "%%")

    @cached_property
    def query(self) -> str:
        """The changes with the rows before and after."""
        return self._query(is_lean=False)

    @cached_property
    def lean_query(self) -> str:
        """The same, without what is of no use where no change belongs to another one."""
        return self._query(is_lean=True)

    def _query(self, *, is_lean: bool) -> str:
        table = self.source.table
        columns, records = list(_LEAN_EVENT if is_lean else _EVENT), []
        asked = asked_of(self.routes)
        for route in self.conditional:
            assert route.condition is not None and route.condition_id is not None  # noqa: S101, PT018
            columns.append(
                f"CASE WHEN {quoting.literal(asked or '')} = ANY (e.matched) "
                f"THEN {quoting.literal(route.condition_id)} = ANY (e.matched) "
                f"ELSE COALESCE(({route.condition}), false) END"
            )
        # Conditions are over rows called old and new, also where only one of them is read.
        needed = ("old", "new") if self.conditional else self.sides
        for side in needed:
            for number, model in enumerate(lineage(self.source.model)):
                alias = f'"{side}"' if number == 0 else f'"{side} {number}"'
                relation = quoting.relation(model._meta.db_table)
                records.append(
                    f"CROSS JOIN LATERAL jsonb_populate_record(NULL::{relation}, e.{side}) "
                    f"AS {alias}"
                )
        images = []
        for side in self.sides:
            tables = lineage(self.source.model)
            aliases = {
                model: f'"{side}"' if number == 0 else f'"{side} {number}"'
                for number, model in enumerate(tables)
            }
            images.append(
                [
                    f"{aliases[one.model._meta.concrete_model]}.{quoting.identifier(one.column)}"
                    for one in table.fields
                ]
            )
        # Names of tables and columns may hold what psycopg takes for a parameter.
        joins = " ".join(records).replace("%", "%%")
        if self.is_wide:
            selects = [[*columns, *side, str(number)] for number, side in enumerate(images)]
            order = f"1, {len(selects[0])}"
        else:
            selects = [[*columns, *chain(*images)]]
            order = "e.seq"
        selected = [", ".join(one).replace("%", "%%") for one in selects]
        if is_lean and self.operation == UPDATED:
            # The rows as they were are needed where they lead from one change to the next.
            joins = joins.replace("e.old)", f"CASE WHEN {_IS_SHARED} THEN e.old END)")
        return (
            f"WITH taken AS MATERIALIZED (SELECT * FROM {_TAKE}), "  # noqa: S608
            f"{_SHARED} "
            + " UNION ALL ".join(f"SELECT {one} FROM taken AS e {joins}" for one in selected)  # noqa: S608
            + f" ORDER BY {order}"
        )

    @property
    def is_wide(self) -> bool:
        """Whether a query cannot return both images in one row: each has a row of its own then."""
        return len(self.sides) * len(self.source.table.fields) > _MOST_COLUMNS

    def take(self, cursor: Any, after: int, home: str) -> list[Taken]:
        cursor.execute(in_schema(home, self.query), [self.source.oid, self.operation, after])
        rows = cursor.fetchall()
        if self.is_wide:
            width = len(self.source.table.fields)
            pairs = zip(rows[::2], rows[1::2], strict=True)
            rows = [(*old[:-1], *new[-width - 1 : -1]) for old, new in pairs]
        return [self.taken(row) for row in rows]

    def lean_rows(self, cursor: Any, after: int, home: str) -> list[tuple[Any, ...]]:
        """The changes as the query has them."""
        cursor.execute(in_schema(home, self.lean_query), [self.source.oid, self.operation, after])
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def images(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """What is in each row of the image that an instance is made of."""
        is_update = self.operation == UPDATED
        start = len(_EVENT) + (len(self.source.table.fields) if is_update else 0)
        return (row[start:] for row in rows)

    def taken(self, row: tuple[Any, ...]) -> Taken:
        seq, at, part, depth, key = row[: len(_EVENT)]
        # The columns of a parent's stream are all there is: every row of one source is numbered by
        # the same transaction, so that its xid and bucket say nothing.
        event = Event(
            0, seq, 0, 0, at, self.source.oid, part, self.operation, depth, key, context=current()
        )
        start = len(_EVENT)
        met = self.every
        if self.conditional:
            end = start + len(self.conditional)
            answers = zip(self.conditional, row[start:end], strict=True)
            met -= {route.receiver for route, is_met in answers if not is_met}
            start = end
        table = self.source.table
        images: dict[str, Image | None] = {"old": None, "new": None}
        width = len(table.fields)
        for side in self.sides:
            images[side] = Image(row[start : start + width], table)
            start += width
        return Taken(event, self.source.model, images["old"], images["new"], met)


#: The function that takes changes, with the very types: one of that name which takes others would
#: fit bare numbers better.
_TAKE = '{home}.bulksafe_take(%s::pg_catalog.oid, %s::pg_catalog."char", %s::pg_catalog.int8)'


def in_schema(home: str, text: str) -> str:
    """A query with the function of ours that it calls in the schema where the database has it.

    Without it, a function of that name in a schema in front on the search_path would be called.

    Args:
        text: with ``{home}`` before the function, and nowhere before that.
    """
    return text.replace("{home}", quoting.identifier(home).replace("%", "%%"), 1)


def _is_lean(receiver: Receiver) -> bool:
    return (
        receiver.signal_name in {"post_save", "post_delete"}
        and receiver.when is None
        and not receiver.batch
        and not receiver.extras
    )


def is_any_shared(rows: Sequence[tuple[Any, ...]]) -> bool:
    """Whether any of the changes may belong to the one before it, as ``events.is_shared``."""
    _, at, *_ = rows[0]
    return at is not None


#: Of the images in one row of a result, which may have 1,664 columns with those of the event and
#: the conditions.
_MOST_COLUMNS = 1500

#: The same for the database.
_SHARED = (
    "shared AS MATERIALIZED "
    "(SELECT bool_or(b.depth > 1 OR b.part IS NOT NULL) AS is_any FROM taken AS b)"
)
_IS_SHARED = "(SELECT is_any FROM shared)"

_EVENT = (
    "e.seq",
    "date_part('epoch', e.at)",
    "e.part::oid::bigint",
    "e.depth",
    "e.key",
)
#: The number comes first, and all else is NULL where no change belongs to another one.
_LEAN_EVENT = (
    _EVENT[0],
    *(f"CASE WHEN {_IS_SHARED} THEN {column} END" for column in _EVENT[1:]),
)


def combined(taken: Sequence[Taken], using: str, prefix: str) -> list[InlineChange]:
    """The changes in the order in which each row was changed, those that are one made into one.

    Args:
        prefix: what the ids of events begin with in this database.
    """
    by_seq = {one.event.seq: one for one in taken}
    events = [one.event for one in taken]
    if any(map(outbox_events.is_shared, events)):
        events = outbox_events.in_order(events, lambda members: _chained(members, by_seq))
    names = running()
    return [_change(event, by_seq, using, prefix, names) for event in events]


def in_key_order(changes: list[InlineChange]) -> list[InlineChange]:
    """The updated or deleted rows of one statement in the order of their keys.

    PostgreSQL goes through a table in any order, and a loop over the queryset in that of the keys.
    Changes stay as they came where rows of several tables, or one row several times, are changed.
    """
    kinds = {(change.event.source, change.event.operation) for change in changes}
    if len(kinds) != 1 or changes[0].created or not _are_of_different_rows(changes):
        return changes
    return sorted_by_key(changes, lambda change: change.key(old=True))


def in_order_of_locks(changes: Sequence[InlineChange]) -> Sequence[InlineChange]:
    """The changes as they came, which is how every UPDATE of these rows locks them."""
    if not _are_of_different_rows(changes):
        return changes
    return sorted(changes, key=lambda change: change.event.seq)


def _are_of_different_rows(changes: Sequence[InlineChange]) -> bool:
    return len({change.row for change in changes}) == len(changes)


_Row = TypeVar("_Row")


def sorted_by_key(rows: Iterable[_Row], key: Callable[[_Row], Any]) -> list[_Row]:
    """Sort by keys, unless they have no order in Python."""
    listed = list(rows)
    try:
        return sorted(listed, key=key)
    except TypeError:
        return listed


def _chained(members: list[Event], by_seq: Mapping[int, Taken]) -> list[Event]:
    def values(event: Event, side: str) -> object:
        image = getattr(by_seq[event.seq], side)
        return None if image is None else image.values

    return outbox_events.chained(
        members,
        {event.seq: values(event, "old") for event in members},
        {event.seq: values(event, "new") for event in members},
    )


def _change(
    event: Event,
    by_seq: Mapping[int, Taken],
    using: str,
    prefix: str,
    names: tuple[str, ...],
) -> InlineChange:
    last, first = by_seq[event.seq], by_seq[event.before.seq]
    return InlineChange(
        event,
        last.model,
        None if event.operation == INSERTED else first.old,
        None if event.operation == DELETED else last.new,
        using=using,
        event_id=f"{prefix}-{event.seq}",
        met=last.met | first.met,
        written_in=names,
    )
