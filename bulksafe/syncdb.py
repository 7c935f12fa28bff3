"""Invariants on tables that are created without migrations, as in tests with ``--nomigrations``.

pgtrigger's schema editor installs the triggers of a new table. But if an app without migrations
attaches an invariant to a table with migrations, nothing would install it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.migrations.loader import MigrationLoader

from bulksafe import inspection
from bulksafe.declarations import Capture, Declared, declared, receivers
from bulksafe.declarations.modes import OBSERVE
from bulksafe.declarations.options import DEFAULT_LANE
from bulksafe.declarations.receivers import lanes
from bulksafe.dispatch.sources import by_oid, models_of
from bulksafe.operations import table_exists
from bulksafe.outbox import access, schema, violations
from bulksafe.outbox.store import Store
from bulksafe.writer.vocabulary import forget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.core.management.base import OutputWrapper
    from django.db.migrations.migration import Migration


def create_outbox(sender: object, using: str, **kwargs: Any) -> None:
    """Receiver of ``pre_migrate``: create the outbox before tables of apps without migrations.

    If such an app has captures or observed invariants, or bulksafe itself has no migrations,
    nothing else would create the outbox in time.
    """
    if not schema.belongs_in(using):
        return
    unmigrated = MigrationLoader(None).unmigrated_apps
    captured = {
        label
        for item in declared()
        if isinstance(item.invariant, Capture) or item.invariant.mode == OBSERVE
        for label in (item.model._meta.app_label, item.invariant.home_on(item.model))
    }
    if "bulksafe" in unmigrated or captured & unmigrated:
        schema.create(using)


def refuse_to_lose_events(
    sender: object, using: str, plan: Iterable[tuple[Migration, bool]] = (), **kwargs: Any
) -> None:
    """Receiver of ``pre_migrate``: ``migrate bulksafe zero`` drops no waiting event.

    Before the first step, because Django first reverses the migrations that depend on bulksafe's,
    which drops the triggers. A later refusal would leave writes without receivers.
    """
    names = {(step.app_label, step.name) for step, is_backwards in plan if is_backwards}
    if ("bulksafe", "0001_outbox") in names and schema.belongs_in(using):
        schema.refuse_to_lose_events(using)


def refuse_unknown_roles(sender: object, using: str, **kwargs: Any) -> None:
    """Receiver of ``pre_migrate``: stop early if the settings name a missing role."""
    if schema.belongs_in(using):
        access.refuse_unknown_roles(using)


def settle_privileges(
    sender: object,
    using: str,
    verbosity: int = 0,
    stdout: OutputWrapper | None = None,
    **kwargs: Any,
) -> None:
    """Receiver of ``post_migrate``: grant privileges to the roles in the settings only.

    At every ``migrate``, so that the privileges follow the settings.
    """
    if not (schema.belongs_in(using) and schema.exists(using)):
        return
    for statement in access.settle(using):
        if verbosity and stdout is not None:
            stdout.write(f"  bulksafe: {statement}")


def create_cursors(sender: object, using: str, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``: start every queue with the migration, not with its listener.

    So events in between are not lost.
    """
    if schema.belongs_in(using) and schema.exists(using):
        with transaction.atomic(using=using):
            Store(using).create_cursors({DEFAULT_LANE, *lanes()})


def note_receivers(sender: object, using: str, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``: store receiver names for the database's error messages."""
    if not (schema.belongs_in(using) and schema.has_tickets(using)):
        return
    forget(using)
    rows = [
        (oid, operation[0], receiver.name, receiver.otherwise)
        for oid, model in by_oid(models_of(receivers.inline()), using).items()
        for receiver in receivers.of_model(model, receivers.is_inline)
        for operation in receiver.operations
    ]
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("DELETE FROM bulksafe_receiver")
        if rows:
            cursor.execute(
                "INSERT INTO bulksafe_receiver (source, operation, receiver, otherwise) "
                'SELECT * FROM unnest(%s::oid[], %s::text[]::"char"[], %s::text[], %s::text[]) '
                "ON CONFLICT DO NOTHING",
                [list(column) for column in zip(*rows, strict=True)],
            )


def limit_violations(sender: object, using: str, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``: tell the database how many violations may be recorded."""
    if schema.belongs_in(using) and schema.has_violations(using):
        violations.limit(Store(using))


def install_missing(sender: object, using: str, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``: install triggers that table creation did not.

    These are triggers that apps without migrations attach to other models or declare on proxies.

    Installed triggers are not updated, just as ``migrate`` does not alter the tables of such apps.
    """
    for item in _beside_tables_without_migrations(using):
        compiled = item.invariant.compile(item.model)
        present = {trigger.name for trigger in inspection.installed(using, compiled.table)}
        if table_exists(compiled.table, using) and present.isdisjoint(compiled.trigger_names):
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                cursor.execute(compiled.install_sql)


def _beside_tables_without_migrations(using: str) -> list[Declared]:
    found = [
        item
        for item in declared()
        if (item.invariant.is_attached or item.model._meta.proxy) and inspection.is_in(item, using)
    ]
    if not found:
        return []
    unmigrated = MigrationLoader(None).unmigrated_apps
    return [item for item in found if _home_of(item) in unmigrated]


def _home_of(item: Declared) -> str:
    """The app whose migrations attach it."""
    if item.invariant.is_attached:
        return item.invariant.home_on(item.model)
    return item.model._meta.app_label
