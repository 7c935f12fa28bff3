"""From critical receivers to capture triggers: one for each operation of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulksafe import compiler, conf
from bulksafe.caching import per_model
from bulksafe.declarations import Capture, receivers
from bulksafe.declarations.capture import streams
from bulksafe.declarations.lineage import lineage
from bulksafe.declarations.options import AFTER_COMMIT, REFUSE
from bulksafe.declarations.receiver import Receiver
from bulksafe.declarations.signals import DELETE, INSERT, UPDATE
from bulksafe.declarations.through import links
from bulksafe.planning import fields
from bulksafe.planning.expressions import NEW, OLD, compile_expression
from bulksafe.planning.plan import Subject, triggers
from bulksafe.planning.settings import settings_for
from bulksafe.rendering import names, quoting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db import models

    Model = type[models.Model]

OPERATIONS = (INSERT, UPDATE, DELETE)

#: The rows that an operation does not have.
MISSING = {INSERT: OLD, DELETE: NEW}

#: Types with a cast to JSON of their own, which does not lead back.
_KEPT_AS_TEXT = frozenset({"hstore", "geometry", "geography", "raster"})


@triggers.register(Capture)
def _capture(capture: Capture, subject: Subject) -> compiler.Trigger:
    kept = _kept(subject.model)
    refuses = DELETE in kept and conf.get().TRUNCATE == "refuse"
    sources = [source for source, _ in streams(subject.model)]
    return subject.compiled(
        compiler.CaptureTrigger,
        operations=kept,
        settings=settings_for(part for source in sources for part in lineage(source)),
        truncate=subject.message if refuses else "",
    )


@per_model(receivers.changes)
def _kept(model: Model) -> dict[str, list[dict[str, Any]]]:
    """Which rows the capture on a table keeps, by operation.

    ``makemigrations`` asks for it in the system checks and again for the migration.
    """
    found = streams(model)
    wanting = {source: receivers.of_model(source) for source, _ in found}
    kept = {
        operation: [
            stream
            for source, kept in found
            if operation in kept
            for stream in _streams(model, source, wanting[source], operation)
        ]
        for operation in OPERATIONS
    }
    return {operation: listed for operation, listed in kept.items() if listed}


def _streams(
    table: Model, source: Model, among: Sequence[Receiver], operation: str
) -> Iterator[dict[str, Any]]:
    """Which rows of ``source`` the capture on ``table`` keeps at an operation.

    Args:
        among: the receivers of ``source``.
    """
    wanting = [receiver for receiver in among if operation in receiver.operations]
    if later := [receiver for receiver in wanting if receiver.run == AFTER_COMMIT]:
        yield _stream(table, source, operation, later)
    if inline := [receiver for receiver in wanting if receiver.is_inline]:
        yield _buffered(table, source, operation, inline)


def condition_of(receiver: Receiver, model: Model, operation: str) -> str | None:
    """SQL over the rows of a change that says whether ``receiver`` is called for it.

    None if it is called for every change.

    Raises:
        Refused: the condition cannot be compiled.
    """
    if receiver.when is None:
        return None
    return compile_expression(
        model,
        receiver.when,
        row=OLD if operation == DELETE else NEW,
        missing=MISSING.get(operation),
    ).sql


def condition_id(condition: str) -> str:
    """How an event notes that the condition was met."""
    return names.digest(condition, 10)


def _conditions(model: Model, operation: str, wanting: Sequence[Receiver]) -> dict[str, Any]:
    """What the receivers of one operation on one model want of a row."""
    wanted = [condition_of(receiver, model, operation) for receiver in wanting]
    conditions = {condition_id(condition): condition for condition in wanted if condition}
    return {
        # In the order in which a migration file has the keys.
        "conditions": dict(sorted(conditions.items())),
        "all_rows": None in wanted,
    }


def _stream(
    table: Model, source: Model, operation: str, wanting: Sequence[Receiver]
) -> dict[str, Any]:
    """The rows of ``source`` that a change of the table of ``table`` makes events of.

    From the statement's transition tables, or row by row for partitioned tables.
    """
    if _is_part(table, source):
        # Conditions are over the child's own table, which may be made later than this one: they are
        # asked when the event is delivered.
        return {
            "operation": operation[0],
            "conditions": {},
            "all_rows": True,
            **_part(table, source, operation),
        }
    return {
        "operation": operation[0],
        **_conditions(source, operation, wanting),
        **_own(source, operation),
    }


def _buffered(
    table: Model, source: Model, operation: str, wanting: Sequence[Receiver]
) -> dict[str, Any]:
    """The same for receivers in the writer's transaction.

    ``refusing`` are the conditions under which the commit of another writer is refused, or a
    truth value.
    """
    refusing = [receiver for receiver in wanting if receiver.otherwise == REFUSE]
    if _is_part(table, source):
        return {
            "operation": operation[0],
            "conditions": {},
            "all_rows": True,
            "refusing": bool(refusing),
            **_part(table, source, operation),
            "template": "buffer_part",
        }
    among = [condition_of(receiver, source, operation) for receiver in refusing]
    always = None in among or not among
    return {
        "operation": operation[0],
        **_conditions(source, operation, wanting),
        "refusing": bool(among) if always else sorted({condition_id(c) for c in among if c}),
        **_own(source, operation),
        "template": "buffer_rows",
    }


def _is_part(table: Model, source: Model) -> bool:
    return source._meta.concrete_model is not table._meta.concrete_model


def _own(source: Model, operation: str) -> dict[str, Any]:
    """A change of the row's own table."""
    row = OLD if operation == DELETE else NEW
    lineage = Lineage(source, {source: row}, "LEFT JOIN")
    # Which partition a row lies in, or which part of it this is, is worth a note.
    part = "bulksafe.part" if lineage.joins else "NULLIF(bulksafe.part, bulksafe.source)"
    return {
        "template": "capture_rows",
        "part": part,
        "key": key_of(source, NEW if operation == INSERT else OLD),
        "old": _NO_IMAGE if operation == INSERT else lineage.image({source: OLD}),
        "new": _NO_IMAGE if operation == DELETE else lineage.image({source: NEW}),
        "by_row": "(VALUES (0)) AS v",
        "by_statement": _transition(source, operation, OLD, NEW),
        "joins": lineage.joins,
    }


def _part(table: Model, source: Model, operation: str) -> dict[str, Any]:
    """An UPDATE of a parent's table, for the child whose row it is a part of."""
    old, new = "old part", "new part"
    lineage = Lineage(source, {table: new}, "LEFT JOIN")
    by_row = f'(SELECT "old".*) AS "{old}" CROSS JOIN (SELECT "new".*) AS "{new}"'
    return {
        "template": "capture_part",
        "source": quoting.relation(source._meta.db_table),
        "part": "bulksafe.part",
        "key": key_of(source, NEW),
        "old": lineage.image({table: old}),
        "new": lineage.image({table: new}),
        "by_row": by_row,
        "by_statement": _transition(table, operation, old, new),
        "joins": lineage.joins,
    }


@dataclass(frozen=True)
class StoredRow:
    """SQL that reads a stored row of a model as a capture writes it; its own table is ``"new"``.

    Attributes:
        key: what tells rows apart.
        image: the row as JSON.
        source: the tables that it lies in, joined.
        aliases: their quoted names, the eldest parent first: in the order of Django's writes.
    """

    key: str
    image: str
    source: str
    aliases: Sequence[str]


def stored_row(model: Model) -> StoredRow:
    lineage = Lineage(model, {model: NEW}, "JOIN")
    tables = [f"{quoting.relation(model._meta.db_table)} AS {quoting.identifier(NEW)}"]
    for join in lineage.joins:
        alias = quoting.identifier(join["alias"])
        tables.append(f"{join['kind']} {join['table']} AS {alias} ON {join['on']}")
    return StoredRow(
        key_of(model, NEW),
        lineage.image({}),
        "\n".join(tables),
        [quoting.identifier(lineage.aliases[part]) for part in lineage.models],
    )


_NO_IMAGE = "NULL::jsonb"


class Lineage:
    """The tables that a row of a model lies in, joined to the one whose rows are at hand.

    Args:
        source: the model.
        known: the table at hand and its alias.
        kind: ``LEFT JOIN``: the other parts may be gone already.
    """

    def __init__(self, source: Model, known: Mapping[Model, str], kind: str) -> None:
        # The eldest first: its columns come first in the image.
        self.models = sorted(lineage(source), key=lambda model: len(model._meta.all_parents))
        self.aliases = dict(known)
        self.joins: list[dict[str, str]] = []
        known_links = [link for model in self.models for link in _links(model)]
        while missing := [link for link in known_links if self._leads_on(link)]:
            self._join(missing[0], NEW if source not in self.aliases else None, kind)

    def _leads_on(self, link: _Link) -> bool:
        return (link.child in self.aliases) != (link.parent in self.aliases)

    def _join(self, link: _Link, source_alias: str | None, kind: str) -> None:
        added = link.parent if link.child in self.aliases else link.child
        is_source = added is self.models[-1]
        alias = (is_source and source_alias) or f"part {len(self.joins) + 1}"
        self.aliases[added] = alias
        child, parent = self.aliases[link.child], self.aliases[link.parent]
        child_column, parent_column = map(quoting.identifier, (link.column, link.target))
        self.joins.append(
            {
                "kind": kind,
                "table": quoting.relation(added._meta.db_table),
                "alias": alias,
                "on": f"{quoting.identifier(child)}.{child_column} = "
                f"{quoting.identifier(parent)}.{parent_column}",
            }
        )

    def image(self, aliases: Mapping[Model, str]) -> str:
        """SQL for the row as JSON; ``aliases`` name the old or the new state of a part."""
        named = self.aliases | dict(aliases)
        return " || ".join(
            row_as_json(model, named[model]) for model in self.models if model in named
        )


@dataclass(frozen=True)
class _Link:
    """How the row of a child finds that of its parent."""

    child: Model
    parent: Model
    column: str
    target: str


def _links(model: Model) -> Iterator[_Link]:
    for parent, link in model._meta.parents.items():
        if link is not None and not parent._meta.proxy:
            target: Any = link.target_field  # type: ignore[attr-defined]
            yield _Link(model, parent, str(link.column), str(target.column))


def row_as_json(model: Model, alias: str) -> str:
    """SQL for a row of a table as its image in JSON."""
    row = quoting.identifier(alias)
    texts = [
        f"{quoting.literal(field.column)}, {row}.{quoting.identifier(str(field.column))}::text"
        for field in model._meta.local_concrete_fields
        if fields.type_of(field).partition("(")[0].rstrip("[]") in _KEPT_AS_TEXT
    ]
    extra = f" || jsonb_build_object({', '.join(texts)})" if texts else ""
    return f"to_jsonb({row}.*){extra}"


def _transition(table: Model, operation: str, old: str, new: str) -> str:
    """The changed rows of a statement, under the names ``old`` and ``new``."""
    aliases = {OLD: quoting.identifier(old), NEW: quoting.identifier(new)}
    if operation == UPDATE:
        row = quoting.identifier(_free_name(table))
        return compiler.updated_rows(row, aliases[OLD], aliases[NEW])
    return compiler.changed_rows(operation, aliases[NEW if operation == INSERT else OLD])


def _free_name(table: Model) -> str:
    """A name for a row that no column has."""
    name = compiler.ROW
    while any(field.column == name for field in table._meta.local_fields):
        name += "#"
    return name


def key_of(model: Model, row: str) -> str:
    """SQL for the text that tells the rows of a model apart.

    The rows of a many-to-many table go by the instance that they belong to: what is taken away and
    added again is another row, and comes in order all the same.
    """
    columns = [f"{quoting.identifier(row)}.{quoting.identifier(key)}" for key in _keys_of(model)]
    if len(columns) == 1:
        return f"{columns[0]}::text"
    return f"jsonb_build_array({', '.join(columns)})::text"


def _keys_of(model: Model) -> list[str]:
    """The columns that a row goes by."""
    linked = links(model)
    link = linked[0] if linked else None
    # It may have no column of its own, or lie in a parent's table.
    if link is None or not link.column or link.model is not model._meta.concrete_model:
        return fields.primary_key_columns(model)
    return [str(link.column)]
