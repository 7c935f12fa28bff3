"""What is done to the database after a test that commits.

Django's flush truncates all tables and creates content types and permissions again. With the two
hundred tables here that takes half a second, after each of four thousand tests. Few of the tables
hold rows then: only those are truncated.
"""

from __future__ import annotations

from django.db import connections
from django.test import TransactionTestCase

#: Their rows are made by the migrations, not by tests.
KEPT = {"auth_permission", "django_content_type"}
#: They belong to no model.
OWN = {"bulksafe_outbox", "bulksafe_parked"}

_WITH_ROWS = """
SELECT name FROM unnest(%s::text[]) AS name
WHERE pg_relation_size(to_regclass(name)) > 0 OR EXISTS (
    SELECT FROM pg_partition_tree(to_regclass(name)) AS part
    WHERE pg_relation_size(part.relid) > 0
)
"""


def empty_tables(case: TransactionTestCase) -> None:
    for alias in case._databases_names(include_mirrors=False):
        connection = connections[alias]
        quote = connection.ops.quote_name
        tables = {*connection.introspection.django_table_names()} - KEPT | OWN
        with connection.cursor() as cursor:
            cursor.execute(_WITH_ROWS, [sorted(map(quote, tables))])
            with_rows = [name for (name,) in cursor.fetchall()]
        if with_rows:
            # As flush does it: rules on deletion are muted, and the outbox is emptied too.
            connection.ops.execute_sql_flush([f"TRUNCATE {', '.join(with_rows)} CASCADE"])
