"""Refuses expressions that depend on settings of the writing session.

PostgreSQL formats dates and intervals by ``DateStyle`` and ``IntervalStyle``, and converts between
dates and timestamps in the session's ``TimeZone``. Sessions of Django, psql and other services have
different settings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.db.models import Func, Lookup, Value
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Cast

from bulksafe.planning.nodes import is_type, operands, output_field
from bulksafe.planning.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulksafe.planning import fields

_DATED = ("DateField", "DateTimeField", "TimeField", "DurationField")
_TEXT = ("CharField", "TextField", "SlugField", "URLField", "EmailField", "FileField")

#: Functions that convert their arguments to text or JSON.
_WRITING = re.compile(
    r"\A(?:concat|concat_ws|format|to_char|to_json|to_jsonb|jsonb?_build_object|jsonb?_build_array"
    r"|json_object|json_array|array_to_string|row_to_json|quote_literal)\Z",
    re.IGNORECASE,
)
#: Functions that use the session's time zone with this number of arguments, one of them a
#: timestamp. One more argument names the zone.
_ZONED_OF_A_MOMENT = {"date_trunc": 2, "date_part": 2, "date": 1}
#: The same for functions that return a timestamp.
_ZONED = {"make_timestamptz": 6, "to_timestamp": 2}
#: Lookups that compare the text of their left side.
_TEXTUAL = frozenset(
    "contains icontains startswith istartswith endswith iendswith regex iregex iexact".split()
)


def refuse_session_dependent(node: object) -> None:
    """Refuse a node of an expression that has a different value in other sessions."""
    if isinstance(node, Cast):
        (source,) = node.get_source_expressions()
        if not isinstance(source, Value):
            # A literal is parsed once, when the trigger is created.
            _refuse_reading(output_field(source), node.output_field)
        refuse_conversion(output_field(source), node.output_field)
    elif isinstance(node, Func):
        _refuse_function(node)
    elif isinstance(node, Lookup | CombinedExpression) and _mixes_dates(operands(node)):
        raise _in_time_zone("A date beside a date and time")
    elif isinstance(node, Lookup) and node.lookup_name in _TEXTUAL:
        source = output_field(node.lhs)
        if is_type(source, *_DATED):
            raise _as_text(f"The text of a {source.get_internal_type()}")  # type: ignore[union-attr]


def refuse_conversion(source: fields.Field | None, target: fields.Field) -> None:
    """Refuse a cast or an assignment of a value of the type ``source`` to ``target``."""
    if source is None:
        return
    given, wanted = source.get_internal_type(), target.get_internal_type()
    conversion = f"The conversion of {given} to {wanted}"
    if (given == "DateTimeField" and wanted in ("DateField", "TimeField")) or (
        given == "DateField" and wanted == "DateTimeField"
    ):
        raise _in_time_zone(conversion)
    if (given in _DATED and wanted in _TEXT) or (
        given in ("DateTimeField", "DurationField") and wanted == "JSONField"
    ):
        raise _as_text(conversion)


def _refuse_reading(source: fields.Field | None, target: fields.Field) -> None:
    """Refuse a cast of text: 01/02/2024 may be in January or in February."""
    if is_type(source, *_TEXT) and is_type(target, *_DATED):
        raise Refused(
            "E031",
            f"The meaning of the text as a {target.get_internal_type()} depends on settings of the "
            "writing session, such as DateStyle and TimeZone.",
            f"Store it in a separate {target.get_internal_type()} when the row is written.",
        )


def _refuse_function(node: Func) -> None:
    if getattr(node, "config", "") is None:
        raise Refused(
            "E031",
            f"{type(node).__name__} depends on the text search configuration of the session that "
            "writes.",
            f"Name it: {type(node).__name__}(…, config='english').",
        )
    name = str(node.extra.get("function", node.function))
    if _is_zoned(name, node.get_source_expressions()):
        raise _in_time_zone(name)
    writes = _WRITING.match(name) or type(node).__name__ in ("ConcatPair", "JSONObject")
    if not writes:
        return
    for source in node.get_source_expressions():
        field = output_field(source)
        if is_type(field, *_DATED):
            raise _as_text(f"The text of a {field.get_internal_type()}")  # type: ignore[union-attr]


def _is_zoned(name: str, sources: list[Any]) -> bool:
    """Whether the function reads or returns a timestamp in the session's time zone."""
    given = len(sources)
    if _ZONED_OF_A_MOMENT.get(name.lower()) == given:
        return any(is_type(output_field(source), "DateTimeField") for source in sources)
    return _ZONED.get(name.lower()) == given


def _mixes_dates(sides: Iterable[Any]) -> bool:
    found = [output_field(side) for side in sides]
    return any(is_type(f, "DateField") for f in found) and any(
        is_type(f, "DateTimeField") for f in found
    )


def _in_time_zone(what: str) -> Refused:
    return Refused(
        "E031",
        f"{what} depends on the time zone of the writing session.",
        "Name the time zone: TruncDate('column', tzinfo=…) or Extract('column', 'year', tzinfo=…).",
    )


def _as_text(what: str) -> Refused:
    return Refused(
        "E031",
        f"{what} depends on settings of the writing session, such as DateStyle and TimeZone.",
        "Take the parts that you need as numbers: ExtractYear('column', tzinfo=…).",
    )
