"""Looks up and locks the stored rows of objects."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import connections

from bulksafe.dispatch.images import Table
from bulksafe.hidden import hidden
from bulksafe.rendering import quoting
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.storing import batches, placeholder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.models import Field, Model

#: The names of parts of the query, which no table can have.
_GIVEN, _STORED = '"bulksafe given"', '"bulksafe stored"'


@dataclass
class Matches:
    """The result of a look-up.

    Attributes:
        rows: the stored rows, by the places of their objects.
        repeated: the places of objects that conflict with an object before them.
        stored: the same rows.
    """

    rows: dict[int, Model] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    stored: set[Model] = field(default_factory=set)


def find(
    model: type[Model], unique: Sequence[Field[Any, Any]], objects: Mapping[int, Model], using: str
) -> Matches:
    """Look up the rows of some objects by their unique fields, and lock them.

    The database compares what it would store: a field may convert its value, a column round it, and
    a collation take different texts for equal.

    Args:
        unique: the fields that identify a row.
        objects: by their places.
    """
    found = Matches()
    has_nulls = _takes_nulls_for_equal(model, unique)
    groups: dict[tuple[bool, ...], list[tuple[int, list[Any]]]] = defaultdict(list)
    for place, instance in objects.items():
        values = _stored_values(instance, unique, using)
        if values is not None:
            nulls = tuple(value is None for value in values)
            if has_nulls or not any(nulls):
                groups[nulls].append((place, values))
    for nulls, listed in groups.items():
        pairs = zip(unique, nulls, strict=True)
        _find(model, [(one, is_null) for one, is_null in pairs], listed, using, found)
    return found


def _takes_nulls_for_equal(model: type[Model], unique: Sequence[Field[Any, Any]]) -> bool:
    names = {one.name for one in unique}
    return any(
        getattr(constraint, "nulls_distinct", None) is False
        and set(getattr(constraint, "fields", ())) == names
        for constraint in model._meta.constraints
    )


def _stored_values(
    instance: Model, unique: Sequence[Field[Any, Any]], using: str
) -> list[Any] | None:
    """What an INSERT would store in the unique fields; None if that is not known before it."""
    values = []
    for one in unique:
        value = getattr(instance, one.attname)
        if hasattr(value, "resolve_expression"):
            return None
        try:
            values.append(one.get_db_prep_save(value, connections[using]))
        except (ValidationError, TypeError, ValueError):
            # The INSERT raises it, unless a receiver assigns something else.
            return None
    return values


def _find(
    model: type[Model],
    unique: Sequence[tuple[Field[Any, Any], bool]],
    objects: Sequence[tuple[int, list[Any]]],
    using: str,
    found: Matches,
) -> None:
    """Look up objects with the same fields without a value."""
    connection = connections[using]
    relation = quoting.relation(model._meta.db_table)
    given = [one for one, is_null in unique if not is_null]
    columns = [quoting.identifier(str(one.column)) for one in given]
    aliases = [f"v{number}" for number in range(len(given))]
    matched = [f"t.{name} = v.{alias}" for name, alias in zip(columns, aliases, strict=True)]
    matched += [
        f"t.{quoting.identifier(str(one.column))} IS NULL" for one, is_null in unique if is_null
    ]
    fields = [quoting.identifier(str(one.column)) for one in model._meta.concrete_fields]
    taken = "".join(f", t.{name} AS c{number}" for number, name in enumerate(fields))
    shown = "".join(f"s.c{number}, " for number in range(len(fields)))
    partition = f"PARTITION BY {', '.join(aliases)}" if aliases else ""
    # The first branch gives the values the collations of the columns. A text that begins with WITH
    # would be taken for a write.
    head = (
        f"SELECT * FROM (WITH {_GIVEN} AS ("  # noqa: S608
        f"SELECT *, pg_catalog.min(n) OVER ({partition}) AS first FROM ("
        f"SELECT {', '.join(['NULL::pg_catalog.int4', *columns])} FROM {relation} WHERE false "
        "UNION ALL VALUES "
    ).replace("%", "%%")
    tail = (
        f") AS u ({', '.join(['n', *aliases])})), "  # noqa: S608
        f"{_STORED} AS (SELECT v.n{taken} FROM {_GIVEN} AS v "
        f"JOIN {relation} AS t ON {' AND '.join(matched)} ORDER BY v.n FOR NO KEY UPDATE OF t) "
        f"SELECT {shown}v.n, v.first, s.n IS NOT NULL AS is_stored FROM {_GIVEN} AS v "
        f"LEFT JOIN {_STORED} AS s ON s.n = v.n WHERE s.n IS NOT NULL OR v.first <> v.n "
        "ORDER BY v.n) AS found"
    ).replace("%", "%%")
    for batch in batches(objects, len(given) + 1):
        texts: list[str] = []
        params: list[Any] = []
        for number, (_, values) in enumerate(batch):
            stored = [value for value in values if value is not None]
            pairs = zip(given, stored, strict=True)
            casts = [placeholder(one, value, connection) for one, value in pairs]
            texts.append(f"({', '.join([str(number), *casts])})")
            params += stored
        with hidden(connection), connection.cursor() as cursor:
            cursor.execute(f"{head}{', '.join(texts)}{tail}", params)
            _take(model, cursor.fetchall(), [place for place, _ in batch], using, found)


def _take(
    model: type[Model],
    rows: Sequence[tuple[Any, ...]],
    places: Sequence[int],
    using: str,
    found: Matches,
) -> None:
    fields = model._meta.concrete_fields
    convert = Table(model, using).converter(fields)
    names = [one.attname for one in fields]
    for *values, number, first, is_stored in rows:
        row = model.from_db(using, names, convert(tuple(values))) if is_stored else None
        if number != first or (row is not None and row in found.stored):
            found.repeated.add(places[number])
        elif row is not None:
            found.rows[places[number]] = row
            found.stored.add(row)


def without_rows(model: type[Model], instances: Sequence[Model], using: str) -> frozenset[int]:
    """The ``id()`` of objects whose keys are not stored. Locks the stored rows."""
    keys = {id(one): key_of_instance(one) for one in instances}
    rows = model._base_manager.using(using).select_for_update(no_key=True).only("pk")
    listed = batches(dict.fromkeys(keys.values()), len(model._meta.pk_fields))
    with hidden(connections[using]):
        stored = {row.pk for batch in listed for row in rows.filter(pk__in=batch)}
    return frozenset(one for one, key in keys.items() if key not in stored)
