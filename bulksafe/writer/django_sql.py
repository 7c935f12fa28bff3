"""The SQL text with which Django stores instances."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.db.models import AutoField

from bulksafe.caching import forever, per_model

if TYPE_CHECKING:
    from django.db.models import Model


def _quoted(name: str) -> str:
    return f'"{name}"'


def is_plain_name(model: type[Model]) -> bool:
    """Whether the table name can be used in a comment."""
    return re.fullmatch(r"\w+", model._meta.db_table) is not None


@per_model(forever)
def insertions(model: type[Model]) -> tuple[str, ...]:
    """The beginning of the INSERT of whole instances: with their keys, and without."""
    if not is_plain_name(model):
        return ()
    fields = [one for one in model._meta.local_concrete_fields if not one.generated]
    without = [one for one in fields if not isinstance(one, AutoField)]
    columns = [", ".join(_quoted(str(one.column)) for one in some) for some in (fields, without)]
    return tuple(f"INSERT INTO {_quoted(model._meta.db_table)} ({some})" for some in columns)


@per_model(forever)
def update_of_one_row(model: type[Model]) -> re.Pattern[str] | None:
    """The UPDATE of one row by its key, which is the last parameter."""
    keys = model._meta.pk_fields
    if len(keys) != 1 or not is_plain_name(model):
        return None
    table, column = _quoted(model._meta.db_table), _quoted(str(keys[0].column))
    begin = re.escape(f"UPDATE {table} SET ")  # noqa: S608
    end = re.escape(f" WHERE {table}.{column} = %s")
    return re.compile(rf"{begin}.*{end}(?: RETURNING [^%]*)?\Z", re.DOTALL)
