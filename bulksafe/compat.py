"""Everything that depends on a version of Django, Python or PostgreSQL."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import django
import pgtrigger
from django.conf import settings
from django.db import connections, transaction
from django.db.models.sql import UpdateQuery
from pgtrigger import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from django.db.models import Field, Model, QuerySet
    from django.http import HttpRequest

    #: A column, the parent model that has it (if any), and its new value.
    Assignment: TypeAlias = tuple[Field[Any, Any], type[Model] | None, object]

    class PgTrigger:
        """pgtrigger.Trigger, whose annotations say instance where a class is passed."""

        name: str

        def get_uri(self, model: type[Model]) -> str: ...
        def get_pgid(self, model: type[Model]) -> str: ...
        def compile(self, model: type[Model]) -> object: ...
        def register(self, *models: type[Model]) -> object: ...
        def validate_name(self) -> None: ...

else:
    PgTrigger = pgtrigger.Trigger

#: In the format of ``connection.pg_version``.
OLDEST_POSTGRESQL = 140000

#: ``Model.save()`` passes the fields that an UPDATE is to return.
UPDATE_RETURNS_FIELDS = django.VERSION >= (6, 0)

#: ``bulk_create()`` begins a transaction, also for a single INSERT.
BULK_CREATE_IS_ATOMIC = django.VERSION < (6, 0)

#: Extra arguments of ``m2m_changed`` outside of fixture loading, which not all versions of Django
#: pass.
M2M_CHANGED_ARGUMENTS: dict[str, Any] = {"raw": False} if django.VERSION >= (6, 1) else {}

#: The methods of a many-to-many manager that send ``m2m_changed``. Since Django 6.1 ``clear()`` is
#: not the only caller of the last one: ``set_base(clear=True)`` calls it too.
M2M_CHANGED_SENDERS = (
    "_add_items",
    "_remove_items",
    "_clear_base" if django.VERSION >= (6, 1) else "clear",
)


def registered() -> list[tuple[type[Model], PgTrigger]]:
    """All triggers registered with pgtrigger, each with its model."""
    return registry.registered()  # type: ignore[return-value]  # the same: a class, no instance


def own_signature(function: Callable[..., object]) -> inspect.Signature | None:
    """The signature of a callable itself, ignoring ``__wrapped__``; None if it has none."""
    # Python 3.14 evaluates annotations here: a name may exist for type checkers only.
    lenient: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415

        lenient = {"annotation_format": annotationlib.Format.FORWARDREF}
    try:
        return inspect.signature(function, follow_wrapped=False, **lenient)
    except (TypeError, ValueError):
        return None


def update_returning(
    queryset: QuerySet[Any], values: Collection[Assignment], fields: Sequence[Field[Any, Any]]
) -> list[tuple[Any, ...]]:
    """Do what ``QuerySet._update(values)`` does and return ``fields`` of the updated rows.

    Django 6.0 has this as an argument of ``_update``.
    """
    query: Any = queryset.query.chain(UpdateQuery)
    query.add_update_fields(values)
    query.annotations = {}
    connection = connections[queryset.db]
    compiler = query.get_compiler(queryset.db)
    sql, params = compiler.as_sql()
    columns = [field.get_col(queryset.model._meta.db_table) for field in fields]
    returning = ", ".join(compiler.compile(column)[0] for column in columns)
    with (
        transaction.mark_for_rollback_on_error(using=queryset.db),
        connection.cursor() as cursor,
    ):
        cursor.execute(f"{sql} RETURNING {returning}", params)
        rows = cursor.fetchall()
    converters = compiler.get_converters(columns)
    return [tuple(row) for row in compiler.apply_converters(rows, converters)]


def allow_meta_triggers() -> None:
    """Let Django accept ``Meta.triggers`` even if 'pgtrigger' is missing in INSTALLED_APPS.

    Importing pgtrigger's app does that. Otherwise Django would refuse the first model before the
    system checks can report the missing app.
    """
    if settings.configured:
        import pgtrigger.apps  # noqa: F401, PLC0415


def queued_messages(request: HttpRequest) -> list[Any]:
    """The messages that this request has added so far; the list may be changed.

    Django has no public way to take a message back.
    """
    storage = getattr(request, "_messages", None)
    queued: list[Any] = getattr(storage, "_queued_messages", [])
    return queued
