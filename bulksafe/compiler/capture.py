"""The capture of a table, stored in a migration without the values that most tables share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.compiler.trigger import Trigger, do_block
from bulksafe.rendering import quoting, templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: For each operation: the transition tables, and the image that its rows lack.
_TRANSITIONS = {
    "INSERT": "NEW TABLE AS bulksafe_new",
    "UPDATE": "OLD TABLE AS bulksafe_old NEW TABLE AS bulksafe_new",
    "DELETE": "OLD TABLE AS bulksafe_old",
}
_MISSING = {"INSERT": "old", "DELETE": "new"}

#: The value of a setting of the first function of a capture that is switched off: see
#: ``mark_switch.sql``.
SWITCHED_OFF = "bulksafe: switched off"

#: The name of a whole row, unless a column has the same name.
ROW = "bulksafe#"

#: Both transition tables of an UPDATE hold the rows in one order, so their numbers belong together,
#: whatever the UPDATE did to the primary key. They are equally many; the join is a FULL one because
#: that is never planned as nested loops. A session keeps the plan that it has made for the first
#: update, which may have been of a single row. A strict condition would let the planner turn it
#: into an inner join, so conditions are inside a CASE in the templates. The rows are joined whole:
#: a query has at most 1,664 columns, and two rows may have more. They are taken from a subquery:
#: PostgreSQL counts the columns of a transition table's whole row wrong if the table has dropped
#: columns.
_NUMBERED = (
    "(SELECT row_number() OVER () AS n, {row} AS r FROM (SELECT * FROM {table}) AS {row}) "
    "AS {alias}"
)


def updated_rows(row: str, old: str, new: str) -> str:
    """The rows of an UPDATE before and after it, in pairs.

    Args:
        row: quoted, a name that no column of the table has.
        old, new: the quoted names of the rows.
    """
    before = _NUMBERED.format(row=row, table="bulksafe_old", alias="a")
    after = _NUMBERED.format(row=row, table="bulksafe_new", alias="b")
    return (
        f"{before} FULL JOIN {after} USING (n) "
        f"CROSS JOIN LATERAL (SELECT (a.r).*) AS {old} "
        f"CROSS JOIN LATERAL (SELECT (b.r).*) AS {new}"
    )


def changed_rows(operation: str, alias: str) -> str:
    """The rows of an INSERT or a DELETE."""
    return f"bulksafe_{'new' if operation == 'INSERT' else 'old'} AS {alias}"


class CaptureTrigger(Trigger):
    """The compiled form of a capture.

    Args:
        invariant, pgid, version, search_path, name: as for ``Trigger``.
        operations: by ``"INSERT"``, ``"UPDATE"`` and ``"DELETE"``, which rows are kept, as
            variables of the streams' templates. Omitted variables have the values of
            ``usual_stream``.
        settings: of the functions, for types whose text depends on settings.
        truncate: the error message of a refused TRUNCATE; empty if TRUNCATE is allowed.
    """

    def __init__(
        self,
        *,
        invariant: str,
        pgid: str,
        version: str,
        operations: Mapping[str, Sequence[Mapping[str, Any]]],
        settings: str = "",
        truncate: str = "",
        search_path: Iterable[str] = (),
        name: str = "bulksafe_capture",
    ) -> None:
        self.operations = {
            operation: [_expanded(stream, operation) for stream in operations[operation]]
            # Migration files list them alphabetically.
            for operation in _TRANSITIONS
            if operation in operations
        }
        self.settings = settings
        self.truncate = truncate
        names = dict(zip(self.operations, _names(pgid, self.operations), strict=True))
        functions = [
            _function(names[operation], streams, settings)
            for operation, streams in self.operations.items()
        ]
        triggers = [_trigger(names[operation], operation) for operation in self.operations]
        if staged := [o for o, streams in self.operations.items() if any(map(_is_staged, streams))]:
            owned = _owned(pgid, "stage")
            functions.append(_stage_function(owned, settings))
            triggers.append(_stage_trigger(owned, staged))
        if truncate:
            owned = _owned(pgid, "truncate")
            functions.append(_truncate_function(owned, truncate))
            triggers.append({"trigger": owned, "template": "truncate_trigger", "function": owned})
        super().__init__(
            name=name,
            invariant=invariant,
            pgid=pgid,
            version=version,
            functions=functions,
            triggers=triggers,
            search_path=search_path,
        )

    @property
    def captures(self) -> bool:
        return True

    @property
    def enable_sql(self) -> str:
        # Also without the command: a capture that fires and is marked as off would call twice.
        return f"{super().enable_sql}\n{self._marking('RESET application_name')}"

    @property
    def switch_off_sql(self) -> str:
        mark = quoting.literal(SWITCHED_OFF)
        return f"{self.disable_sql}\n{self._marking(f'SET application_name = {mark}')}"

    def _marking(self, change: str) -> str:
        values = {"table": quoting.relation(self.table), "trigger": self.pgid, "change": change}
        return do_block(templates.fill(self.version, "mark_switch", values))

    def arguments(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = {
            "invariant": self.invariant,
            "pgid": self.pgid,
            "version": self.version,
            "operations": {
                operation: [_shortened(stream, operation) for stream in streams]
                for operation, streams in self.operations.items()
            },
        }
        optional: dict[str, Any] = {
            "settings": self.settings,
            "truncate": self.truncate,
            "search_path": self.search_path,
        }
        if self.name != "bulksafe_capture":
            optional["name"] = self.name
        return kwargs | {key: value for key, value in optional.items() if value}


def usual_stream(operation: str, template: str) -> dict[str, Any]:
    """The variables of a stream's template: all rows of a table with the primary key ``id``."""
    row = "new" if operation == "INSERT" else "old"
    rows = changed_rows(operation, f'"{row}"')
    if operation == "UPDATE":
        rows = updated_rows(f'"{ROW}"', '"old"', '"new"')
    images = {side: f'to_jsonb("{side}".*)' for side in ("old", "new")}
    if operation in _MISSING:
        images[_MISSING[operation]] = "NULL::jsonb"
    return {
        "template": template,
        "operation": operation[0],
        "conditions": {},
        "all_rows": True,
        "part": "NULLIF(bulksafe.part, bulksafe.source)",
        "key": f'"{row}"."id"::text',
        **images,
        "by_row": "(VALUES (0)) AS v",
        "by_statement": rows,
        "joins": [],
    }


def _usual_template(stream: Mapping[str, Any]) -> str:
    table = "buffer" if "refusing" in stream else "capture"
    return f"{table}_part" if "source" in stream else f"{table}_rows"


def _expanded(stream: Mapping[str, Any], operation: str) -> dict[str, Any]:
    return {**usual_stream(operation, _usual_template(stream)), **stream}


def _shortened(stream: Mapping[str, Any], operation: str) -> dict[str, Any]:
    usual = usual_stream(operation, _usual_template(stream))
    return {k: value for k, value in stream.items() if k not in usual or usual[k] != value}


def _names(pgid: str, operations: Iterable[str]) -> list[str]:
    """The name of the function and trigger of each operation; pgtrigger has the first one."""
    return [
        _owned(pgid, operation.lower()) if number else pgid
        for number, operation in enumerate(operations)
    ]


def _owned(pgid: str, kind: str) -> str:
    """The name of an object other than the first trigger, which pgtrigger's prune leaves alone."""
    return f"bulksafe_{pgid.removeprefix('pgtrigger_')}_{kind}"


def _function(name: str, streams: Sequence[Mapping[str, Any]], settings: str) -> dict[str, Any]:
    is_buffered = any("refusing" in stream for stream in streams)
    return {
        "function": name,
        "template": "capture_function",
        "body": "capture_with_buffer" if is_buffered else "capture",
        "settings": settings,
        "streams": list(streams),
    }


def _trigger(name: str, operation: str) -> dict[str, str]:
    return {
        "trigger": name,
        "template": "capture_trigger",
        "partitioned_template": "capture_trigger_partitioned",
        "events": operation,
        "transition": _TRANSITIONS[operation],
        "function": name,
    }


def _is_staged(stream: Mapping[str, Any]) -> bool:
    """Whether in-transaction receivers run for the table's own rows."""
    return "refusing" in stream and "source" not in stream


def _stage_function(name: str, settings: str) -> dict[str, Any]:
    return {
        "function": name,
        "template": "capture_function",
        "body": "stage",
        # The plan is cached, and planned while the ticket table is empty.
        "settings": "\n".join(filter(None, [settings, "SET enable_seqscan = off"])),
    }


def _stage_trigger(function: str, operations: Iterable[str]) -> dict[str, str]:
    # PostgreSQL fires triggers by their names: this one before all others.
    return {
        "trigger": f"!{function}",
        "template": "stage_trigger",
        "events": " OR ".join(operations),
        "function": function,
    }


def _truncate_function(name: str, message: str) -> dict[str, Any]:
    return {
        "function": name,
        "template": "function",
        "body": "capture_truncate",
        "security": "",
        "message": message,
    }
