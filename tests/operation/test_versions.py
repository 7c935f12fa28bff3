"""Concurrent listeners with different code or schema, and roles with timeouts."""

from contextlib import ExitStack

import pytest

from tests.operation.conftest import change, declare, mend, order, texts
from tests.operation.processes import listening, wait_until
from tests.operation.test_dead_letters import parked, status

pytestmark = pytest.mark.once

BOTH = pytest.mark.parametrize("atomic", [True, False])


#: The events that no listener has read for the default lane.
UNREAD = """
SELECT FROM bulksafe_cursor AS c
JOIN bulksafe_outbox AS o USING (bucket)
WHERE c.queue = 'default' AND c.atomic AND NOT pg_visible_in_snapshot(o.xid, c.lower)
"""


@BOTH
@pytest.mark.parametrize("first", ["old", "new"])
def test_a_rolling_update(shop, atomic, first):
    """Listeners of the old release have no receiver for the table, and keep running."""
    project = shop(notify=f"atomic={atomic}", strict=f"atomic={atomic}, max_attempts=1")
    new = (project.directory / "shop/receivers.py").read_text()
    with ExitStack() as running:
        for release in ("old", "new") if first == "old" else ("new", "old"):
            project.write("shop/receivers.py", new if release == "new" else "")
            _, log = running.enter_context(listening(project, name=f"{release}.log"))
            wait_until(lambda log=log: "listening for" in log.read_text(), log)
        for number in range(10):
            order(project, str(number))
            change(project, str(number), 1)
        wait_until(lambda: len(texts(project)) == 40, log)
        # The old listener parks the events of the default lane, too. They wait for the new one.
        wait_until(lambda: not project.run(UNREAD), log)
        wait_until(lambda: not project.run("SELECT FROM bulksafe_parked"), log)

    for name in ("notify", "strict"):
        for number in range(10):
            found = [text for text in texts(project) if text.startswith(f"{name} {number} ")]
            assert found == [f"{name} {number} 0", f"{name} {number} 1"]
    project.write("shop/receivers.py", new)
    assert parked(project, code=0) == []


def test_a_receiver_registered_in_only_one_of_two_listeners(shop):
    """A retried dead letter goes to the listener that has the receiver, whichever polls first."""
    project = shop(known="", strict="max_attempts=1")
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)
    mend(project)
    both = (project.directory / "shop/receivers.py").read_text()
    with ExitStack() as running:
        declare(project, known="")
        _, log = running.enter_context(listening(project, name="old.log"))
        wait_until(lambda: "listening for" in log.read_text(), log)
        project.write("shop/receivers.py", both)
        running.enter_context(listening(project, name="new.log"))
        project.manage("bulksafe", "retry", "--all")

        wait_until(lambda: not status(project, code=None)["parked"], project.directory / "new.log")
    assert sorted(texts(project)) == ["known bad 0", "strict bad 0"]


@BOTH
def test_a_listener_for_each_tenants_schema(shop, project, atomic):
    """They share the outbox, and each finds the tables of its own schema only."""
    shop(notify=f"atomic={atomic}")
    tables = ("shop_order", "shop_log", "shop_mended")
    for tenant in ("one", "two"):
        project.run(f"CREATE SCHEMA {tenant}")
        for table in tables:
            project.run(f"CREATE TABLE {tenant}.{table} (LIKE public.{table} INCLUDING ALL)")
    options = dict(project.aliases["default"]["OPTIONS"])
    with ExitStack() as running:
        for tenant in ("one", "two"):
            project.aliases["default"]["OPTIONS"] = {
                **options,
                "options": f"-c search_path={tenant},public",
            }
            project.manage("pgtrigger", "install")
            _, log = running.enter_context(listening(project, name=f"{tenant}.log"))
            # It has read the settings by then, which are written again.
            wait_until(lambda log=log: "listening for" in log.read_text(), log)
        for number in range(20):
            for tenant in ("one", "two"):
                project.run(
                    f"INSERT INTO {tenant}.shop_order (number, amount) VALUES (%s, 0)",
                    f"{tenant}{number}",
                )
        project.aliases["default"]["OPTIONS"] = options

        def served(tenant):
            return {text for (text,) in project.run(f"SELECT text FROM {tenant}.shop_log")}

        for tenant in ("one", "two"):
            wanted = {f"notify {tenant}{number} 0" for number in range(20)}
            wait_until(lambda tenant=tenant, wanted=wanted: served(tenant) == wanted, log)


def test_a_table_created_while_the_listener_runs(shop):
    """For the receivers that its code has already."""
    project = shop(notify="")
    text = (project.directory / "shop/receivers.py").read_text()
    project.run("ALTER TABLE shop_order RENAME TO hidden")
    with listening(project) as (_, log):
        wait_until(lambda: "listening for" in log.read_text(), log)
        project.run("ALTER TABLE hidden RENAME TO shop_order")
        order(project, "good")
        wait_until(lambda: texts(project) == ["notify good 0"], log)
    assert text


# Timeouts of the role.

TIMEOUTS = {
    "idle_in_transaction_session_timeout": "import time; time.sleep(0.4)",
    "statement_timeout": "connection.cursor().execute('SELECT pg_sleep(0.4)')",
    "transaction_timeout": "import time; time.sleep(0.4)",
    "lock_timeout": "connection.cursor().execute('LOCK TABLE shop_mended')",
}


@pytest.fixture
def limited(shop, request):
    """Makes a project whose role has a timeout, and a receiver that takes longer."""

    def make(timeout, **options):
        project = shop(strict=", ".join(f"{k}={v!r}" for k, v in options.items()))
        path = project.directory / "shop/receivers.py"
        slow = f"    from django.db import connection; {TIMEOUTS[timeout]}\n    work("
        path.write_text(path.read_text().replace("    work(", slow))
        role = f"limited_{project.aliases['default']['NAME']}"
        project.run(f"CREATE ROLE {role} LOGIN SUPERUSER")
        request.addfinalizer(lambda: project.run(f"DROP ROLE {role}", alias="limited"))
        project.run(f"ALTER ROLE {role} SET {timeout} = '150ms'")
        project.aliases["limited"] = {**project.aliases["default"]}
        project.aliases["default"] = {**project.aliases["default"], "USER": role}
        return project

    return make


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_a_timeout_of_the_role_ends_no_batch(limited, timeout, postgres):
    if timeout == "transaction_timeout" and int(postgres.version.split(".")[0]) < 17:
        pytest.skip("from PostgreSQL 17 on")
    project = limited(timeout)
    for number in range(3):
        project.run(
            "INSERT INTO shop_order (number, amount) VALUES (%s, 0)", str(number), alias="limited"
        )

    project.manage("bulksafe", "listen", "--once")

    found = project.run("SELECT text FROM shop_log", alias="limited")
    assert sorted(found) == [(f"strict {number} 0",) for number in range(3)]


def test_outside_a_transaction_a_timeout_of_the_role_is_a_failure_that_counts(limited):
    project = limited("statement_timeout", atomic=False, max_attempts=2)
    project.run("INSERT INTO shop_order (number, amount) VALUES ('a', 0)", alias="limited")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert parked(project) == [("strict", "1", "dead", 2)]
    assert "statement timeout" in status(project)["parked"][0]["error"]
