"""What migrations lock, for how long, and that they scan no table."""

import subprocess
import sys

import pytest

from tests.migration.project import environment
from tests.operation.processes import wait_until

MODELS = """
class A(models.Model):
    n = models.IntegerField(default=0)
    {a}

class B(models.Model):
    n = models.IntegerField(default=0)
    m = models.IntegerField(default=0)
    {b}
"""

RULES = {
    "a": 'class Meta: triggers = [bulksafe.Check(Q(n__gte=0), name="positive")]',
    "b": 'class Meta: triggers = [bulksafe.Compute("m", F("n") + 1), bulksafe.Immutable("n")]',
}

RECEIVERS = """
import bulksafe
from django.db.models.signals import post_delete, post_save, pre_save
from shop.models import A, B

for model in (A, B):
    for signal in (pre_save, post_save, post_delete):
        bulksafe.critical(signal, sender=model, dispatch_uid=f"{model.__name__} {id(signal)}")(
            lambda **kwargs: None
        )
"""


@pytest.fixture
def shop(project):
    """Two tables with rows, and a migration that adds captures and rules to both."""
    project.models(MODELS.format(a="", b=""))
    project.make()
    project.migrate()
    project.run("INSERT INTO shop_a (n) SELECT * FROM generate_series(1, 1000)")
    project.run("INSERT INTO shop_b (n, m) SELECT n, 0 FROM generate_series(1, 1000) AS n")
    project.models(MODELS.format(**RULES))
    project.write("shop/receivers.py", RECEIVERS)
    project.make("--name", "captured")
    return project


def not_atomic(shop):
    text = shop.migration("0002")
    path = "shop/migrations/0002_captured.py"
    shop.write(path, text.replace("    dependencies", "    atomic = False\n    dependencies"))


SCANS = """
    SELECT sum(seq_scan), sum(seq_tup_read), sum(COALESCE(idx_scan, 0))
    FROM pg_stat_user_tables WHERE relname IN ('shop_a', 'shop_b')
"""


def scans(shop):
    shop.run("SELECT pg_stat_force_next_flush()") if has_flush(shop) else None
    return shop.run(SCANS)


def has_flush(shop):
    return shop.run("SELECT to_regproc('pg_stat_force_next_flush') IS NOT NULL") == [(True,)]


def test_no_operation_scans_the_table(shop):
    before = scans(shop)
    shop.migrate()
    shop.migrate("shop", "0001")

    assert scans(shop) == before
    # The counters would show it.
    shop.run("SELECT count(*) FROM shop_a")
    wait_until(lambda: scans(shop) != before)


def test_sqlmigrate_says_what_is_locked(shop):
    forwards = shop.manage("sqlmigrate", "shop", "0002").stdout
    backwards = shop.manage("sqlmigrate", "shop", "0002", "--backwards").stdout

    assert forwards.count('-- Locks "shop_a" in SHARE ROW EXCLUSIVE mode') == 2
    assert forwards.count('-- Locks "shop_b" in SHARE ROW EXCLUSIVE mode') == 3
    assert forwards.count("-- Scans no table.") == 5
    assert "ACCESS EXCLUSIVE" not in forwards
    assert backwards.count("ACCESS EXCLUSIVE mode (DROP TRIGGER)") == 5
    shop.run("BEGIN;\n" + forwards.replace("BEGIN;", "").replace("COMMIT;", "") + ";ROLLBACK")


HELD = """
    SELECT c.relname, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
    WHERE l.granted AND c.relname IN ('shop_a', 'shop_b') AND c.relkind = 'r'
"""


@pytest.mark.parametrize("backwards", [False, True])
def test_the_strongest_lock_is_the_one_that_sqlmigrate_names(shop, backwards):
    if backwards:
        shop.migrate()
    text = shop.manage("sqlmigrate", "shop", "0002", *["--backwards"] * backwards).stdout
    with shop.connect() as connection:
        connection.execute(text.replace("COMMIT;", ""))
        modes = {mode for _, mode in connection.execute(HELD).fetchall()}
        connection.execute("ROLLBACK")

    assert ("AccessExclusiveLock" in modes) == backwards
    assert "ShareRowExclusiveLock" in modes or backwards


def test_a_writer_of_one_table_does_not_wait_for_a_transaction_on_another(shop):
    """With atomic = False, each operation locks its own table only."""
    not_atomic(shop)
    shop.settings('BULKSAFE = {"LOCK_TIMEOUT": 0.2, "LOCK_ATTEMPTS": 1000}\n')
    shop.write_settings()
    blocked = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass)"
    for table, other in (("shop_a", "shop_b"), ("shop_b", "shop_a")):
        with shop.connect() as holder, shop.connect() as writer:
            holder.execute("BEGIN")
            holder.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
            migrating = subprocess.Popen(
                [sys.executable, "manage.py", "migrate", "-v0"],
                cwd=shop.directory,
                env=environment(),
                stderr=subprocess.PIPE,
            )
            wait_until(lambda table=table: shop.run(blocked, table) == [(True,)])
            # It holds no lock of the other table that a writer would wait for.
            writer.execute("SET lock_timeout = '10s'")
            writer.execute("BEGIN")
            writer.execute(f"LOCK TABLE {other} IN ROW EXCLUSIVE MODE")
            writer.execute("ROLLBACK")
            # The lock is asked for again and again, and a writer of the same table passes.
            writer.execute("BEGIN")
            writer.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
            writer.execute("ROLLBACK")
            holder.execute("COMMIT")
            errors = migrating.communicate(timeout=120)[1]
            assert migrating.returncode == 0, errors
        shop.assert_all_installed()
        shop.migrate("shop", "0001")


def test_an_atomic_migration_ends_with_what_to_do(shop):
    shop.settings('BULKSAFE = {"LOCK_TIMEOUT": 0.2}\n')
    with shop.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE shop_b IN ROW EXCLUSIVE MODE")
        failed = shop.migrate(code=1)
        holder.execute("ROLLBACK")

    assert "more than 0.2 s" in failed.stderr
    assert "atomic = False" in failed.stderr
    assert not shop.installed()
    shop.migrate()
    shop.assert_all_installed()


def test_the_timeout_ends_with_the_operation(shop):
    """Other operations of the migration have the session's own lock_timeout."""
    shop.settings('BULKSAFE = {"LOCK_TIMEOUT": 0.2}\n')
    head, _, body = shop.migration("0002").partition("class Migration")
    operations = body.rstrip().removesuffix("]") + "    migrations.RunPython(look),\n    ]\n"
    shop.write("shop/migrations/0002_captured.py", f"{head}{LOOK}\nclass Migration{operations}")
    shop.migrate()


LOOK = """
def look(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)
        cursor.execute("SELECT FROM pg_locks WHERE mode = 'ShareRowExclusiveLock'")
        assert cursor.fetchone() is not None

"""
