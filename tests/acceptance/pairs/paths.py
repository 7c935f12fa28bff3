"""The ways to write of docs/per-row.md, each beside its per-row equivalent.

A path creates, changes or deletes rows. It returns what the caller gets to see: the values of the
instances in hand, or what RETURNING says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.db.models import AutoField
from django.db.models.sql.subqueries import UpdateQuery

from tests.acceptance import per_row
from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, Case, Row, Side

Write = Callable[[Case, Side, list[Row]], Any]


@dataclass(frozen=True)
class Path:
    """One way to write.

    Attributes:
        title: how the documentation calls it.
        kind: what it does to rows.
        bulk: the write itself, on the critical side.
        per_row: its equivalent, on the plain side.
        stored: how many of ``count`` rows are stored before.
    """

    title: str
    kind: str
    bulk: Write
    per_row: Write
    stored: Callable[[int], int]

    def __str__(self) -> str:
        return self.title


def _model(case: Case, m: Side) -> Any:
    return getattr(m, case.model)


def _new(case: Case, m: Side, rows: list[Row]) -> list[Any]:
    return [_model(case, m)(**row) for row in rows]


def _seen(instances: list[Any]) -> list[Row]:
    """What the caller holds, without keys, whose sequences have gaps."""
    return [
        {
            f.attname: getattr(i, f.attname)
            for f in i._meta.concrete_fields
            if not f.is_relation and not f.primary_key
        }
        for i in instances
    ]


def _chosen(case: Case, m: Side) -> Any:
    return _model(case, m).objects.all()


def _listed(case: Case, m: Side) -> list[Any]:
    return list(_chosen(case, m).order_by("pk"))


def _execute(text: str, params: Any = None, *, many: bool = False) -> list[Any]:
    with connection.cursor() as cursor:
        (cursor.executemany if many else cursor.execute)(text, params)
        return cursor.fetchall() if cursor.description and not many else []


# Creating.


def _save_each(case, m, rows):
    instances = _new(case, m, rows)
    for instance in instances:
        instance.save()
    return _seen(instances)


def _bulk_create(case, m, rows):
    instances = _new(case, m, rows)
    _model(case, m).objects.bulk_create(instances)
    return _seen(instances)


def _bulk_create_per_row(case, m, rows):
    instances = _new(case, m, rows)
    per_row.bulk_create(instances)
    return _seen(instances)


def _with_keys(write):
    def keyed(case, m, rows):
        return write(case, m, [{**row, "id": case.key(n)} for n, row in enumerate(rows)])

    return keyed


def with_codes(case: Case, m: Side, rows: list[Row]) -> list[Row]:
    """Add the value that distinguishes rows, if the model has a field for it."""
    if all(field.name != "code" for field in _model(case, m)._meta.fields):
        return rows
    return [{**row, "code": 1_000 + n} for n, row in enumerate(rows)]


def _conflicting(write):
    """Rows with codes and the values of ``Case.new``; the first half is stored already."""

    def conflict(case, m, rows):
        return write(
            case, m, [row | case.new(n) for n, row in enumerate(with_codes(case, m, rows))]
        )

    return conflict


def _upsert(case, m, rows):
    _model(case, m).objects.bulk_create(
        _new(case, m, rows),
        update_conflicts=True,
        unique_fields=["code"],
        update_fields=list(case.new(0)),
    )


def _upsert_per_row(case, m, rows):
    per_row.upsert(_new(case, m, rows), ["code"], list(case.new(0)))


def _ignore(case, m, rows):
    _model(case, m).objects.bulk_create(_new(case, m, rows), ignore_conflicts=True)


def _ignore_per_row(case, m, rows):
    per_row.insert_or_ignore(_new(case, m, rows))


def _columns(model: Any) -> list[Any]:
    """The fields of the table, without a key that the database generates."""
    fields = model._meta.concrete_model._meta.local_concrete_fields
    return [f for f in fields if not isinstance(f, AutoField)]


def _params(fields: list[Any], instance: Any) -> list[Any]:
    return [f.get_db_prep_save(getattr(instance, f.attname), connection) for f in fields]


def _insert(case, m, rows):
    model = _model(case, m)
    fields = _columns(model)
    names = ", ".join(f'"{f.column}"' for f in fields)
    one = f"({', '.join(['%s'] * len(fields))})"
    _execute(
        f"INSERT INTO {model._meta.db_table} ({names}) VALUES {', '.join([one] * len(rows))}",
        [param for instance in _new(case, m, rows) for param in _params(fields, instance)],
    )


def _insert_per_row(case, m, rows):
    per_row.bulk_create(_new(case, m, rows))


def _record(instance: Any) -> Row:
    return {
        f.column: f.get_prep_value(getattr(instance, f.attname)) for f in _columns(type(instance))
    }


def _as_json(instances: list[Any]) -> str:
    return json.dumps([_record(instance) for instance in instances], cls=DjangoJSONEncoder)


def _insert_select(case, m, rows):
    model = _model(case, m)
    table, names = model._meta.db_table, [f'"{f.column}"' for f in _columns(model)]
    return _execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(names)} "
        f"FROM jsonb_populate_recordset(NULL::{table}, %s) "
        f"RETURNING {', '.join(_returning(model))}",
        [_as_json(_new(case, m, rows))],
    )


def _returning(model):
    """The columns whose Django values equal the driver's."""
    return [f.column for f in _columns(model) if f.get_internal_type() != "JSONField"]


def _insert_select_per_row(case, m, rows):
    instances, records = _new(case, m, rows), []
    for instance in instances:
        _record_insert(instance, records)
    per_row.bulk_create(instances)
    names = _returning(_model(case, m))
    return [tuple(record[name] for name in names) for record in records]


def _record_insert(instance: Any, records: list[Row]) -> None:
    """Note the row as RETURNING sees it: as stored, before ``post_save`` runs."""
    depth = 0
    save, store = instance.save_base, instance._save_table

    def save_base(*args, **options):
        nonlocal depth
        depth += 1
        try:
            return save(*args, **options)
        finally:
            depth -= 1

    def save_table(*args, **options):
        stored = store(*args, **options)
        if depth == 1:
            # A trigger may have changed the row. A receiver's own save() is another statement.
            records.append(_record(type(instance)._base_manager.get(pk=instance.pk)))
        return stored

    instance.save_base, instance._save_table = save_base, save_table


def _merge(case, m, rows):
    model = _model(case, m)
    table, names = model._meta.db_table, [f'"{f.column}"' for f in _columns(model)]
    assigned = ", ".join(f'"{name}" = s."{name}"' for name in case.new(0))
    # A nested loop takes the rows in the order of the source. ``sides.empty()`` resets this.
    _execute("SET enable_hashjoin = off; SET enable_mergejoin = off")
    _execute(
        f"MERGE INTO {table} AS t USING jsonb_populate_recordset(NULL::{table}, %s) AS s "
        f"ON t.code = s.code WHEN MATCHED THEN UPDATE SET {assigned} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) "
        f"VALUES ({', '.join(f's.{name}' for name in names)})",
        [_as_json(_new(case, m, rows))],
    )


def _merge_per_row(case, m, rows):
    instances = _new(case, m, rows)
    manager = _model(case, m)._base_manager
    matched = dict(manager.filter(code__in=[i.code for i in instances]).values_list("code", "pk"))
    for instance in instances:
        if instance.code not in matched:
            instance.save()
            continue
        stored = manager.filter(pk=matched[instance.code]).first()
        if stored is not None:
            per_row.update_changed(stored, {n: getattr(instance, n) for n in case.new(0)})


# Changing.


def _changed(case, m):
    instances = _listed(case, m)
    for n, instance in enumerate(instances):
        for name, value in case.new(n).items():
            setattr(instance, name, value)
    return instances


def _save_changed(case, m, rows):
    instances = _changed(case, m)
    for instance in instances:
        instance.save()
    return _seen(instances)


def _bulk_update(case, m, rows):
    instances = _changed(case, m)
    _model(case, m).objects.bulk_update(instances, list(case.new(0)))
    return _seen(instances)


def _bulk_update_per_row(case, m, rows):
    instances = _changed(case, m)
    per_row.bulk_update(instances, list(case.new(0)))
    return _seen(instances)


def _update(case, m, rows):
    return _chosen(case, m).update(**case.values)


def _update_per_row(case, m, rows):
    return per_row.update(_chosen(case, m), **case.values)


def _update_by_sql(case, m, rows):
    query = _chosen(case, m).query.chain(UpdateQuery)
    query.add_update_values(case.values)
    _execute(*query.get_compiler("default").as_sql())


def _update_by_sql_per_row(case, m, rows):
    per_row.raw_update(_chosen(case, m), **case.values)


def _update_many(case, m, rows):
    model, new = _model(case, m), case.new(0)
    fields = [model._meta.get_field(name) for name in new]
    assigned = ", ".join(f'"{f.column}" = %s' for f in fields)
    _execute(
        f"UPDATE {model._meta.db_table} SET {assigned} WHERE {model._meta.pk.column} = %s",
        [[*_params(fields, instance), instance.pk] for instance in _changed(case, m)],
        many=True,
    )


def _update_many_per_row(case, m, rows):
    manager = _model(case, m)._base_manager
    for n, instance in enumerate(_listed(case, m)):
        stored = manager.filter(pk=instance.pk).first()
        if stored is not None:
            per_row.update_changed(stored, case.new(n))


# Deleting.


def _delete_each(case, m, rows):
    for instance in _listed(case, m):
        instance.delete()


def _delete(case, m, rows):
    return _chosen(case, m).delete()[0]


def _delete_by_sql(case, m, rows):
    model = _model(case, m)
    keys = list(_chosen(case, m).values_list("pk", flat=True))
    _execute(f"DELETE FROM {model._meta.db_table} WHERE {model._meta.pk.column} = ANY (%s)", [keys])


def _raw_delete(case, m, rows):
    queryset = _chosen(case, m)
    queryset._raw_delete(queryset.db)


def _raw_delete_per_row(case, m, rows):
    per_row.raw_delete(_chosen(case, m))


def _none(count: int) -> int:
    return 0


def _half(count: int) -> int:
    return (count + 1) // 2


def _all(count: int) -> int:
    return count


PATHS = [
    Path("save()", CREATE, _save_each, _save_each, _none),
    Path("bulk_create()", CREATE, _bulk_create, _bulk_create_per_row, _none),
    Path(
        "bulk_create(), keys given",
        CREATE,
        _with_keys(_bulk_create),
        _with_keys(_bulk_create_per_row),
        _none,
    ),
    Path(
        "bulk_create(update_conflicts=True)",
        CREATE,
        _conflicting(_upsert),
        _conflicting(_upsert_per_row),
        _half,
    ),
    Path(
        "bulk_create(ignore_conflicts=True)",
        CREATE,
        _conflicting(_ignore),
        _conflicting(_ignore_per_row),
        _half,
    ),
    Path("INSERT", CREATE, _insert, _insert_per_row, _none),
    Path("INSERT … SELECT", CREATE, _insert_select, _insert_select_per_row, _none),
    Path("MERGE", CREATE, _conflicting(_merge), _conflicting(_merge_per_row), _half),
    Path("save() again", UPDATE, _save_changed, _save_changed, _all),
    Path("bulk_update()", UPDATE, _bulk_update, _bulk_update_per_row, _all),
    Path("update()", UPDATE, _update, _update_per_row, _all),
    Path("UPDATE", UPDATE, _update_by_sql, _update_by_sql_per_row, _all),
    Path("UPDATE, executemany()", UPDATE, _update_many, _update_many_per_row, _all),
    Path("instance.delete()", DELETE, _delete_each, _delete_each, _all),
    Path("delete()", DELETE, _delete, _delete, _all),
    Path("DELETE", DELETE, _delete_by_sql, _raw_delete_per_row, _all),
    Path("_raw_delete()", DELETE, _raw_delete, _raw_delete_per_row, _all),
]
