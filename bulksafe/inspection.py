"""Compares the declared invariants with the triggers in the database."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connections, router, transaction
from django.db.models import ForeignObjectRel

from bulksafe import conf
from bulksafe.attached import on_model
from bulksafe.caching import models_of
from bulksafe.compiler import MARK, Trigger
from bulksafe.compiler import SWITCHED_OFF as MARK_OFF
from bulksafe.declarations import Declared, declared
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.models import Field, Model

INSTALLED, OUTDATED, MISSING, DISABLED = "installed", "outdated", "missing", "disabled"
#: By ``bulksafe switch-off``, or by a migration of a model in rollout.
SWITCHED_OFF = "switched off"

_TRIGGERS = """
    SELECT t.tgname, obj_description(t.oid, 'pg_trigger'), t.tgenabled, pg_get_triggerdef(t.oid),
           strpos(pg_get_functiondef(t.tgfoid), %s) > 0
    FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = to_regclass(%s) AND NOT t.tgisinternal AND t.tgparentid = 0
    ORDER BY t.tgname
"""

_FUNCTIONS = """
    SELECT t.tgname, t.tgfoid::regprocedure::text
    FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = to_regclass(%s) AND NOT t.tgisinternal AND t.tgparentid = 0
      AND obj_description(t.oid, 'pg_trigger') LIKE %s
    ORDER BY t.tgname
"""


@dataclass(frozen=True)
class Installed:
    """A trigger in the database.

    Attributes:
        is_switched_off: whether it is the first trigger of a capture that is switched off.
    """

    name: str
    comment: str | None
    enabled: str
    definition: str
    is_switched_off: bool = False


@dataclass(frozen=True)
class Status:
    """One invariant in the code and in the database.

    Attributes:
        label: ``"shop.Order:discount_within_amount"``.
        kind: ``"Check"``, ``"Compute"``…
        table: the table's name, as in the model.
        operations: the operations that fire it, ``"INSERT, UPDATE"``.
        timing: ``"before"``, ``"after"`` or ``"at commit"``.
        order: its position among the row triggers of its table, from 1. PostgreSQL fires BEFORE
            triggers first, and each kind by name.
        state: ``"installed"``, ``"outdated"``, ``"missing"``, ``"disabled"`` or ``"switched off"``.
        mode: ``"enforce"``, ``"new"`` or ``"observe"``.
    """

    label: str
    kind: str
    table: str
    operations: str
    timing: str
    order: int
    state: str
    mode: str

    @property
    def is_fault(self) -> bool:
        """Whether the database differs from the code; a capture in rollout may be off."""
        if self.state == SWITCHED_OFF:
            return not conf.is_in_rollout(self.label.partition(":")[0])
        return self.state != INSTALLED

    @property
    def fix(self) -> str:
        """The sentence that says how to install it."""
        if self.state == SWITCHED_OFF:
            return f"Run “manage.py bulksafe switch-on {self.label.partition(':')[0]}”."
        if self.state == DISABLED:
            # Without a label, all triggers would be enabled.
            return f"Run “manage.py pgtrigger enable {self.label}”."
        return "Run makemigrations and migrate."


def statuses(using: str, tables: Collection[str] | None = None) -> list[Status]:
    """Every declared invariant whose table is in the database ``using``, in firing order.

    Args:
        tables: only tables with these ``db_table`` names; None for all.
    """
    rows = [
        _status(item, using)
        for item in declared()
        if is_in(item, using) and (tables is None or item.model._meta.db_table in tables)
    ]
    by_table: dict[str, list[tuple[tuple[Any, ...], Status]]] = {}
    for key, status in rows:
        by_table.setdefault(status.table, []).append((key, status))
    ordered = []
    for table in sorted(by_table):
        for number, (_, status) in enumerate(sorted(by_table[table], key=lambda row: row[0]), 1):
            ordered.append(Status(**(vars(status) | {"order": number})))
    return ordered


def is_in(item: Declared, using: str) -> bool:
    """Whether migrations create the invariant's table in the database ``using``."""
    concrete = item.model._meta.concrete_model or item.model
    return connections[using].vendor == "postgresql" and router.allow_migrate_model(using, concrete)


_ORDER = {"before": 0, "after": 1, "at commit": 2}


def _status(item: Declared, using: str) -> tuple[tuple[Any, ...], Status]:
    compiled = item.invariant.compile(item.model)
    found = {trigger.name: trigger for trigger in installed(using, compiled.table)}
    first = compiled.triggers[0]
    timing = (
        "at commit"
        if first["template"] == "deferred_trigger"
        else first.get("timing", "AFTER").lower()
    )
    events = [trigger.get("events", "") for trigger in compiled.triggers]
    operations = _operations(events, first["template"])
    status = Status(
        label=item.label,
        kind=type(item.invariant).__name__,
        table=compiled.table,
        operations=operations,
        timing=timing,
        order=0,
        state=_state(compiled.hash, [found.get(name) for name in compiled.expected_names]),
        mode=item.invariant.mode,
    )
    return (_ORDER[timing], compiled.pgid), status


def _operations(events: list[str], template: str) -> str:
    if template == "compute_trigger":
        return "INSERT, UPDATE"
    listed = [event for text in events for event in text.split(" OR ") if event]
    known = [event for event in ("INSERT", "UPDATE", "DELETE") if event in listed]
    return ", ".join([*known, "TRUNCATE"] if "DELETE" in known else known)


def _state(expected: str, found: list[Installed | None]) -> str:
    present = [trigger for trigger in found if trigger is not None]
    if not present:
        return MISSING
    if len(present) < len(found) or any(trigger.comment != expected for trigger in present):
        return OUTDATED
    is_switched_off = any(trigger.is_switched_off for trigger in present)
    if any(trigger.enabled == "D" for trigger in present):
        return SWITCHED_OFF if is_switched_off else DISABLED
    if is_switched_off:
        # Enabled without the command: writers take it for off, and it fires.
        return OUTDATED
    return INSTALLED


def installed(using: str, table: str) -> list[Installed]:
    """The triggers of a table, in name order; empty if there is no such table."""
    with connections[using].cursor() as cursor:
        cursor.execute(_TRIGGERS, [MARK_OFF, quoting.relation(table)])
        return [Installed(*row) for row in cursor.fetchall()]


@contextmanager
def triggers_put_aside(
    editor: BaseDatabaseSchemaEditor,
    model: type[Model],
    old_field: Field[Any, Any],
    new_field: Field[Any, Any],
) -> Iterator[None]:
    """Drop our triggers while the type of a column changes, and create them again.

    pgtrigger does this too, one trigger at a time after an error of PostgreSQL, but only for tables
    whose name needs no quotes.
    """
    connection = editor.connection
    before, after = old_field.db_parameters(connection), new_field.db_parameters(connection)
    if connection.vendor != "postgresql" or before == after or editor.collect_sql:
        yield
        return
    aside = [
        (trigger, table)
        for table in dict.fromkeys(_tables_altered_with(model, old_field))
        for trigger in installed(connection.alias, table)
        if _is_ours(trigger)
    ]
    # In a migration that is not atomic, other sessions must not see the tables without triggers
    # either.
    with transaction.atomic(using=connection.alias):
        for trigger, table in aside:
            editor.execute(_ddl("DROP TRIGGER {name} ON {table}", trigger, table), params=None)
        yield
        for statement in _restoring(model, aside):
            editor.execute(statement, params=None)


def _restoring(model: type[Model], aside: list[tuple[Installed, str]]) -> Iterator[str]:
    """SQL that creates the triggers again, in their previous state.

    Triggers in the migration state are installed from there: a ``Compute`` depends on the types of
    its columns.
    """
    known = _known_by_name(model, {table for _, table in aside})
    names = [trigger.name for trigger, _ in aside]
    yield from dict.fromkeys(known[name].install_sql for name in names if name in known)
    for trigger, table in aside:
        if trigger.name not in known:
            yield trigger.definition
            yield _ddl(_COMMENT, trigger, table)
        if trigger.is_switched_off and trigger.name in known:
            yield known[trigger.name].switch_off_sql
        elif trigger.enabled in _MODES:
            yield _ddl(_MODES[trigger.enabled], trigger, table)


def _known_by_name(model: type[Model], tables: set[str]) -> dict[str, Trigger]:
    """The compiled triggers on ``tables`` in the migration state that ``model`` belongs to."""
    return {
        name: trigger.compile(other)
        for other in models_of(model._meta.apps, include_auto_created=True)
        if other._meta.db_table in tables
        for trigger in (*(getattr(other._meta, "triggers", None) or ()), *on_model(other))
        if isinstance(trigger, Trigger)
        for name in trigger.trigger_names
    }


def removing_unknown(editor: BaseDatabaseSchemaEditor, model: type[Model]) -> Iterator[str]:
    """SQL that removes our triggers that are not in the migration state from a table."""
    with editor.connection.cursor() as cursor:
        cursor.execute(_FUNCTIONS, [quoting.relation(model._meta.db_table), f"{MARK}%"])
        found = cursor.fetchall()
    table = quoting.relation(model._meta.db_table)
    for name, _ in found:
        yield f"DROP TRIGGER {quoting.identifier(name)} ON {table}"
    # Triggers may share a function.
    for function in dict.fromkeys(function for _, function in found):
        yield f"DROP FUNCTION {function}"


_COMMENT = "COMMENT ON TRIGGER {name} ON {table} IS {comment}"
_MODES = {
    "D": "ALTER TABLE {table} DISABLE TRIGGER {name}",
    "R": "ALTER TABLE {table} ENABLE REPLICA TRIGGER {name}",
    "A": "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
}


def _tables_altered_with(model: type[Model], field: Field[Any, Any]) -> Iterator[str]:
    """The field's table, and the tables whose foreign keys get the type of the field."""
    yield model._meta.db_table
    for relation in model._meta.get_fields(include_hidden=True):
        if (
            isinstance(relation, ForeignObjectRel)
            and (relation.one_to_many or relation.one_to_one)
            and field.name in {target.name for target in relation.field.foreign_related_fields}
        ):
            yield from _tables_altered_with(relation.related_model, relation.field)


def _is_ours(trigger: Installed) -> bool:
    return (trigger.comment or "").startswith(MARK)


def _ddl(template: str, trigger: Installed, table: str) -> str:
    return template.format(
        name=quoting.identifier(trigger.name),
        table=quoting.relation(table),
        comment=quoting.literal(trigger.comment),
    )
