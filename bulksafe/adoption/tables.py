"""A table as it is in a database now, before or after the migrations that guard it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from bulksafe import conf
from bulksafe.adoption.errors import Unusable
from bulksafe.planning import fields
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

# The path is the one that migrations_templates/v1/install.sql resolves names with.
_TABLE = """
    SELECT n.nspname, c.relname, c.reltuples, pg_catalog.row_security_active(c.oid), current_user,
           pg_catalog.concat_ws(', ', 'pg_catalog', (
               SELECT pg_catalog.string_agg(
                   pg_catalog.quote_ident(s.nspname), ', ' ORDER BY s.nspname
               )
               FROM (
                   SELECT tn.nspname
                   FROM pg_catalog.pg_attribute AS a
                   JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
                   JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace
                   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   UNION
                   SELECT cn.nspname
                   FROM pg_catalog.pg_attribute AS a
                   JOIN pg_catalog.pg_collation AS o ON o.oid = a.attcollation
                   JOIN pg_catalog.pg_namespace AS cn ON cn.oid = o.collnamespace
                   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               ) AS s
               WHERE s.nspname <> 'pg_catalog'
           ))
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass(%s)
"""

# The comparison is the one of the triggers of a computed column, from the same file.
_COLUMNS = """
    SELECT a.attname, pg_catalog.format('%%I.%%I', n.nspname, t.typname),
           CASE WHEN t.typname IN (
                    'varchar', 'bpchar', 'bit', 'varbit', '_varchar', '_bpchar', '_bit', '_varbit'
                )
                THEN pg_catalog.format('%%I.%%I', n.nspname, t.typname)
                ELSE pg_catalog.format_type(a.atttypid, a.atttypmod)
           END,
           CASE WHEN pg_catalog.ltrim(b.typname, '_') IN (
                    'citext', 'json', 'xml', 'point', 'line', 'lseg', 'box', 'path', 'polygon',
                    'circle'
                )
                THEN '::pg_catalog.text'
                     || CASE WHEN pg_catalog.starts_with(b.typname, '_') THEN '[]' ELSE '' END
                ELSE ''
           END,
           a.attcollation <> 0
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    JOIN pg_catalog.pg_type AS b ON b.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid)
    WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True)
class Column:
    """A column's type.

    Attributes:
        type: its name, quoted and without a length.
        stored: the same with its precision, where a cast cuts nothing that an assignment refuses.
        as_text: the cast for types that take different values for equal, or an empty string.
        has_collation: whether it is text.
    """

    type: str
    stored: str
    as_text: str
    has_collation: bool

    def comparable(self, value: str) -> str:
        """SQL for ``value`` as it is stored, for a comparison with the column."""
        collate = ' COLLATE "C"' if self.has_collation or self.as_text else ""
        return f"{value}::{self.type}::{self.stored}{self.as_text}{collate}"


@dataclass(frozen=True)
class Table:
    """A model's table.

    Attributes:
        using: the database.
        name: the table's quoted name, with its schema.
        path: the search_path that triggers on it are created with.
        key: the names of the primary key's columns.
        columns: every column, by name.
        estimate: the number of rows according to the last ANALYZE, if there was one.
    """

    using: str
    name: str
    path: str
    key: tuple[str, ...]
    columns: dict[str, Column]
    estimate: int | None


def table_of(model: type[Model], using: str) -> Table:
    """The table of ``model``.

    Raises:
        Unusable: it does not exist, has no such primary key, or a policy hides rows.
    """
    relation = quoting.relation(model._meta.db_table)
    with connections[using].cursor() as cursor:
        cursor.execute(_TABLE, [relation])
        found = cursor.fetchone()
        cursor.execute(_COLUMNS, [relation])
        columns = {name: Column(*rest) for name, *rest in cursor.fetchall()}
    if found is None:
        raise Unusable(f"The table {relation} does not exist. Run migrate first.")
    schema, name, tuples, hides_rows, role, path = found
    if hides_rows:
        raise Unusable(
            f"Row-level security hides rows of {relation} from the role “{role}”, and with them "
            "violations. Use a role with BYPASSRLS."
        )
    key = tuple(fields.primary_key_columns(model))
    if missing := [column for column in key if column not in columns]:
        raise Unusable(
            f"The table {relation} has no column “{missing[0]}”, which is in the primary key. "
            "Run migrate first."
        )
    added = ", ".join(map(quoting.identifier, conf.get().SEARCH_PATH))
    return Table(
        using=using,
        name=f"{quoting.identifier(schema)}.{quoting.identifier(name)}",
        path=", ".join(part for part in (path, added, "pg_temp") if part),
        key=key,
        columns=columns,
        estimate=int(tuples) if tuples > 0 else None,
    )


@contextmanager
def reading(table: Table) -> Iterator[Any]:
    """A cursor in a short read-only transaction, which takes no lock that a writer waits for.

    It is rolled back, since the settings would outlive a savepoint that is released.
    """
    with transaction.atomic(using=table.using):
        with connections[table.using].cursor() as cursor:
            cursor.execute(
                "SELECT set_config('transaction_read_only', 'on', true), "
                "set_config('row_security', 'off', true), set_config('search_path', %s, true)",
                [table.path],
            )
            yield cursor
        transaction.set_rollback(True, using=table.using)


@contextmanager
def trusted_path(cursor: Any, table: Table) -> Iterator[None]:
    """Resolve names as the triggers do: a transaction's own search_path comes back afterwards."""
    cursor.execute(
        "SELECT before, set_config('search_path', %s, true) "
        "FROM (SELECT current_setting('search_path') AS before OFFSET 0) AS s",
        [table.path],
    )
    before, _ = cursor.fetchone()
    yield
    cursor.execute("SELECT set_config('search_path', %s, true)", [before])
