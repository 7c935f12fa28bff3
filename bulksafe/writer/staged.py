"""A collected write: its rows are known before they are written.

Django's own statement is executed once, while a trigger keeps its rows and nothing is written; the
rows stay locked. Receivers run beside the old database. Then one statement writes the rows from
what was kept, with what receivers have assigned: each row has one event, and each of its triggers
and rules sees the final values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from bulksafe.dispatch.ordering import calls
from bulksafe.object_state import set_rowcount
from bulksafe.rendering import quoting
from bulksafe.writer import parents, telling
from bulksafe.writer.applying import Applying, Assigned
from bulksafe.writer.changes import InlineChange
from bulksafe.writer.collected import Collection
from bulksafe.writer.collecting import Uncollectable, live
from bulksafe.writer.conflicts import Conflicts, is_asked_for
from bulksafe.writer.observing import Observer
from bulksafe.writer.row_queue import RowQueue
from bulksafe.writer.scopes import is_one_write
from bulksafe.writer.staged_rows import Row
from bulksafe.writer.storing import batches, store
from bulksafe.writer.taking import sorted_by_key

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.dispatch.calls import Call
    from bulksafe.writer.collecting import Target
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session

#: The SQLSTATE with which the trigger refuses to collect what a function or a trigger writes.
_NESTED = "BS004"


class Staged:
    """One collected write.

    Args:
        watch: the connection's.
        scope: the write.
        target: the statement, and whose rows it writes.
        execute: executes a statement with parameters on the caller's cursor.
        cursor: the driver's cursor behind it.
        is_row_by_row: whether each row is to be written by itself.
    """

    def __init__(
        self,
        watch: Session,
        scope: Scope,
        target: Target,
        execute: Callable[[str, Any], Any],
        cursor: Any,
        *,
        is_row_by_row: bool = False,
    ) -> None:
        self.watch = watch
        self.scope = scope
        self.target = target
        self.rows: list[Row] = []
        self._execute = execute
        self._cursor = cursor
        #: The columns that the statement returns.
        self._description: Sequence[Any] = ()
        self._collection = Collection(watch, scope, target)
        self._calls: dict[int, list[Call]] = {}
        #: Whether rows were written already, so that what is stored may have changed.
        self._is_begun = False
        self._is_live = telling.Live(telling.BEFORE)
        #: Whether one statement has written all of the rows, so that the caller's cursor has it.
        self._is_whole = False
        #: What was written in parts: the number of rows, and what they returned.
        self._count = 0
        self._returned: list[tuple[Any, ...]] = []
        early, late = live(target)
        self._conflicts = Conflicts(
            watch.connection, target.model, target.operation, late, early=early
        )
        self.queue = RowQueue(
            watch,
            scope,
            self,
            self._conflicts,
            is_row_by_row=is_row_by_row or is_asked_for([*early, *late]),
            is_whole=any(receiver.batch for receiver in late),
        )
        self._observer = Observer(self._conflicts, self.queue, watch.connection)

    def run(self, sql: str, params: Any) -> Any:
        """Make the write.

        Raises:
            Uncollectable: a function or a trigger would write.
        """
        self._collection.begin()
        try:
            result = self._execute(sql, params)
        except DatabaseError as error:
            if getattr(error.__cause__, "sqlstate", None) == _NESTED:
                raise Uncollectable from error
            raise
        self._description = self._cursor.description or ()
        self.rows = self._collection.end()
        if not self.rows:
            return result
        self._put_in_order()
        self._plan()
        self.scope.observer = Observer(
            self._conflicts, self.queue, self.watch.connection, is_after=True
        )
        self.queue.run()
        self._collection.discard(row for row in self.rows if row.is_gone)
        self._finish()
        return result

    def _put_in_order(self) -> None:
        """Updated and deleted rows in the order of their keys, as a loop over them has them."""
        if self.target.statement.verb in {"UPDATE", "DELETE"}:
            self.rows = sorted_by_key(self.rows, lambda row: row.change.key(old=True))

    def _plan(self) -> None:
        """Find out who is called for which row."""
        changes = [row.change for row in self.rows]
        due = telling.deliveries(changes, self.watch.listed, telling.BEFORE)
        for call in calls(due):
            self._calls.setdefault(id(call.changes[0]), []).append(call)

    # The rows, for the queue.

    def __len__(self) -> int:
        return len(self.rows)

    def before(self, place: int) -> None:
        row = self.rows[place]
        if self._is_begun and not row.change.created:
            self._collection.refresh(row)
        due = [] if row.is_gone else self._calls.get(id(row.change), [])
        self._is_live.refresh()
        for call in due:
            if self._is_live(call.receiver, row.change.model):
                row.begin(call.receiver)
                self.watch.call(call, None, self._observer)

    def store(self, start: int, end: int) -> None:
        rows = [row for row in self.rows[start:end] if not row.is_gone]
        if end - start > 1:
            parents.forget([row.instance for row in rows if row.instance is not None], {})
        is_all = end - start == len(self.rows) and not self._is_begun
        self._is_begun = True
        parts = list(self._parts(rows))
        for part in parts:
            self._write(part, is_all=is_all and len(parts) == 1)
        self._deliver(rows)

    def mark(self) -> Any:
        return self._count, len(self._returned), {id(row) for row in self.rows if row.is_gone}

    def return_to(self, mark: Any, start: int, end: int) -> None:
        self._count = mark[0]
        del self._returned[mark[1] :]
        for row in self.rows:
            row.is_gone = row.is_gone and id(row) in mark[2]
        for row in self.rows[start:end]:
            row.return_to_before()

    # Writing.

    def _parts(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """The rows by what one statement can write."""
        groups: dict[tuple[Applying, str], list[Row]] = defaultdict(list)
        for row in rows:
            groups[row.applying, row.change.event.operation].append(row)
        options = self.watch.connection.settings_dict.get("OPTIONS", {})
        for group in groups.values():
            if options.get("server_side_binding"):
                # A statement has so many parameters then, and no more.
                yield from batches(group, 3 + len(self.target.model._meta.concrete_fields))
            else:
                yield group

    def _write(self, rows: Sequence[Row], *, is_all: bool) -> None:
        saved = [row for row in rows if row.is_saved]
        rest = [row for row in rows if not row.is_saved]
        if saved:
            # A receiver has called save() on the instance of a new row: this goes on from there.
            self._collection.discard(saved)
            for row in saved:
                row.save(self.watch.alias)
                self._returned += self._collection.returned(row)
            self._count += len(saved)
        if not rest:
            return
        assigned, later = _assigned(rest)
        text, params = self._statement(rest, assigned)
        if is_all and not saved:
            self._is_whole = True
            self._execute(text, params)
        else:
            with self.watch.connection.cursor() as cursor:
                cursor.execute(text, params)
                self._count += cursor.rowcount
                if self.target.statement.returning:
                    self._returned += cursor.fetchall()
        if later:
            store(later, self.watch.alias)

    def _statement(
        self, rows: Sequence[Row], assigned: Sequence[Assigned]
    ) -> tuple[str, list[Any]]:
        applying, numbers = rows[0].applying, [row.number for row in rows]
        match rows[0].change.event.operation:
            case "U":
                return applying.update(numbers, assigned)
            case "D":
                return applying.delete(numbers)
        columns = self._collection.columns(applying.root)
        return applying.insert(numbers, assigned, columns)

    # What was written.

    def _deliver(self, rows: Sequence[Row]) -> None:
        by_key = {row.stored_row: row for row in rows}
        found: list[InlineChange] = []
        last: dict[tuple[str, Any], int] = {}
        for change in self.watch.take():
            self.scope.prepare(change)
            place = last.get(change.row)
            if change.row in by_key and place is not None and is_one_write(found[place], change):
                # A trigger has written to the row again. As in a save(), that is one change.
                change.begin_with(found[place])
                found[place] = change
            else:
                place = len(found)
                found.append(change)
            last[change.new_row] = place
        for change in found:
            row = by_key.get(change.row)
            if row is not None:
                row.carry_to(change)
        self.watch.tell(self.scope.left_over(found), self.scope.observer)

    def _finish(self) -> None:
        """Let the caller's cursor say what the statement would have said."""
        if self._is_whole:
            return
        if self.target.statement.returning:
            self._return_rows()
        else:
            set_rowcount(self._cursor, self._count)

    def _return_rows(self) -> None:
        """Have the caller's cursor return what the parts have returned, in the types of those."""
        oids = [column.type_code for column in self._description]
        types = self._collection.ask(
            "SELECT pg_catalog.format_type(t.oid, NULL) FROM "
            "pg_catalog.unnest(%s::pg_catalog.oid[]) WITH ORDINALITY AS t (oid, n) ORDER BY t.n",
            [oids],
        )
        names = [quoting.identifier(column.name) for column in self._description]
        one = ", ".join(f"%s::{name}" for (name,) in types)
        rows = self._returned or [(None,) * len(names)]
        listed = ", ".join([f"({one})"] * len(rows))
        columns = [f"c{place} AS {name}" for place, name in enumerate(names)]
        aliases = ", ".join(f"c{place}" for place in range(len(names)))
        text = f"SELECT {', '.join(columns)} FROM ".replace("%", "%%")  # noqa: S608
        if not self._returned:
            listed, aliases = f"(SELECT {one} WHERE false)", f"v ({aliases})"
            text = f"{text}{listed} AS {aliases}"
        else:
            text = f"{text}(VALUES {listed}) AS v ({aliases})"
        self._execute(text, [value for row in rows for value in row])


def _assigned(
    rows: Iterable[Row],
) -> tuple[list[Assigned], list[tuple[Model, set[str], Any]]]:
    """What receivers have assigned: values, and expressions, which Django has to compile."""
    values, expressions = [], []
    for row in rows:
        names, instance = row.assigned(), row.instance
        later = {n for n in names if hasattr(getattr(instance, n), "resolve_expression")}
        if names - later or row.taken is not None:
            given = row.change.instance if instance is None else instance
            values.append(Assigned(row.number, given, names - later, row.taken))
        if later and instance is not None:
            expressions.append((instance, later, row.change.key()))
    return values, expressions
