"""Two databases, kinds of connections, Django's pool and PgBouncer."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import (
    close_old_connections,
    connections,
    transaction,
)
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)
from psycopg.conninfo import conninfo_to_dict

from bulksafe.declarations import Capture
from bulksafe.outbox import own
from tests.apps.edges.models import Pair
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import (
    DELETING,
    EVERY,
    EVERY_SIGNAL,
    TABLE,
    alias,
    every_way,
    in_threads,
    note,
    perhaps_atomic,
    record_calls,
    recreate_article,
)
from tests.integration.inline_committed import (
    execute,
    insert,
    noted,
    raw,
    titles,
    waiting,
)
from tests.operation.processes import wait_until
from tests.operation.test_pgbouncer import CONFIG, PGBOUNCER

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def install_on(using):
    """Capture in another database, too."""
    execute(Capture().compile(Article).install_sql, using=using)


# Databases.


class TestTwoDatabases:
    @pytest.fixture(autouse=True)
    def receivers(self, clean):
        self.calls = inline.critical([post_save, post_delete], Article)
        self.early = inline.critical([pre_save, pre_delete], Article)
        install_on("other")

    @every_way
    def test_each_way_in_the_other_database(self, way):
        for using in ("default", "other"):
            Article.objects.using(using).create(title="there")
        self.calls.clear()
        self.early.clear()
        EVERY[way]("other")

        assert [call["using"] for call in (*self.calls, *self.early)] == ["other"] * 2
        assert titles() == ["there"]
        assert waiting("other") == (0, 0)

    def test_both_at_once(self):
        with transaction.atomic(), transaction.atomic(using="other"):
            Article.objects.using("other").create(title="1")
            Article.objects.create(title="2")
            Article.objects.using("other").update(title="3")
            raw().execute(insert("4"))

        found = [(call["instance"].title, call["using"]) for call in self.calls]
        assert found[:3] == [("1", "other"), ("2", "default"), ("3", "other")]
        assert found[3] == ("4", "default")
        assert (titles(), titles("other")) == (["2", "4"], ["3"])

    def test_one_is_rolled_back(self):
        inline.critical(post_save, Article, note("late"), dispatch_uid="note")
        with (
            transaction.atomic(),
            pytest.raises(ValueError, match="no"),
            transaction.atomic(using="other"),
        ):
            Article.objects.using("other").create(title="1")
            Article.objects.create(title="2")
            raise ValueError("no")

        assert (titles(), titles("other")) == (["2"], [])
        assert noted() == ["late 2"]

    def test_a_receiver_writes_to_the_other_database(self):
        def mirror(instance, using, **kwargs):
            if using == "default":
                Article.objects.using("other").bulk_create([Article(title=instance.title)])

        inline.critical(post_save, Article, mirror, dispatch_uid="mirror")
        Article.objects.bulk_create([Article(title="a"), Article(title="b")])

        assert titles("other") == ["a", "b"]
        found = [(call["instance"].title, call["using"]) for call in self.calls]
        assert sorted(found) == [(t, u) for t in "ab" for u in ("default", "other")]

    def test_psql_is_refused_in_both(self, psql):
        for using in ("default", "other"):
            assert psql(insert(), using).returncode == 3
            assert titles(using) == []

    def test_a_database_whose_table_has_no_capture(self):
        """Django's own signals come all the same; who writes past them is not seen."""
        inline.uninstall("other")
        Article.objects.using("other").create(title="saved")
        Article.objects.using("other").bulk_create([Article(title="bulk")])

        assert self.calls[0]["instance"].title == "saved"
        assert titles("other") == ["bulk", "saved"]


@pytest.mark.parametrize("write", ["bulk_create()", "update()"])
def test_more_keys_than_parameters_of_a_statement(write, clean):
    """The server takes 65,535 of them: stored rows are queried in batches."""
    seen = []

    def look(instance, old, using, **kwargs):
        if not seen:
            Log.objects.using(using).exists()
        seen.append(old is None)

    count, table = 33_000, Pair._meta.db_table
    if write == "update()":
        execute(
            f"INSERT INTO {table} (first, second, note) SELECT n, n, '' "
            f"FROM generate_series(1, {count}) AS n"
        )
    inline.critical(pre_save, Pair, look)
    with alias("server side", OPTIONS={"server_side_binding": True}) as using:
        pairs = Pair.objects.using(using)
        if write == "update()":
            assert pairs.update(note="a") == count
        else:
            pairs.bulk_create((Pair(first=n, second=n) for n in range(count)), batch_size=1000)

    assert seen == [write != "update()"] * count


def exercise(using, calls):
    """All ways to write, by one connection; each is to call once before and once after."""
    for is_atomic in (False, True):
        for way, write in EVERY.items():
            Article.objects.all().delete()
            Article.objects.create(title="there")
            calls.clear()
            with perhaps_atomic(is_atomic, using):
                write(using)
            called = [(call["instance"].title, call["using"]) for call in calls]
            title = "there" if way in DELETING else "written"
            assert called == [(title, using)] * 2, (way, is_atomic)
            with pytest.raises(ValueError, match="no"), transaction.atomic(using=using):
                recreate_article(using)
                write(using)
                raise ValueError("no")
    calls.clear()
    with transaction.atomic(using=using):
        connections[using].connection.execute(insert("raw"))
    assert [call["instance"].title for call in calls] == ["raw"] * 2
    with pytest.raises(psycopg.IntegrityError):
        connections[using].connection.execute(insert("past"))
    assert "past" not in titles()


class TestKindsOfConnections:
    @pytest.fixture(params=["all", "little"])
    def calls(self, request, clean):
        """Of receivers before and after."""
        return record_calls(EVERY_SIGNAL, request.param, "kinds")

    def test_as_it_is(self, calls):
        with alias("same") as using:
            exercise(using, calls)

    def test_server_side_binding(self, calls):
        with alias("bound", OPTIONS={"server_side_binding": True}) as using:
            exercise(using, calls)

    @pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
    def test_isolation_levels(self, level, calls):
        level = getattr(psycopg.IsolationLevel, level)
        with alias("isolated", OPTIONS={"isolation_level": level}) as using:
            exercise(using, calls)

    def test_prepared_statements(self, calls):
        with alias("prepared", OPTIONS={"prepare_threshold": 0}) as using:
            exercise(using, calls)

    def test_a_time_zone_and_settings_of_its_own(self, calls):
        options = "-c timezone=Asia/Kathmandu -c client_min_messages=error -c datestyle=German"
        with alias("strange", TIME_ZONE="Asia/Kathmandu", OPTIONS={"options": options}) as using:
            exercise(using, calls)

    def test_an_alias_that_now_leads_to_another_database(self, clean):
        """As Django's test runner has its connections lead to the test databases."""
        calls = record_calls(EVERY_SIGNAL, "all", "kinds")
        install_on("other")
        with alias("moving") as using:
            Article.objects.using(using).bulk_create([Article(title="1")])
            connections[using].close()
            connections[using].settings_dict["NAME"] = connections["other"].settings_dict["NAME"]
            Article.objects.using(using).bulk_create([Article(title="2")])
        Article.objects.using("other").bulk_create([Article(title="3")])

        assert (titles(), titles("other")) == (["1"], ["2", "3"])
        ids = [call["event_id"] for call in calls if call["signal"] is post_save]
        first, second, third = (found.rpartition("-")[0] for found in ids)
        assert first != second == third

    def test_a_role_of_its_own(self, calls):
        execute("CREATE ROLE kinds_clerk LOGIN")
        execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO kinds_clerk")
        execute(f"GRANT USAGE ON SEQUENCE {TABLE}_id_seq TO kinds_clerk")
        execute(f"GRANT EXECUTE ON FUNCTION {', '.join(own.WRITING)} TO kinds_clerk")
        try:
            with alias("clerk", OPTIONS={"assume_role": "kinds_clerk"}) as using:
                exercise(using, calls)
        finally:
            execute("DROP OWNED BY kinds_clerk")
            execute("DROP ROLE kinds_clerk")

    @pytest.mark.parametrize("age", [0, 60, None])
    def test_persistent_connections(self, age, calls):
        with alias("persistent", CONN_MAX_AGE=age, CONN_HEALTH_CHECKS=True) as using:
            pids = []
            for number in range(3):
                # As at the beginning and at the end of a request.
                close_old_connections()
                Article.objects.using(using).bulk_create([Article(title=f"{number}")])
                with transaction.atomic(using=using):
                    connections[using].connection.execute(insert(f"{number} raw"))
                pids.append(connections[using].connection.info.backend_pid)
                close_old_connections()

        assert len(set(pids)) == (3 if age == 0 else 1)
        found = [call["instance"].title for call in calls]
        assert found == [f"{n}{raw}" for n in range(3) for raw in ("", "", " raw", " raw")]


class TestDjangosPool:
    @pytest.fixture
    def calls(self, clean):
        return record_calls(EVERY_SIGNAL, "all", "pool")

    def test_all_ways(self, calls):
        with alias("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 2}}) as using:
            exercise(using, calls)

    def test_threads_use_the_same_connection_in_turn(self, calls):
        """A notice of the server goes to the current user of the connection."""
        drivers = []
        with alias("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 1}}) as using:

            def work(number):
                Article.objects.using(using).bulk_create([Article(title=f"{number}")])
                with transaction.atomic(using=using):
                    connections[using].connection.execute(insert(f"{number} raw"))
                drivers.append(connections[using].connection.info.backend_pid)

            for number in range(3):
                work(number)
                connections[using].close()
                in_threads(1, lambda _, n=number: work(n + 10))

        assert len(set(drivers)) == 1
        found = [call["instance"].title for call in calls if call["signal"] is post_save]
        numbers = [n + k for n in range(3) for k in (0, 10)]
        assert found == [f"{n}{raw}" for n in numbers for raw in ("", " raw")]

    def test_more_threads_than_connections(self, calls):
        options = {"pool": {"min_size": 1, "max_size": 2, "timeout": 60}}
        with alias("pooled", OPTIONS=options) as using:

            def work(number):
                for step in range(5):
                    Article.objects.using(using).bulk_create([Article(title=f"{number} {step}")])
                    connections[using].close()

            in_threads(5, work)

        found = [call["instance"].title for call in calls if call["signal"] is post_save]
        assert sorted(found) == [f"{n} {s}" for n in range(5) for s in range(5)]

    def test_state_left_on_a_pooled_connection_does_not_reach_its_next_user(self, calls):
        with alias("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 1}}) as using:

            def leave():
                connection = connections[using]
                connection.ensure_connection()
                connection.set_autocommit(False)
                connection.connection.execute(insert("gone"))
                connection.rollback()
                connection.set_autocommit(True)

            in_threads(1, lambda _: leave())
            Article.objects.using(using).bulk_create([Article(title="kept")])

        assert [call["instance"].title for call in calls] == ["kept"] * 2
        assert titles() == ["kept"]


@pytest.fixture
def bouncer(postgres) -> Iterator[int]:
    """The port of a PgBouncer in transaction mode."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed")
    found = conninfo_to_dict(postgres.url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="bulksafe-"))
    directory.chmod(0o777)
    config = directory / "pgbouncer.ini"
    config.write_text(
        CONFIG.format(
            host=found.get("host", "127.0.0.1"),
            port=found.get("port", 5432),
            user=found.get("user", "postgres"),
            password=f"password={found['password']}" if found.get("password") else "",
            listen_port=port,
            directory=directory,
        )
    )
    as_user = ["-u", "postgres"] if os.getuid() == 0 else []
    process = subprocess.Popen(
        [PGBOUNCER, *as_user, config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (directory / "pgbouncer.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory)


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class TestPgBouncer:
    @pytest.fixture
    def using(self, bouncer, clean):
        with alias(
            "bounced",
            HOST="127.0.0.1",
            PORT=str(bouncer),
            USER="anyone",
            DISABLE_SERVER_SIDE_CURSORS=True,
        ) as name:
            yield name

    @pytest.fixture(params=["all", "little"])
    def calls(self, request, using):
        return record_calls(EVERY_SIGNAL, request.param, "bounced")

    def test_all_ways(self, using, calls):
        exercise(using, calls)

    def test_many_clients_of_few_connections(self, using, calls):
        def work(number):
            for step in range(5):
                Article.objects.using(using).bulk_create([Article(title=f"{number} {step}")])
                with transaction.atomic(using=using):
                    connections[using].connection.execute(insert(f"{number} {step} raw"))

        in_threads(6, work)

        found = [call["instance"].title for call in calls if call["signal"] is post_save]
        expected = [f"{n} {s}{raw}" for n in range(6) for s in range(5) for raw in ("", " raw")]
        assert sorted(found) == sorted(expected) == titles()

    def test_iterating(self, using, calls):
        Article.objects.using(using).bulk_create([Article(title=str(n)) for n in range(10)])
        calls.clear()
        for article in Article.objects.using(using).order_by("pk").iterator(chunk_size=3):
            article.save(using=using)

        assert [call["instance"].title for call in calls] == [
            str(n) for n in range(10) for _ in range(2)
        ]
