"""Refuses expressions that an invariant cannot enforce, and explains Django's errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
from django.core.exceptions import FieldError, ValidationError
from django.db.models.expressions import (
    Func,
    OrderBy,
    RawSQL,
    ResolvedOuterRef,
    Subquery,
)
from django.db.models.functions import Now, Random
from django.db.models.lookups import Lookup
from django.db.models.sql import Query

from bulksafe.planning import fields, sessions
from bulksafe.planning.nodes import operands, output_field, walk
from bulksafe.planning.problems import Refused, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db import models
    from django.db.models.sql.datastructures import Join

_ROW_LOCAL_ONLY = (
    "This version enforces invariants over the columns of one row. Keep the value in a "
    "column of the row itself, or keep the rule in a receiver for now."
)


def refuse_nodes(resolved: object) -> None:
    """Refuse nodes that make the expression depend on more than the row."""
    nodes = list(walk(resolved))
    for refuse in (
        _refuse_other_rows,
        _refuse_what_is_no_value,
        _refuse_volatile,
        sessions.refuse_session_dependent,
        _refuse_different_types,
    ):
        for node in nodes:
            refuse(node)


def _refuse_other_rows(node: object) -> None:
    kind = type(node).__name__
    if _is_itself(node, "contains_aggregate"):
        raise Refused("E022", f"{kind} aggregates over other rows.", _ROW_LOCAL_ONLY)
    if isinstance(node, ResolvedOuterRef):
        name = getattr(node, "name", "")
        raise Refused(
            "E023",
            f"OuterRef({name!r}) refers to an outer query, but there is none.",
            f"Write F({name!r}) for the row's own column.",
        )
    if isinstance(node, Subquery | Query):
        kind = "A queryset" if isinstance(node, Query) else kind
        raise Refused("E023", f"{kind} reads other rows.", _ROW_LOCAL_ONLY)
    if getattr(node, "contains_over_clause", False):
        raise Refused("E024", "A window function reads other rows.", _ROW_LOCAL_ONLY)


def _is_itself(node: object, trait: str) -> bool:
    """Whether ``node`` itself has the trait, not one of its children."""
    if not getattr(node, trait, False) or not hasattr(node, "get_source_expressions"):
        return False
    return not any(getattr(child, trait, False) for child in node.get_source_expressions())


def _refuse_what_is_no_value(node: object) -> None:
    if isinstance(node, RawSQL):
        raise Refused(
            "E026",
            "RawSQL hides the columns that it reads.",
            "Write it with F() and Func(), or as a pgtrigger.Trigger of your own.",
        )
    if isinstance(node, OrderBy):
        raise Refused("E029", "An order is not a value.", "Leave .asc() or .desc() out.")


#: Functions whose value depends on more than their arguments. PostgreSQL's documentation, "Function
#: Volatility Categories". Functions in the second list are written without parentheses.
_VOLATILE = re.compile(
    r"""\b(?:({})\s*\(|(?<!["'.])({})\b(?!["']))""".format(
        "|".join(
            """
            clock_timestamp current_database current_schema current_setting currval
            gen_random_uuid lastval nextval now pg_backend_pid pg_current_xact_id random
            random_normal setseed statement_timestamp timeofday transaction_timestamp
            txid_current uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 uuidv4 uuidv7
            """.split()
        ),
        "|".join(
            """
            current_catalog current_date current_role current_schema current_time
            current_timestamp current_user localtime localtimestamp session_user
            """.split()
        ),
    ),
    re.IGNORECASE,
)
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")


def _refuse_volatile(node: object) -> None:
    if isinstance(node, Now | Random):
        raise _volatile(type(node).__name__)
    if isinstance(node, Func):
        name = str(node.extra.get("function", node.function))
        if _VOLATILE.match(f"{name}("):
            raise _volatile(name)


def refuse_volatile_text(sql: str) -> None:
    """Refuse a template that calls a volatile function, like contrib.postgres's ``RandomUUID``."""
    found = _VOLATILE.search(_QUOTED.sub("''", sql))
    if found:
        raise _volatile((found[1] or found[2]).lower())


def _volatile(name: str) -> Refused:
    return Refused(
        "E025",
        f"{name} returns a different value each time: a rule that held at the write may not hold "
        "a moment later.",
        "Store the value in a separate column when the row is written, and use that column.",
    )


_COMPARISONS = frozenset("exact gt gte lt lte df ndf".split())


def _refuse_different_types(node: object) -> None:
    if not isinstance(node, Lookup) or node.lookup_name not in _COMPARISONS:
        return
    found = [f for operand in operands(node) if (f := output_field(operand)) is not None]
    families = {family for field in found if (family := fields.family(field))}
    if len(families) > 1 and "json" not in families:
        left, right = (field.get_internal_type() for field in found)
        raise Refused(
            "E037",
            f"It compares {left} with {right}, which PostgreSQL cannot compare.",
            f"Convert one side: Cast(…, {left}()).",
        )


def refuse_operand(lhs: object, lookups: list[str], rhs: object) -> None:
    """Refuse values that Django would silently convert to text or split into letters."""
    if lookups[-1:] == ["in"]:
        if isinstance(rhs, str):
            raise Refused(
                "E028",
                f"The values after __in are the text {rhs!r}, so each letter would be a value.",
                f"Write a list: [{rhs!r}].",
            )
        listed = list(rhs) if isinstance(rhs, list | tuple | set | frozenset) else []
    else:
        listed = [rhs]
    field = output_field(lhs)
    for given in listed:
        if field is not None and not hasattr(given, "resolve_expression"):
            fields.refuse_odd_value(field, given)


def refuse_join(join: Join, parents: Iterable[type[models.Model]]) -> None:
    """Refuse an expression that reads another table."""
    if join.table_name in {parent._meta.db_table for parent in parents}:
        raise Refused(
            "E034",
            f"It reads a column of “{join.table_name}”, the table of a parent model: a row there "
            "can change without a change of this one.",
            "Declare the invariant on the parent model, or use columns of the child's own table "
            "only.",
        )
    raise Refused(
        "E021",
        f"It spans the relation “{_relation_name(join)}”: a change of the related row can break "
        "it.",
        _ROW_LOCAL_ONLY,
    )


def _relation_name(join: Join) -> str:
    """The relation's name in the model; Django calls the hidden one ``Order_tags+``."""
    field = join.join_field
    owner = getattr(getattr(field, "model", None), "_meta", None)
    name = str(getattr(field, "name", None) or join.table_name)
    return name.rstrip("+").removeprefix(f"{owner.object_name}_") if owner else name


# What Django raises.


def translated(error: Exception, model: type[models.Model], annotations: Iterable[str]) -> Refused:
    """An error of Django or psycopg about an expression, as a fact with its fix."""
    text = str(error)
    if isinstance(error, FieldError):
        return _field_error(text, model, annotations)
    if isinstance(error, ValidationError | ValueError | psycopg.DataError) or (
        isinstance(error, TypeError) and ("expected" in text or "must be" in text)
    ):
        reason = "; ".join(error.messages) if isinstance(error, ValidationError) else text
        return Refused(
            "E028",
            f"A value does not fit the column that it is compared with: {_sentence(reason)}",
            "Write a value of the column's type.",
        )
    return _not_compiled(text or type(error).__name__)


def _field_error(text: str, model: type[models.Model], annotations: Iterable[str]) -> Refused:
    if text.startswith("Cannot resolve keyword"):
        return _unknown_name(text.split("'")[1], model, annotations)
    if "does not generate an automatic reverse relation" in text:
        name = text.split("'")[1]
        return fields.no_column(model, name)
    if "lookup" in text.lower():
        return Refused(
            "E027",
            _sentence(text),
            "Use a lookup that the field's type has, or a function; behind a relation, a field of "
            "the related model.",
        )
    if "mixed types" in text or "Cannot infer type" in text:
        return Refused(
            "E030",
            _sentence(text),
            "Wrap the expression: ExpressionWrapper(…, output_field=DecimalField()).",
        )
    return _not_compiled(text)


def _unknown_name(word: str, model: type[models.Model], annotations: Iterable[str]) -> Refused:
    known = sorted(fields.names_of(model) | set(annotations))
    listed = (
        f"{model._meta.label} has: {', '.join(known)}. For the text itself write Value({word!r})."
    )
    return Refused(
        "E020", f"{model._meta.label} has no field “{word}”.", did_you_mean(word, known, listed)
    )


def _not_compiled(text: str) -> Refused:
    return Refused(
        "E030",
        f"Django cannot compile it: {_sentence(text)}",
        "Check that Model.objects.annotate(x=…) or .filter(…) accepts it.",
    )


def _sentence(text: str) -> str:
    """``text`` with one full stop, even if Django ends it with ``?.``."""
    return f"{text.rstrip('.').rstrip('?')}."
