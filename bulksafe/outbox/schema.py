"""bulksafe's own tables, as a migration operation."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.management import CommandError
from django.db import DatabaseError, connections, router, transaction
from django.db.migrations.operations.base import Operation
from psycopg.errors import ObjectInUse

from bulksafe.caching import models_of
from bulksafe.outbox import own, shape
from bulksafe.rendering import templates
from bulksafe.rendering.quoting import literal, relation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db import models
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.migrations.state import ProjectState

VERSION = "v1"

#: Deletes all events; the queues keep their positions.
EMPTY = ["TRUNCATE bulksafe_outbox, bulksafe_parked"]


@contextmanager
def refusing(using: str) -> Iterator[None]:
    """Turn the database's refusal to drop the tables into an error of the command.

    Raises:
        CommandError: triggers still write to the tables, or events would be lost.
    """
    try:
        yield
    except DatabaseError as error:
        cause = error.__cause__
        if not isinstance(cause, ObjectInUse):
            raise
        diagnostics = cause.diag
        raise CommandError(
            f"The database {using!r}: {diagnostics.message_primary}. {diagnostics.message_hint}"
        ) from error


def refuse_to_lose_events(using: str) -> None:
    """Refuse to drop the outbox while a queue has undelivered events.

    Raises:
        CommandError: there are such events.
    """
    with refusing(using), transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(_sql(VERSION, "outbox_unread"))


def _sql(version: str, template: str, names: Sequence[str] = own.ALL) -> str:
    """Fill a template for our own tables."""
    listed = f"ARRAY[{', '.join(map(literal, names))}]::pg_catalog.text[]"
    values = {"names": listed, "home": templates.read(version, "home")}
    values["strangers"] = templates.fill(version, "strangers", values)
    values["caller"] = templates.read(version, "caller")
    return templates.fill(version, template, values)


class _Create(Operation):
    """Creates bulksafe's own tables, on PostgreSQL only."""

    reversible = True
    template = ""
    names: Sequence[str] = ()

    def __init__(self, version: str) -> None:
        self.version = version

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return type(self).__qualname__, [], {"version": self.version}

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """The tables have no models."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._execute(app_label, schema_editor, self.template)
        self._execute(app_label, schema_editor, "revoke")
        if self._concerns(app_label, schema_editor) and not schema_editor.collect_sql:
            shape.refuse_foreign(schema_editor.connection.alias, self.names)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        # Both migrations refuse for all tables: half of the tables would be useless.
        with refusing(schema_editor.connection.alias):
            self._execute(app_label, schema_editor, "outbox_uncaptured")
            self._execute(app_label, schema_editor, "outbox_unread")
        self._execute(app_label, schema_editor, f"{self.template}_drop")

    def _execute(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, template: str
    ) -> None:
        if self._concerns(app_label, schema_editor):
            schema_editor.execute(_sql(self.version, template, self.names), params=None)

    def _concerns(self, app_label: str, schema_editor: BaseDatabaseSchemaEditor) -> bool:
        connection = schema_editor.connection
        return connection.vendor == "postgresql" and bool(
            router.allow_migrate(connection.alias, app_label)
        )


class CreateOutbox(_Create):
    """Create the outbox, the cursors and the parked events."""

    template = "outbox"
    names = own.OUTBOX

    def describe(self) -> str:
        return "Create the outbox, its cursors and the parked events"


class CreateTickets(_Create):
    """Create the tables and functions for in-transaction receivers."""

    template = "tickets"
    names = own.TICKETS

    def describe(self) -> str:
        return "Create the buffer and the tickets of receivers in the writer's transaction"


class CreateViolations(_Create):
    """Create the table of observed violations."""

    template = "violations"
    names = own.VIOLATIONS

    def describe(self) -> str:
        return "Create the table of observed violations"


def rename_in_images(model: type[models.Model], old: str, new: str) -> str:
    """SQL that renames a column of the table of ``model`` in waiting events.

    This includes events of the model's multi-table children.
    """
    rows = [model, *(m for m in models_of(model._meta.apps) if model in m._meta.all_parents)]
    tables = [f"to_regclass({literal(relation(m._meta.db_table))})" for m in rows]
    values = {"old": old, "new": new, "tables": ", ".join(tables)}
    return templates.fill(VERSION, "rename_in_images", values)


def create(using: str) -> None:
    """Create missing tables without a migration."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        for template, names in (
            ("outbox", own.OUTBOX),
            ("tickets", own.TICKETS),
            ("violations", own.VIOLATIONS),
        ):
            for step in (template, "revoke"):
                cursor.execute(_sql(VERSION, step, names))
        shape.refuse_foreign(using, own.ALL)


def belongs_in(using: str) -> bool:
    """Whether the database should have an outbox."""
    return connections[using].vendor == "postgresql" and bool(
        router.allow_migrate(using, "bulksafe")
    )


def exists(using: str) -> bool:
    """Whether the outbox exists."""
    return _has_table(own.TABLES[0], using)


def has_tickets(using: str) -> bool:
    """Whether the tables for in-transaction receivers exist."""
    return _has_table("bulksafe_receiver", using)


def has_violations(using: str) -> bool:
    """Whether the table of observed violations exists."""
    return _has_table("bulksafe_violation", using)


def _has_table(name: str, using: str) -> bool:
    return connections[using].vendor == "postgresql" and own.home(using, name) is not None
