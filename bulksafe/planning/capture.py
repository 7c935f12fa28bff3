"""Plans capture triggers for critical receivers, one for each operation of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe import compiler, conf
from bulksafe.caching import per_model
from bulksafe.declarations import Capture, receivers
from bulksafe.declarations.capture import streams
from bulksafe.declarations.lineage import lineage
from bulksafe.declarations.modes import OBSERVE
from bulksafe.declarations.options import AFTER_COMMIT, REFUSE
from bulksafe.declarations.receiver import Receiver
from bulksafe.declarations.signals import DELETE, INSERT, UPDATE
from bulksafe.planning.expressions import NEW, OLD, compile_expression
from bulksafe.planning.images import Lineage, key_of
from bulksafe.planning.plan import triggers
from bulksafe.planning.settings import settings_for
from bulksafe.rendering import names, quoting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db import models

    from bulksafe.planning.subject import Subject

    Model = type[models.Model]

OPERATIONS = (INSERT, UPDATE, DELETE)

#: The row that an operation lacks.
MISSING = {INSERT: OLD, DELETE: NEW}


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
    """The streams of the capture on a table, by operation.

    Cached: ``makemigrations`` needs it for the system checks and for the migration.
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
    """The streams of ``source`` for an operation on ``table``.

    Args:
        among: the receivers of ``source``.
    """
    wanting = [receiver for receiver in among if operation in receiver.operations]
    if later := [receiver for receiver in wanting if receiver.run == AFTER_COMMIT]:
        yield _stream(table, source, operation, later)
    if inline := [receiver for receiver in wanting if receiver.is_inline]:
        yield _buffered(table, source, operation, inline)


def condition_of(receiver: Receiver, model: Model, operation: str) -> str | None:
    """The SQL condition for calls of ``receiver``, over the rows of a change.

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
    """The id that an event stores if it met the condition."""
    return names.digest(condition, 10)


def _conditions(model: Model, operation: str, wanting: Sequence[Receiver]) -> dict[str, Any]:
    """The conditions of the receivers of one operation on one model."""
    wanted = [condition_of(receiver, model, operation) for receiver in wanting]
    conditions = {condition_id(condition): condition for condition in wanted if condition}
    return {
        # In the key order of a migration file.
        "conditions": dict(sorted(conditions.items())),
        "all_rows": None in wanted,
    }


def _stream(
    table: Model, source: Model, operation: str, wanting: Sequence[Receiver]
) -> dict[str, Any]:
    """The stream that turns changes of the table of ``table`` into events of ``source``.

    It reads the statement's transition tables, or runs row by row for partitioned tables.
    """
    if _is_part(table, source):
        # Conditions use the child's own table, which may be created later than this one, so they
        # are evaluated at delivery.
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
    """The same for in-transaction receivers.

    ``refusing`` are the conditions under which the commit of other programs is refused, or a truth
    value.
    """
    refusing = [receiver for receiver in wanting if receiver.otherwise == REFUSE]
    observed = _observed(table, source, operation, wanting)
    if _is_part(table, source):
        return {
            "operation": operation[0],
            "conditions": {},
            "all_rows": True,
            "refusing": bool(refusing),
            **observed,
            **_part(table, source, operation),
            "template": "buffer_part",
        }
    among = [condition_of(receiver, source, operation) for receiver in refusing]
    always = None in among or not among
    return {
        "operation": operation[0],
        **_conditions(source, operation, wanting),
        "refusing": bool(among) if always else sorted({condition_id(c) for c in among if c}),
        **observed,
        **_own(source, operation),
        "template": "buffer_rows",
    }


def _observed(
    table: Model, source: Model, operation: str, wanting: Sequence[Receiver]
) -> dict[str, Any]:
    """The receivers whose missed calls are recorded, and the conditions of those that the listener
    calls instead; nothing if no call is recorded.

    The children's own conditions are evaluated at delivery, so all their changes are recorded.
    """
    observing = [receiver for receiver in wanting if receiver.otherwise == OBSERVE]
    if not observing:
        return {}

    def met(receiver: Receiver) -> str:
        condition = condition_of(receiver, source, operation)
        return condition_id(condition) if condition and not _is_part(table, source) else ""

    handing = {met(receiver) for receiver in wanting if receiver.otherwise == AFTER_COMMIT}
    return {
        "observing": {receiver.name: met(receiver) for receiver in observing},
        "handing": "" in handing or sorted(handing),
    }


def _is_part(table: Model, source: Model) -> bool:
    return source._meta.concrete_model is not table._meta.concrete_model


def _own(source: Model, operation: str) -> dict[str, Any]:
    """The stream for a change of the row's own table."""
    row = OLD if operation == DELETE else NEW
    lineage = Lineage(source, {source: row}, "LEFT JOIN")
    # Store the partition of a row, or which part of it this is.
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
    """The stream for an UPDATE of a parent's table, for rows of a child."""
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


_NO_IMAGE = "NULL::jsonb"


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
