"""Writers and the listener through PgBouncer in transaction mode."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.operation.conftest import order, texts
from tests.operation.processes import PATIENCE, listening, wait_until

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")

CONFIG = """
[databases]
* = host={host} port={port} user={user} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
server_idle_timeout = 1
logfile = {directory}/pgbouncer.log
pidfile =
"""


@pytest.fixture
def pooled(shop, postgres):
    """The shop, with its default database behind the pooler."""
    project = shop(notify="")
    server = conninfo_to_dict(postgres.url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="bulksafe-"))
    directory.chmod(0o777)
    config = directory / "pgbouncer.ini"
    config.write_text(
        CONFIG.format(
            host=server.get("host", "127.0.0.1"),
            port=server.get("port", 5432),
            user=server.get("user", "postgres"),
            password=f"password={server['password']}" if server.get("password") else "",
            listen_port=port,
            directory=directory,
        )
    )
    # PgBouncer refuses to run as root, and the directories above may be closed to others.
    as_user = ["-u", "postgres"] if os.getuid() == 0 else []
    process = subprocess.Popen(
        [PGBOUNCER, *as_user, config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    project.aliases["default"] |= {"HOST": "127.0.0.1", "PORT": str(port), "USER": "anyone"}
    project.aliases["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
    try:
        wait_until(lambda: _answers(project) or process.poll() is not None)
        assert process.poll() is None, (directory / "pgbouncer.log").read_text()
        yield project
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(directory)


def _answers(project):
    try:
        return project.run("SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def test_notifications_are_swallowed_and_polling_is_the_floor(pooled):
    with listening(pooled) as (_, log):
        wait_until(lambda: "listening for default" in log.read_text(), log)
        for number in range(5):
            order(pooled, str(number))
            wait_until(lambda n=number: len(texts(pooled)) == n + 1, log)

    assert texts(pooled) == [f"notify {number} 0" for number in range(5)]
    assert "no connection" not in log.read_text()
    # A prepared statement would be missing in most of the pooler's connections.
    assert "prepared statement" not in log.read_text()


def test_a_sleeping_listener_that_dies_leaves_no_lock(pooled):
    with listening(pooled) as (process, log):
        wait_until(lambda: _sleepers(pooled) == 1, log)
        process.kill()
        process.wait()
        wait_until(lambda: _sleepers(pooled) == 0, log)


def _sleepers(project):
    ((count,),) = project.run(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1651862123 "
        "AND mode = 'ExclusiveLock' AND granted AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return count


def test_a_context_does_not_leak_to_another_client(pooled):
    pooled.python("""
        import bulksafe
        from django.db import connection, transaction
        from shop.models import Order
        with bulksafe.context(user=1):
            Order.objects.create(number="a")
            with transaction.atomic():
                Order.objects.create(number="b")
        for number in "cdefgh":
            Order.objects.create(number=number)
    """)

    found = dict(pooled.run("SELECT new ->> 'number', context FROM bulksafe_outbox"))

    assert found == dict.fromkeys("cdefgh") | {number: {"user": 1} for number in "ab"}


def test_a_rule_is_muted_for_its_block_only(pooled):
    pooled.python("""
        import bulksafe
        from shop.models import Order
        with bulksafe.muted("shop.Order:bulksafe_capture"):
            Order.objects.create(number="unheard")
        for number in "abcdef":
            Order.objects.create(number=number)
    """)

    found = [number for (number,) in pooled.run("SELECT new ->> 'number' FROM bulksafe_outbox")]

    assert sorted(found) == list("abcdef")
