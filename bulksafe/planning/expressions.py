"""Django expressions as SQL over the old and the new row of a change.

The same query machinery that would put an expression into a ``SELECT`` resolves it here; only the
rows that names refer to are others: ``new`` and ``old`` in place of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import (
    EmptyResultSet,
    FieldDoesNotExist,
    FieldError,
    FullResultSet,
    ValidationError,
)
from django.db import models
from django.db.models import F, Q
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Col, CombinedExpression, Func, RawSQL, Subquery
from django.db.models.functions import Cast, Now, Random
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.datastructures import BaseTable, Join
from django.utils import timezone, translation

from bulksafe.planning import offline
from bulksafe.planning.problems import Refused, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD = "old"
NEW = "new"
ROWS = (OLD, NEW)

#: Functions whose value depends on more than their arguments. PostgreSQL, "Function Volatility Categories".
_VOLATILE = frozenset(
    """
    clock_timestamp current_catalog current_database current_date current_role current_schema current_setting
    current_time current_timestamp current_user currval gen_random_uuid lastval localtime localtimestamp nextval
    now pg_backend_pid pg_current_xact_id random random_normal session_user setseed statement_timestamp
    timeofday transaction_timestamp txid_current user uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4
    uuidv4 uuidv7
    """.split()
)

_ROW_LOCAL_ONLY = (
    "Invariants over the columns of one row are what this version enforces. Keep the value in a column of "
    "the row itself, or keep the rule in a receiver for now."
)


@dataclass(frozen=True)
class RowSQL:
    """An expression over one change of a row.

    Attributes:
        sql: the text; columns are ``"new"."amount"``, or bare where that was asked for.
        reads: the (row, field) pairs that it depends on.
        output_field: the type of its value, where Django knows it.
    """

    sql: str
    reads: frozenset[tuple[str, models.Field[Any, Any]]]
    output_field: models.Field[Any, Any] | None

    def rows(self) -> set[str]:
        return {row for row, _ in self.reads}


def compile_expression(
    model: type[models.Model],
    expression: Any,
    *,
    row: str = NEW,
    bare: bool = False,
    annotations: Mapping[str, Any] | None = None,
) -> RowSQL:
    """Compile ``expression`` over a row of ``model``.

    Args:
        model: whose fields the names refer to.
        expression: a ``Q``, an ``F`` or any expression of Django's.
        row: what a name without ``old__``/``new__`` stands for.
        bare: leave the row's name out, for a place where columns are parameters.
        annotations: named expressions that names may refer to as well.

    Raises:
        Refused: it cannot be compiled, or could not be kept true.
    """
    # What is active where makemigrations runs must not be frozen into a migration.
    with translation.override(None), timezone.override(timezone.get_default_timezone()):
        query = _RowQuery(model, row, bare)
        with _refusing(model, query):
            for name, annotation in (annotations or {}).items():
                query.add_row_annotation(name, annotation)
            resolved = query.resolve(expression)
            _refuse_what_cannot_be_kept(resolved, query)
            return query.compile(resolved)


class _RowQuery(Query):
    """A query whose only tables are the old and the new row of a change."""

    def __init__(self, model: type[models.Model], row: str, bare: bool) -> None:
        super().__init__(model, alias_cols=not bare)
        self.row = row
        self.bare = bare
        for alias in dict.fromkeys((row, *ROWS)):
            self.alias_map[alias] = BaseTable(model._meta.db_table, alias)
            self.alias_refcount[alias] = 1
            self.table_map.setdefault(model._meta.db_table, []).append(alias)

    def chain(self, klass: Any = None) -> Any:
        return super().chain(klass)

    # Names.

    def split_row(self, names: list[str]) -> tuple[str, list[str]]:
        """The row that a path starts from, and the rest of it.

        ``new__amount`` is the new row's amount, unless the model has a field ``new`` for which the
        rest is a lookup.
        """
        first, rest = names[0], names[1:]
        if first not in ROWS or not rest:
            return self.row, names
        is_path = rest[0] == "pk" or rest[0] in _field_names(self.model)
        if not _has_field(self.model, first):
            return first, rest
        if is_path and _has_transform(self.model, first, rest[0]):
            raise Refused(
                "E032",
                f"“{LOOKUP_SEP.join(names)}” can mean the column “{rest[0]}” of the {first} row, and "
                f"“{rest[0]}” inside the field “{first}”.",
                f"Annotate one of them under a name of its own: x=F({first!r}).",
            )
        return (first, rest) if is_path else (self.row, names)

    def solve_lookup_type(self, lookup: str, summarize: bool = False) -> Any:
        parts = lookup.split(LOOKUP_SEP)
        row, rest = (self.row, parts) if parts[0] in self.annotations else self.split_row(parts)
        lookups, field_parts, annotation = super().solve_lookup_type(
            LOOKUP_SEP.join(rest), summarize
        )
        # setup_joins() splits the row off again.
        return lookups, [row, *field_parts] if rest is not parts else field_parts, annotation

    def setup_joins(
        self, names: list[str], opts: Any, alias: str, *args: Any, **kwargs: Any
    ) -> Any:
        if opts.concrete_model is self.model._meta.concrete_model and alias == self.row:
            alias, names = self.split_row(list(names))
        return super().setup_joins(names, opts, alias, *args, **kwargs)

    def resolve_ref(self, name: str, *args: Any, **kwargs: Any) -> Any:
        reference = super().resolve_ref(name, *args, **kwargs)
        target = getattr(reference, "target", None)
        if self.bare and isinstance(reference, Col) and target is not None and target.generated:
            # A generated column has no value before the row is stored: use what it is made from.
            return self.resolve(Cast(target.expression, target.output_field))
        return reference

    def build_lookup(self, lookups: list[str], lhs: Any, rhs: Any) -> Any:
        if lookups in (["df"], ["ndf"]) and getattr(lhs.output_field, "is_relation", False):
            # Django knows no lookups but its own on a relation; its column is a plain value.
            lhs = lhs.copy()
            lhs.output_field = lhs.output_field.target_field
        return super().build_lookup(lookups, lhs, rhs)

    # Resolution and text.

    def add_row_annotation(self, name: str, annotation: Any) -> None:
        if not (hasattr(annotation, "resolve_expression")):
            raise Refused(
                "E029",
                f"{name}={annotation!r} is no expression.",
                did_you_mean(
                    name,
                    ("name", "message", "deferred", "operation"),
                    "Keyword arguments are named expressions: Value(…), F(…), Sum(…).",
                ),
            )
        if _has_field(self.model, name):
            raise Refused(
                "E035",
                f"The annotation “{name}” has the name of a field.",
                "Give the annotation another name.",
            )
        self.annotations[name] = self.resolve(annotation)

    def resolve(self, expression: Any) -> Any:
        if not hasattr(expression, "resolve_expression"):
            raise Refused(
                "E029",
                f"{expression!r} is no expression.",
                "Use F('column'), Value(…), Q(…) or a function of django.db.models.functions.",
            )
        return expression.resolve_expression(self, allow_joins=True, reuse=None)

    def compile(self, resolved: Any) -> RowSQL:
        compiler = _RowCompiler(self, offline.connection(), None)
        try:
            sql, params = compiler.compile(resolved)
        except EmptyResultSet:
            sql, params = "false", ()
        except FullResultSet:
            sql, params = "true", ()
        text = offline.inline(sql, params)
        return RowSQL(text, frozenset(compiler.reads), _output_field(resolved))


class _RowCompiler(SQLCompiler):
    """Quotes every name, on every version of Django, and notes which columns are read."""

    def __init__(self, query: _RowQuery, connection: Any, using: Any) -> None:
        super().__init__(query, connection, using)
        self.reads: set[tuple[str, models.Field[Any, Any]]] = set()

    def quote_name(self, name: str) -> str:
        return self.connection.ops.quote_name(name)

    quote_name_unless_alias = quote_name

    def compile(self, node: Any) -> Any:
        if isinstance(node, Col):
            # pgtrigger.F() writes the rows in capitals.
            row = (node.alias or self.query.row).lower()  # type: ignore[attr-defined]
            self.reads.add((row, node.target))
            node = Col(None if self.query.bare else row, node.target, node.output_field)  # type: ignore[attr-defined]
        return super().compile(node)


def _output_field(resolved: Any) -> models.Field[Any, Any] | None:
    try:
        return getattr(resolved, "_output_field_or_none", None) or resolved.output_field
    except (FieldError, AttributeError, TypeError):
        return None


def _has_field(model: type[models.Model], name: str) -> bool:
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    return True


def _field_names(model: type[models.Model]) -> set[str]:
    names = {field.name for field in model._meta.get_fields()}
    return names | {field.attname for field in model._meta.concrete_fields}


def _has_transform(model: type[models.Model], field: str, name: str) -> bool:
    """Whether ``field__name`` means something: a lookup, a key of a JSON value, a related column."""
    found = model._meta.get_field(field)
    if found.is_relation:
        return name in _field_names(found.related_model)  # type: ignore[arg-type]
    try:
        return bool(found.get_transform(name) or found.get_lookup(name))  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        return False


# What cannot be kept true.


def walk(node: Any) -> Iterator[Any]:
    """A resolved expression and all that it is made of."""
    yield node
    if hasattr(node, "get_source_expressions"):
        for child in node.get_source_expressions():
            if child is not None:
                yield from walk(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from walk(child)


def _refuse_what_cannot_be_kept(resolved: Any, query: _RowQuery) -> None:
    for node in walk(resolved):
        _refuse_node(node)
    for alias, table in query.alias_map.items():
        if isinstance(table, Join) and query.alias_refcount[alias]:
            _refuse_join(table, query)


def _refuse_node(node: Any) -> None:
    described = type(node).__name__
    if getattr(node, "contains_aggregate", False) and not hasattr(node, "children"):
        raise Refused("E022", f"{described} aggregates over other rows.", _ROW_LOCAL_ONLY)
    if isinstance(node, Subquery | Query):
        raise Refused("E023", f"{described} reads other rows.", _ROW_LOCAL_ONLY)
    if getattr(node, "contains_over_clause", False):
        raise Refused("E024", "A window function reads other rows.", _ROW_LOCAL_ONLY)
    if isinstance(node, RawSQL):
        raise Refused(
            "E026",
            "RawSQL hides which columns it reads.",
            "Write it with F() and Func(), or as a pgtrigger.Trigger of your own.",
        )
    if isinstance(node, Now | Random) or (
        isinstance(node, Func)
        and str(node.extra.get("function", node.function)).lower() in _VOLATILE
    ):
        raise Refused(
            "E025",
            f"{described} gives another value each time: what held when the row was written need not "
            "hold a moment later.",
            "Store the value in a column of its own when the row is written, and use that column.",
        )
    if isinstance(node, Cast):
        _refuse_cast(node)


_TIMESTAMP = ("DateTimeField",)
_SESSION_DEPENDENT = ("DateField", "TimeField", "CharField", "TextField")


def _refuse_cast(node: Cast) -> None:
    source = _output_field(node.get_source_expressions()[0])
    if (
        source is not None
        and source.get_internal_type() in _TIMESTAMP
        and node.output_field.get_internal_type() in _SESSION_DEPENDENT
    ):
        raise Refused(
            "E031",
            f"A cast of a date and time to {node.output_field.get_internal_type()} depends on the time zone "
            "of the session that writes.",
            "Name the time zone: TruncDate('column', tzinfo=…) or Extract('column', 'year', tzinfo=…).",
        )


def _refuse_join(join: Join, query: _RowQuery) -> None:
    field = join.join_field
    parents = query.get_meta().all_parents
    if join.table_name in {parent._meta.db_table for parent in parents}:
        raise Refused(
            "E034",
            f"It reads a column of “{join.table_name}”, the table of a parent model: a row there can change "
            "without a change of this one.",
            "Declare the invariant on the parent model, or use columns of the child's own table only.",
        )
    raise Refused(
        "E021",
        f"It spans the relation “{getattr(field, 'name', join.table_name)}”: a change of the related row can "
        "break it.",
        _ROW_LOCAL_ONLY,
    )


class _refusing:
    """Turns what Django raises about an expression into a ``Refused`` with a fix."""

    def __init__(self, model: type[models.Model], query: _RowQuery) -> None:
        self.model = model
        self.query = query

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or isinstance(error, Refused) or not isinstance(error, Exception):
            return
        raise _translated(error, self.model, self.query) from error


def _translated(error: Exception, model: type[models.Model], query: _RowQuery) -> Refused:
    text = str(error)
    known = sorted(_field_names(model) | set(query.annotations))
    if isinstance(error, FieldError) and text.startswith("Cannot resolve keyword"):
        word = text.split("'")[1]
        listed = f"{model._meta.label} has: {', '.join(known)}."
        return Refused(
            "E020", f"{model._meta.label} has no field “{word}”.", did_you_mean(word, known, listed)
        )
    if isinstance(error, FieldError) and "lookup" in text.lower():
        return Refused(
            "E027",
            f"{text}.".replace("..", "."),
            "Use a lookup that the field's type has, or a function.",
        )
    if isinstance(error, FieldError) and "mixed types" in text:
        return Refused(
            "E030", text, "Wrap the expression: ExpressionWrapper(…, output_field=DecimalField())."
        )
    if isinstance(error, ValidationError | ValueError) or (
        isinstance(error, TypeError) and "expected" in text
    ):
        reason = "; ".join(error.messages) if isinstance(error, ValidationError) else text
        return Refused(
            "E028",
            f"A value does not fit the column that it is compared with: {reason}",
            "Write a value of the column's type.",
        )
    return Refused(
        "E030",
        f"Django cannot compile it: {text or type(error).__name__}.",
        "Check that Model.objects.annotate(x=…) or .filter(…) accepts it.",
    )
