"""Django expressions as SQL over the old and the new row of a change.

The query machinery that resolves expressions in a ``SELECT`` resolves them here; names refer to the
rows ``new`` and ``old`` instead of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Col
from django.db.models.functions import Cast
from django.db.models.sql import Query
from django.db.models.sql.datastructures import BaseTable, Join
from django.utils import timezone, translation

from bulksafe.planning import fields, offline, refusals
from bulksafe.planning.nodes import is_expression, output_field
from bulksafe.planning.problems import Refused, did_you_mean, shown
from bulksafe.planning.row_compiler import RowCompiler

if TYPE_CHECKING:
    from types import TracebackType

    from django.db.models import Expression, Lookup
    from django.db.models.options import Options
    from django.db.models.sql.query import JoinInfo

    from bulksafe.planning.nodes import Resolved


OLD = "old"
NEW = "new"
ROWS = (OLD, NEW)


@dataclass(frozen=True)
class RowSQL:
    """An expression over one change of a row.

    Attributes:
        sql: the text; columns are ``"new"."amount"``, or bare if requested.
        reads: the (row, field) pairs that it depends on.
        output_field: the type of its value, if Django can determine it.
    """

    sql: str
    reads: frozenset[tuple[str, models.Field[Any, Any]]]
    output_field: models.Field[Any, Any] | None

    def rows(self) -> set[str]:
        return {row for row, _ in self.reads}


def compile_expression(
    model: type[models.Model],
    expression: object,
    *,
    row: str = NEW,
    bare: bool = False,
    annotations: Mapping[str, object] | None = None,
    missing: str | None = None,
    before: bool = False,
) -> RowSQL:
    """Compile ``expression`` over a row of ``model``.

    Args:
        model: the model whose fields the names refer to.
        expression: a ``Q``, an ``F`` or any expression of Django's.
        row: the row for names without ``old__``/``new__``.
        bare: omit the row's name, for use where columns are parameters.
        annotations: named expressions that names may also refer to.
        missing: the row that the operation lacks, if any. A test of it is false, and its negation
            true.
        before: read the old row wherever the new one is named.

    Raises:
        Refused: it cannot be compiled or enforced.
    """
    # The active time zone and language of makemigrations must not be frozen into a migration.
    with translation.override(None), timezone.override(timezone.get_default_timezone()):
        query = _RowQuery(model, row, bare, missing, before)
        with _Refusing(model, query):
            for name, annotation in (annotations or {}).items():
                query.add_row_annotation(name, annotation)
            resolved = query.resolve(expression)
            _refuse_what_cannot_be_kept(resolved, query)
            return query.compile(resolved)


class _RowQuery(Query):
    """A query whose only tables are the old and the new row of a change."""

    model: type[models.Model]
    #: Includes conditions, which the stubs omit.
    annotations: dict[str, Any]

    def __init__(
        self, model: type[models.Model], row: str, bare: bool, missing: str | None, before: bool
    ) -> None:
        super().__init__(model)
        self.row = row
        self.bare = bare
        self.missing = missing
        self.before = before
        for alias in dict.fromkeys((row, *ROWS)):
            self.alias_map[alias] = BaseTable(model._meta.db_table, alias)
            self.alias_refcount[alias] = 1
            self.table_map.setdefault(model._meta.db_table, []).append(alias)

    # Names.

    def split_row(self, names: list[str]) -> tuple[str, list[str]]:
        """The row of a path, and the rest of the path.

        ``new__amount`` is the new row's amount, unless the model has a field ``new`` for which the
        rest is a lookup.
        """
        first, rest = names[0], names[1:]
        if first not in ROWS or not rest:
            return self.row, names
        is_path = rest[0] == "pk" or rest[0] in fields.names_of(self.model)
        if not fields.has_field(self.model, first):
            return first, rest
        if is_path and _has_transform(self.model, first, rest[0]):
            raise Refused(
                "E032",
                f"“{LOOKUP_SEP.join(names)}” can mean the column “{rest[0]}” of the {first} row, "
                f"and “{rest[0]}” inside the field “{first}”.",
                f"Annotate one of them under a name of its own: x=F({first!r}).",
            )
        return (first, rest) if is_path else (self.row, names)

    def solve_lookup_type(
        self, lookup: str, summarize: bool = False
    ) -> tuple[Sequence[str], Sequence[str], Expression | Literal[False]]:
        parts = lookup.split(LOOKUP_SEP)
        row, rest = (self.row, parts) if parts[0] in self.annotations else self.split_row(parts)
        lookups, field_parts, annotation = super().solve_lookup_type(
            LOOKUP_SEP.join(rest), summarize
        )
        # setup_joins() splits the row off again.
        return lookups, [row, *field_parts] if rest is not parts else field_parts, annotation

    def setup_joins(
        self, names: Sequence[str], opts: Options[Any], alias: str, *args: Any, **kwargs: Any
    ) -> JoinInfo:
        if opts.concrete_model is self.model._meta.concrete_model and alias == self.row:
            alias, names = self.split_row(list(names))
        return super().setup_joins(names, opts, alias, *args, **kwargs)

    def resolve_ref(self, name: str, *args: Any, **kwargs: Any) -> Expression:
        reference = super().resolve_ref(name, *args, **kwargs)
        target = getattr(reference, "target", None)
        is_new = isinstance(reference, Col) and reference.alias == self.row
        if self.bare and is_new and target is not None and target.generated:
            # A generated column has no value before the row is stored: use its expression.
            computed = Cast(target.expression, target.output_field)
            return computed.resolve_expression(self, allow_joins=True, reuse=None)
        return reference

    def build_lookup(self, lookups: Sequence[str], lhs: Any, rhs: object) -> Lookup[Any]:
        if list(lookups) in (["df"], ["ndf"]) and getattr(lhs.output_field, "is_relation", False):
            # Relations support only Django's own lookups; the column of a relation is a plain
            # value.
            lhs = lhs.copy()
            lhs.output_field = lhs.output_field.target_field
        refusals.refuse_operand(lhs, list(lookups), rhs)
        return super().build_lookup(lookups, lhs, rhs)

    # Resolution and text.

    def resolve_lookup_value(self, value: object, *args: Any, **kwargs: Any) -> object:
        if isinstance(value, set | frozenset):
            # Set order differs between processes, and the migration would differ.
            value = sorted(value, key=repr)
        return super().resolve_lookup_value(value, *args, **kwargs)

    def add_row_annotation(self, name: str, annotation: object) -> None:
        if not is_expression(annotation):
            raise Refused(
                "E029",
                f"{name}={shown(annotation)} is not an expression.",
                did_you_mean(
                    name,
                    ("name", "message", "deferred", "operation", "mode"),
                    "Keyword arguments are named expressions: Value(…), F(…), Sum(…).",
                ),
            )
        if fields.has_field(self.model, name):
            raise Refused(
                "E035",
                f"The annotation “{name}” has the name of a field.",
                "Give the annotation a different name.",
            )
        self.annotations[name] = self.resolve(annotation)

    def resolve(self, expression: object) -> Resolved:
        if not is_expression(expression):
            raise Refused(
                "E029",
                f"{shown(expression)} is not an expression.",
                "Use F('column'), Value(…), Q(…) or a function of django.db.models.functions.",
            )
        return expression.resolve_expression(self, allow_joins=True, reuse=None)

    def compile(self, resolved: Resolved) -> RowSQL:
        compiler = RowCompiler(self, offline.connection(), None)
        try:
            sql, params = compiler.compile(resolved)
        except EmptyResultSet:
            sql, params = "false", ()
        except FullResultSet:
            sql, params = "true", ()
        refusals.refuse_volatile_text(sql)
        text = offline.inline(sql, params)
        return RowSQL(text, frozenset(compiler.reads), output_field(resolved))


def _has_transform(model: type[models.Model], field: str, name: str) -> bool:
    """Whether ``field__name`` resolves: a lookup, a JSON key, a related column."""
    found = model._meta.get_field(field)
    if found.is_relation:
        return name in fields.names_of(found.related_model)  # type: ignore[arg-type]
    try:
        return bool(found.get_transform(name) or found.get_lookup(name))
    except (AttributeError, ValueError):
        return False


def _refuse_what_cannot_be_kept(resolved: object, query: _RowQuery) -> None:
    for expression in (*query.annotations.values(), resolved):
        refusals.refuse_nodes(expression)
    for alias, table in query.alias_map.items():
        if isinstance(table, Join) and query.alias_refcount[alias]:
            refusals.refuse_join(table, query.get_meta().all_parents)


class _Refusing:
    """Turns Django's errors about an expression into a ``Refused`` with a fix."""

    def __init__(self, model: type[models.Model], query: _RowQuery) -> None:
        self.model = model
        self.query = query

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, Refused) or not isinstance(error, Exception):
            return
        raise refusals.translated(error, self.model, self.query.annotations) from error
