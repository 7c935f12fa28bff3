"""Session settings that affect values as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.planning import fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db import models

_TIMEZONE = "timezone = 'UTC'"
_DATESTYLE = "datestyle = 'ISO'"
_INTERVALSTYLE = "intervalstyle = 'postgres'"
_FLOAT_DIGITS = "extra_float_digits = 1"
_BYTEA_OUTPUT = "bytea_output = 'hex'"
_ALL = (_TIMEZONE, _DATESTYLE, _INTERVALSTYLE, _FLOAT_DIGITS, _BYTEA_OUTPUT)

#: Types whose JSON is the same in every session. Dates are in ISO format, timestamps have a zone.
_PLAIN = frozenset(
    "bigint integer smallint boolean numeric varchar char text citext hstore uuid inet cidr "
    "macaddr json jsonb date time timestamp int4range int8range numrange".split()
)
#: Types whose JSON depends on settings, with these settings.
_STYLED = {
    "interval": (_INTERVALSTYLE,),
    "double": (_FLOAT_DIGITS,),
    "real": (_FLOAT_DIGITS,),
    "bytea": (_BYTEA_OUTPUT,),
    "daterange": (_DATESTYLE,),
    "tsrange": (_DATESTYLE,),
    "tstzrange": (_DATESTYLE, _TIMEZONE),
}
#: The same for values as text, which is the form of keys.
_STYLED_TEXT = _STYLED | {
    "date": (_DATESTYLE,),
    "timestamp": (_DATESTYLE, _TIMEZONE),
}


def settings_for(tables: Iterable[type[models.Model]]) -> str:
    """The ``SET`` clauses of a function that builds images of rows of these tables.

    Only the clauses that their types need: each clause slows down every statement that fires the
    function.
    """
    needed: set[str] = set()
    for model in tables:
        for field in model._meta.local_concrete_fields:
            styled = _STYLED_TEXT if field.primary_key else _STYLED
            needed.update(_of(fields.type_of(field), styled))
        for field in model._meta.pk_fields:
            needed.update(_of(fields.type_of(field), _STYLED_TEXT))
    return "\n".join(f"SET {setting}" for setting in _ALL if setting in needed)


def _of(db_type: str, styled: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The settings of one type; all settings for an unknown type."""
    name = db_type.partition("[")[0].partition("(")[0].partition(" ")[0]
    if name in styled:
        return styled[name]
    return () if name in _PLAIN else _ALL
