"""Ways to write to the critical side of the mirrored library, by what they are called.

Each does at once what the other side has done to it row by row. See
``tests/acceptance/test_inline_state_machine.py``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.db.models import Case, F, Value, When

from tests.apps.mirrors.receivers import Side

Row = dict[str, Any]

plain, critical = Side("Plain"), Side("Critical")

ENTRIES = "mirrors_criticalentry"
LINKS = "mirrors_criticalentry_tags"
SHELVES = "mirrors_criticalshelf"


def execute(text: str, params: Any = None, *, many: bool = False) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        (cursor.executemany if many else cursor.execute)(text, params)
        return cursor.fetchall() if cursor.description and not many else []


# Rows.

DEFAULTS: Row = {
    "name": "",
    "slug": "",
    "position": 0,
    "state": "draft",
    "amount": 0,
    "version": 0,
    "data": {},
    "shelf_id": None,
    "box_id": None,
}
COLUMNS = ("number", *DEFAULTS)


def made(side: Side, row: Row) -> Any:
    return side.Entry(**copy.deepcopy(row))


def assign(instance: Any, values: Row) -> None:
    for name, value in values.items():
        setattr(instance, name, copy.deepcopy(value))


def field_names(values: Row) -> list[str]:
    return [name.removesuffix("_id") for name in values]


def entries(side: Side, numbers: list[int]) -> list[Any]:
    """The entries of these numbers, in their order."""
    found = {entry.number: entry for entry in side.Entry.objects.filter(number__in=numbers)}
    return [found[number] for number in numbers]


def chosen(numbers: list[int]) -> Any:
    return critical.Entry.objects.filter(number__in=numbers)


def _params(values: Row) -> list[Any]:
    return [json.dumps(value) if name == "data" else value for name, value in values.items()]


def _params_of_row(row: Row) -> list[Any]:
    whole = DEFAULTS | row
    return _params({name: whole[name] for name in COLUMNS})


def _set(values: Row) -> str:
    return ", ".join(f"{name} = %s" for name in values)


# Creating entries.

_INSERT = f"INSERT INTO {ENTRIES} ({', '.join(COLUMNS)})"
_ONE = f"({', '.join(['%s'] * len(COLUMNS))})"


def bulk_create(rows: list[Row], **options: Any) -> list[Any]:
    instances = [made(critical, row) for row in rows]
    assert critical.Entry.objects.bulk_create(instances, **options) == instances
    return instances


def bulk_create_in_batches(rows: list[Row]) -> list[Any]:
    return bulk_create(rows, batch_size=2)


def create_each(rows: list[Row]) -> None:
    for row in rows:
        made(critical, row).save()


def insert(rows: list[Row], tail: str = "") -> None:
    params = [param for row in rows for param in _params_of_row(row)]
    execute(f"{_INSERT} VALUES {', '.join([_ONE] * len(rows))} {tail}", params)


def insert_many(rows: list[Row]) -> None:
    execute(f"{_INSERT} VALUES {_ONE}", [_params_of_row(row) for row in rows], many=True)


def insert_from_cte(rows: list[Row]) -> None:
    given = json.dumps([DEFAULTS | row for row in rows])
    returned = execute(
        f"WITH given AS (SELECT * FROM jsonb_populate_recordset(NULL::{ENTRIES}, %s)) "
        f"{_INSERT} SELECT {', '.join(COLUMNS)} FROM given RETURNING number",
        [given],
    )
    assert returned == [(row["number"],) for row in rows]


#: What the caller holds afterwards is returned, if it holds anything.
CREATING: dict[str, Callable[[list[Row]], list[Any] | None]] = {
    "bulk_create": bulk_create,
    "bulk_create in batches": bulk_create_in_batches,
    "create": create_each,
    "INSERT": insert,
    "INSERT, executemany": insert_many,
    "INSERT, CTE": insert_from_cte,
}

#: What an upsert updates.
UPSERTED = ("amount", "state")


def upsert(rows: list[Row]) -> None:
    bulk_create(rows, update_conflicts=True, unique_fields=["number"], update_fields=UPSERTED)


def insert_or_update(rows: list[Row]) -> None:
    assigned = ", ".join(f"{name} = excluded.{name}" for name in UPSERTED)
    insert(rows, f"ON CONFLICT (number) DO UPDATE SET {assigned}")


def ignore(rows: list[Row]) -> None:
    bulk_create(rows, ignore_conflicts=True)


def insert_or_nothing(rows: list[Row]) -> None:
    insert(rows, "ON CONFLICT DO NOTHING")


#: What becomes of a row whose number is taken, and how it is written.
CREATING_AGAIN: dict[str, tuple[str, Callable[[list[Row]], None]]] = {
    "update_conflicts": ("updated", upsert),
    "INSERT … DO UPDATE": ("updated", insert_or_update),
    "ignore_conflicts": ("ignored", ignore),
    "INSERT … DO NOTHING": ("ignored", insert_or_nothing),
    "bulk_create": ("refused", bulk_create),
    "INSERT": ("refused", insert),
}


# Updating entries.


def update(numbers: list[int], values: Row) -> None:
    assert chosen(numbers).update(**values) == len(numbers)


def update_f(numbers: list[int], values: Row) -> None:
    """Count the amount up, whatever the values are."""
    chosen(numbers).update(amount=F("amount") + 1)


def update_with_case(numbers: list[int], values: Row) -> None:
    fields = {name: critical.Entry._meta.get_field(name) for name in values}
    cases = {
        name: Case(
            *(When(number=number, then=Value(value, fields[name])) for number in numbers),
            default=F(name),
            output_field=fields[name],
        )
        for name, value in values.items()
    }
    chosen(numbers).update(**cases)


def bulk_update(numbers: list[int], values: Row) -> None:
    listed = list(chosen(numbers).order_by("pk"))
    for instance in listed:
        assign(instance, values)
    assert critical.Entry.objects.bulk_update(listed, field_names(values)) == len(numbers)


def save_each(numbers: list[int], values: Row) -> None:
    for instance in chosen(numbers).order_by("pk"):
        assign(instance, values)
        instance.save()


def save_fields(numbers: list[int], values: Row) -> None:
    for instance in chosen(numbers).order_by("pk"):
        assign(instance, values)
        instance.save(update_fields=field_names(values))


def update_by_sql(numbers: list[int], values: Row) -> None:
    returned = execute(
        f"UPDATE {ENTRIES} SET {_set(values)} WHERE number = ANY (%s) RETURNING id",
        [*_params(values), numbers],
    )
    assert len(returned) == len(numbers)


def update_many(numbers: list[int], values: Row) -> None:
    execute(
        f"UPDATE {ENTRIES} SET {_set(values)} WHERE number = %s",
        [[*_params(values), number] for number in numbers],
        many=True,
    )


def update_from_cte(numbers: list[int], values: Row) -> None:
    returned = execute(
        f"WITH these AS (SELECT id FROM {ENTRIES} WHERE number = ANY (%s)), "
        f"done AS (UPDATE {ENTRIES} AS e SET {_set(values)} FROM these "
        "WHERE e.id = these.id RETURNING e.id) SELECT count(*) FROM done",
        [numbers, *_params(values)],
    )
    assert returned == [(len(numbers),)]


UPDATING: dict[str, Callable[[list[int], Row], None]] = {
    "update": update,
    "update, F": update_f,
    "update, Case": update_with_case,
    "bulk_update": bulk_update,
    "save": save_each,
    "save(update_fields)": save_fields,
    "UPDATE": update_by_sql,
    "UPDATE, executemany": update_many,
    "UPDATE, CTE": update_from_cte,
}

#: Paths that store only the given fields, whatever receivers assign.
OF_FIELDS = ("bulk_update", "save(update_fields)")


# Deleting entries.


def delete(numbers: list[int]) -> None:
    chosen(numbers).delete()


def delete_each(numbers: list[int]) -> None:
    for instance in chosen(numbers).order_by("pk"):
        instance.delete()


def delete_by_sql(numbers: list[int]) -> None:
    execute(f"DELETE FROM {ENTRIES} WHERE number = ANY (%s)", [numbers])


def delete_many(numbers: list[int]) -> None:
    execute(f"DELETE FROM {ENTRIES} WHERE number = %s", [[n] for n in numbers], many=True)


def delete_from_cte(numbers: list[int]) -> None:
    returned = execute(
        f"WITH gone AS (DELETE FROM {ENTRIES} WHERE number = ANY (%s) RETURNING *) "
        "SELECT count(*) FROM gone",
        [numbers],
    )
    assert returned == [(len(numbers),)]


def raw_delete(numbers: list[int]) -> None:
    chosen(numbers)._raw_delete("default")


DELETING: dict[str, Callable[[list[int]], None]] = {
    "delete": delete,
    "delete each": delete_each,
    "DELETE": delete_by_sql,
    "DELETE, executemany": delete_many,
    "DELETE, CTE": delete_from_cte,
    "_raw_delete": raw_delete,
}

#: Paths by which Django also deletes the links of an entry.
BY_DJANGO = ("delete", "delete each")


# Links between entries and tags.


def ids(numbers: list[int]) -> list[int]:
    return [entry.pk for entry in entries(critical, numbers)]


def by_manager(method: str) -> Callable[[list[int], list[int]], None]:
    def change(numbers: list[int], tags: list[int]) -> None:
        for entry in entries(critical, numbers):
            getattr(entry.tags, method)(*{"clear": [], "set": [tags]}.get(method, tags))

    return change


def add_through(numbers: list[int], tags: list[int]) -> None:
    there = set(critical.Link.objects.values_list("criticalentry_id", "criticaltag_id"))
    missing = [pair for pk in ids(numbers) for tag in tags if (pair := (pk, tag)) not in there]
    critical.Link.objects.bulk_create(
        [critical.Link(criticalentry_id=pk, criticaltag_id=tag) for pk, tag in missing]
    )


def add_by_sql(numbers: list[int], tags: list[int]) -> None:
    execute(
        f"INSERT INTO {LINKS} (criticalentry_id, criticaltag_id) "
        "SELECT e, t FROM unnest(%s::bigint[]) AS e, unnest(%s::int[]) AS t ON CONFLICT DO NOTHING",
        [ids(numbers), tags],
    )


def remove_through(numbers: list[int], tags: list[int]) -> None:
    critical.Link.objects.filter(criticalentry__in=ids(numbers), criticaltag__in=tags).delete()


def remove_by_sql(numbers: list[int], tags: list[int]) -> None:
    execute(
        f"DELETE FROM {LINKS} WHERE criticalentry_id = ANY (%s) AND criticaltag_id = ANY (%s)",
        [ids(numbers), tags],
    )


#: What they do with a manager of Django's, and how; None for a manager of the tag's.
LINKING: dict[str, tuple[str, Callable[[list[int], list[int]], None] | None]] = {
    "add": ("add", by_manager("add")),
    "remove": ("remove", by_manager("remove")),
    "set": ("set", by_manager("set")),
    "clear": ("clear", by_manager("clear")),
    "through.bulk_create": ("add", add_through),
    "through, INSERT": ("add", add_by_sql),
    "through.delete": ("remove", remove_through),
    "through, DELETE": ("remove", remove_by_sql),
    **{f"{method}, in reverse": (method, None) for method in ("add", "remove", "set", "clear")},
}


# Shelves, whose numbers are their keys.


def update_shelves(numbers: list[int], amount: int) -> None:
    critical.Shelf.objects.filter(pk__in=numbers).update(amount=amount)


def bulk_update_shelves(numbers: list[int], amount: int) -> None:
    listed = list(critical.Shelf.objects.filter(pk__in=numbers).order_by("pk"))
    for shelf in listed:
        shelf.amount = amount
    critical.Shelf.objects.bulk_update(listed, ["amount"])


def update_shelves_by_sql(numbers: list[int], amount: int) -> None:
    execute(f"UPDATE {SHELVES} SET amount = %s WHERE number = ANY (%s)", [amount, numbers])


def save_shelves(numbers: list[int], amount: int) -> None:
    for number in numbers:
        shelf = critical.Shelf.objects.filter(pk=number).first() or critical.Shelf(number=number)
        shelf.amount = amount
        shelf.save()


def upsert_shelves(numbers: list[int], amount: int) -> None:
    critical.Shelf.objects.bulk_create(
        [critical.Shelf(number=number, amount=amount) for number in numbers],
        update_conflicts=True,
        unique_fields=["number"],
        update_fields=["amount"],
    )


def ignore_shelves(numbers: list[int], amount: int) -> None:
    critical.Shelf.objects.bulk_create(
        [critical.Shelf(number=number, amount=amount) for number in numbers], ignore_conflicts=True
    )


def upsert_shelves_by_sql(numbers: list[int], amount: int) -> None:
    execute(
        f"INSERT INTO {SHELVES} (number, entries, amount) "
        "SELECT n, 0, %s FROM unnest(%s::int[]) AS n "
        "ON CONFLICT (number) DO UPDATE SET amount = excluded.amount",
        [amount, numbers],
    )


#: Whether they update existing shelves, whether they create missing ones, and how.
SHELVING: dict[str, tuple[bool, bool, Callable[[list[int], int], None]]] = {
    "update": (True, False, update_shelves),
    "bulk_update": (True, False, bulk_update_shelves),
    "UPDATE": (True, False, update_shelves_by_sql),
    "save": (True, True, save_shelves),
    "update_conflicts": (True, True, upsert_shelves),
    "ignore_conflicts": (False, True, ignore_shelves),
    "INSERT … DO UPDATE": (True, True, upsert_shelves_by_sql),
}
