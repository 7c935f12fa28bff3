"""Outboxes in places other than the default database's first schema, and rows of megabytes."""

import pytest

from tests.operation.conftest import order, texts

pytestmark = pytest.mark.once


def test_a_named_schema_on_the_search_path(shop, project):
    project.run("CREATE SCHEMA app")
    project.aliases["default"]["OPTIONS"] = {
        **project.aliases["default"]["OPTIONS"],
        "options": "-c search_path=app,public",
    }
    shop(notify="", mail='queue="mail", atomic=False')
    assert project.run("SELECT to_regclass('public.bulksafe_outbox')") == [(None,)]

    # By a writer who has another path.
    project.run(
        "SET search_path = public; INSERT INTO app.shop_order (number, amount) VALUES ('a', 1)"
    )
    project.manage("bulksafe", "listen", "--once")

    assert sorted(texts(project)) == ["mail a 1", "notify a 1"]
    assert "No findings." in project.manage("bulksafe", "doctor").stdout


def test_another_database_has_an_outbox_of_its_own(shop, project):
    project.aliases["second"] = project.database("second")
    shop(notify="")
    project.migrate("--database", "second")
    order(project, "first")
    project.run("INSERT INTO shop_order (number, amount) VALUES ('second', 2)", alias="second")
    receivers = project.directory / "shop/receivers.py"
    receivers.write_text(
        receivers.read_text()
        .replace("Log.objects.create", "Log.objects.using(instance._state.db).create")
        .replace('work("notify", instance)', 'work(kwargs["using"], instance)')
    )

    project.manage("bulksafe", "listen", "--once", "--database", "second")
    assert texts(project) == []
    assert project.run("SELECT text FROM shop_log", alias="second") == [("second second 2",)]

    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == ["default first 0"]


def test_a_row_of_ten_megabytes(shop, project):
    shop(notify="")
    project.run("ALTER TABLE shop_order ALTER number TYPE text")
    project.run("INSERT INTO shop_order (number, amount) VALUES (repeat('x', 10000000), 1)")
    project.run("UPDATE shop_order SET amount = 2")
    path = project.directory / "shop/receivers.py"
    path.write_text(path.read_text().replace("{instance.number}", "{len(instance.number)}"))

    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["notify 10000000 1", "notify 10000000 2"]


def test_many_rows_of_megabytes(shop, project):
    """The process holds a few of them at a time, however many events a batch may have."""
    shop(notify="atomic=True", outside="atomic=False")
    project.run("ALTER TABLE shop_order ALTER number TYPE text")
    project.run(
        "WITH large (text) AS MATERIALIZED ("
        "    SELECT string_agg(md5(g::text), '') FROM generate_series(1, 30000) AS g"
        ") INSERT INTO shop_order (number, amount) SELECT text, r "
        "FROM large, generate_series(1, 160) AS r"
    )
    path = project.directory / "shop/receivers.py"
    path.write_text(path.read_text().replace("{instance.number}", "{len(instance.number)}"))

    done = project.manage("bulksafe", "listen", "--once", "--max-memory", "150M")

    assert "it is replaced" not in done.stderr
    assert sorted(texts(project)) == sorted(
        f"{name} 960000 {amount}" for name in ("notify", "outside") for amount in range(1, 161)
    )
