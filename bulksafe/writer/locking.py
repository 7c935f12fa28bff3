"""Locks the rows of a rolled-back write again, and checks that they are unchanged.

The rollback releases their locks. Changes that other transactions commit in between must not be
overwritten.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.db import connections

from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.images import Table, stored_fields
from bulksafe.own_cursor import own_cursor
from bulksafe.planning.images import row_as_json
from bulksafe.rendering import quoting
from bulksafe.writer.storing import batches, placeholder

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from django.db.models import Model

    from bulksafe.writer.changes import InlineChange

#: The part of a row in one table, by its key.
_Parts = dict[tuple[Any, ...], str]


def lock(changes: Sequence[InlineChange], using: str) -> bool:
    """Lock the stored rows against changes by other transactions.

    Args:
        changes: the changes of the rolled-back write, in their order.

    Returns:
        whether all rows are unchanged.
    """
    found: dict[Hashable, InlineChange] = {}
    for change in changes:
        if not change.created:
            # The first change of a row starts from the stored state.
            found.setdefault(change.row, change)
    made = {change.new_row for change in changes if change.created}
    parts: dict[type[Model], _Parts] = defaultdict(dict)
    for row, change in found.items():
        if row not in made:
            for table, key, values in _parts(change):
                parts[table][key] = values
    # Parents first, as save() does it.
    tables = sorted(parts, key=lambda table: len(lineage(table)))
    # The same lock as the write: referring rows may be inserted if the keys do not change.
    keeps_keys = all(one.new_row == one.row for one in changes if not (one.created or one.deleted))
    is_weak = keeps_keys and not any(one.deleted for one in changes)
    for table in tables:
        _lock(table, list(parts[table]), using, "NO KEY UPDATE" if is_weak else "UPDATE")
    return all(_read(table, list(parts[table]), using) == parts[table] for table in tables)


def _parts(change: InlineChange) -> Iterator[tuple[type[Model], tuple[Any, ...], str]]:
    image = change.old_image
    assert image is not None  # noqa: S101
    converted = dict(zip(image.table.attnames, image.table.converted(image.values), strict=True))
    raw = dict(zip(image.table.attnames, image.values, strict=True))
    for table in lineage(change.model):
        key = tuple(converted[one.attname] for one in table._meta.pk_fields)
        # Skip a parent's part that is already deleted.
        if None not in key:
            yield table, key, _as_text(raw[one.attname] for one in _columns(table))


def _columns(table: type[Model]) -> list[Any]:
    return stored_fields(table._meta.local_concrete_fields)


def _as_text(values: Iterable[Any]) -> str:
    """As text: a NaN equals no other."""
    return repr(tuple(values))


def _lock(table: type[Model], keys: Sequence[tuple[Any, ...]], using: str, strength: str) -> None:
    """Lock rows in the order of the given keys, in which the write locked them too."""
    names = [quoting.identifier(one.column) for one in _keys(table)]
    matched = " AND ".join(f"t.{name} = k.k{n}" for n, name in enumerate(names))
    relation = quoting.relation(table._meta.db_table)
    tail = f" ON {matched} ORDER BY k.place FOR {strength} OF t".replace("%", "%%")
    head = f"SELECT 1 FROM {relation} AS t JOIN ".replace("%", "%%")  # noqa: S608
    for listed, params in _listed(table, keys, using):
        _rows(f"{head}{listed}{tail}", params, using)


def _read(table: type[Model], keys: Sequence[tuple[Any, ...]], using: str) -> _Parts:
    """The rows' parts, converted via JSON like the images of a change."""
    names = [quoting.identifier(one.column) for one in _keys(table)]
    columns = [quoting.identifier(str(one.column)) for one in _columns(table)]
    matched = " AND ".join(f"t.{name} = k.k{n}" for n, name in enumerate(names))
    relation, image = quoting.relation(table._meta.db_table), row_as_json(table, "t")
    selected = ", ".join([*(f"t.{one}" for one in names), *(f"r.{one}" for one in columns)])
    head = f"SELECT {selected} FROM {relation} AS t JOIN ".replace("%", "%%")  # noqa: S608
    tail = (
        f" ON {matched} CROSS JOIN LATERAL jsonb_populate_record(NULL::{relation}, {image}) AS r"
    ).replace("%", "%%")
    convert = Table(table, using).converter(_keys(table))
    found: _Parts = {}
    for listed, params in _listed(table, keys, using):
        for row in _rows(f"{head}{listed}{tail}", params, using):
            key = tuple(convert(row[: len(names)]))
            found[key] = _as_text(row[len(names) :])
    return found


def _keys(table: type[Model]) -> Sequence[Any]:
    found: Sequence[Any] = table._meta.pk_fields
    return found


def _listed(
    table: type[Model], keys: Sequence[tuple[Any, ...]], using: str
) -> Iterator[tuple[str, list[Any]]]:
    """The keys as a relation ``k`` of SQL with its parameters, some thousand at a time."""
    connection = connections[using]
    fields = _keys(table)
    columns = ", ".join([*(f"k{number}" for number in range(len(fields))), "place"])
    for batch in batches(keys, len(fields)):
        texts, params = [], []
        for place, key in enumerate(batch):
            pairs = list(zip(fields, key, strict=True))
            values = ", ".join(placeholder(one, value, connection) for one, value in pairs)
            texts.append(f"({values}, {place})")
            params += [one.get_db_prep_value(value, connection) for one, value in pairs]
        yield f"(VALUES {', '.join(texts)}) AS k ({columns})", params


def _rows(text: str, params: Sequence[Any], using: str) -> list[tuple[Any, ...]]:
    connection = connections[using]
    with own_cursor(connection) as cursor:
        cursor.execute(text, params)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
