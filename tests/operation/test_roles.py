"""The roles that may use bulksafe's tables: every migrate grants what the settings list."""

import psycopg
import pytest

from examples import server
from tests.migration.conftest import databases, forge, project  # noqa: F401
from tests.operation.conftest import MODELS

RECEIVERS = """
import bulksafe
from django.db.models.signals import post_save
from shop.models import Log, Order

@bulksafe.critical(post_save, sender=Order, dispatch_uid="now")
def now(sender, instance, **kwargs):
    Log.objects.create(text=f"now {instance.number}")

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="later")
def later(sender, instance, **kwargs):
    Log.objects.create(text=f"later {instance.number}")
"""

WRITE = """
from shop.models import Order
Order.objects.bulk_create([Order(number="a")])
Order.objects.update(amount=1)
print("written")
"""


@pytest.fixture
def roles(project):  # noqa: F811
    """Makes roles that may use the project's own tables; returns their names."""
    made = []

    def make(*kinds):
        for kind in kinds:
            name = f"{project.prefix}_{kind}"
            project.run(f"CREATE ROLE {name} LOGIN")
            made.append(name)
        return made

    yield make
    for name in made:
        project.run(f"DROP OWNED BY {name}; DROP ROLE {name}")


def as_role(project, name):  # noqa: F811
    """The project's commands connect as the role."""
    project.aliases["default"]["USER"] = name


def settings(project, **values):  # noqa: F811
    project.settings(f"BULKSAFE = {values!r}")


@pytest.fixture
def shop(project):  # noqa: F811
    project.models(MODELS)
    project.write("shop/receivers.py", RECEIVERS)
    project.make()
    return project


def texts(project):  # noqa: F811
    return sorted(text for (text,) in project.run("SELECT text FROM shop_log"))


def test_an_application_and_a_listener_with_roles_of_their_own(shop, roles):
    app, listener = roles("app", "listener")
    settings(shop, WRITER_ROLES=[app], LISTENER_ROLES=[listener])
    shop.migrate()
    owner = shop.aliases["default"]["USER"]
    shop.run(
        f"GRANT SELECT, INSERT, UPDATE ON shop_order, shop_log TO {app}, {listener}; "
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {app}"
    )
    shop.run(f"REVOKE ALL ON SEQUENCE bulksafe_outbox_seq, bulksafe_outbox_slot FROM {app}")
    shop.migrate()  # what the careless GRANT gave away is taken back
    shop.run(f"GRANT USAGE ON SEQUENCE shop_order_id_seq, shop_log_id_seq TO {app}, {listener}")

    as_role(shop, app)
    assert "written" in shop.python(WRITE)
    assert texts(shop_as(shop, owner)) == ["now a", "now a"]
    as_role(shop, listener)
    shop.manage("bulksafe", "listen", "--once")
    as_role(shop, owner)

    assert texts(shop) == ["later a", "later a", "now a", "now a"]
    said = shop.manage("bulksafe", "doctor").stdout
    assert f"{app} writes through Django." in said
    assert f"{listener} runs the listener." in said
    assert "No findings." in said


def shop_as(project, name):  # noqa: F811
    as_role(project, name)
    return project


def test_a_role_outside_of_the_settings(shop, roles):
    (app,) = roles("app")
    shop.migrate()
    owner = shop.aliases["default"]["USER"]
    shop.run(
        f"GRANT SELECT, INSERT, UPDATE ON shop_order TO {app}; "
        f"GRANT USAGE ON SEQUENCE shop_order_id_seq TO {app}"
    )
    as_role(shop, app)
    result = shop.manage("shell", "-v", "0", "-c", WRITE, code=None)
    as_role(shop, owner)

    assert "ReceiversNotRun" in result.output
    assert 'BULKSAFE["WRITER_ROLES"]' in result.output
    assert shop.run("SELECT count(*) FROM shop_order") == [(0,)]


def test_privileges_follow_the_settings(shop, roles):
    app, other = roles("app", "other")
    settings(shop, WRITER_ROLES=[app])
    shop.migrate()
    settings(shop, LISTENER_ROLES=[other])
    assert "lacks privileges" in shop.manage("bulksafe", "doctor", code=1).stdout

    said = shop.manage("migrate").stdout

    assert f'REVOKE ALL ON FUNCTION public.bulksafe_prefix() FROM "{app}"' in said
    assert f'GRANT SELECT, TRUNCATE ON TABLE public.bulksafe_outbox TO "{other}"' in said
    assert "No findings." in shop.manage("bulksafe", "doctor").stdout
    assert "GRANT" not in shop.manage("migrate").stdout


def test_default_privileges_are_revoked(shop, roles):
    """For tables, sequences and functions, including trigger functions."""
    (reader,) = roles("reader")
    shop.run(
        f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {reader}; "
        f"ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {reader}; "
        f"ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {reader}"
    )
    shop.migrate()

    held = shop.run(
        """
        SELECT c.relname FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS a
        WHERE c.relname LIKE 'bulksafe%%' AND a.grantee = %s::regrole
        UNION ALL
        SELECT p.proname FROM pg_proc AS p CROSS JOIN aclexplode(p.proacl) AS a
        WHERE p.prosecdef AND a.grantee = %s::regrole
        """,
        reader,
        reader,
    )
    assert held == []
    assert "No findings." in shop.manage("bulksafe", "doctor").stdout


@pytest.mark.parametrize(
    ("grant", "named"),
    [
        ("GRANT SELECT ON bulksafe_outbox TO {role}", "SELECT on public.bulksafe_outbox"),
        ("GRANT SELECT (key) ON bulksafe_parked TO {role}", "SELECT (key) on public"),
        ("GRANT EXECUTE ON FUNCTION bulksafe_take TO PUBLIC", "PUBLIC has privileges"),
        ("GRANT USAGE ON SEQUENCE bulksafe_outbox_seq TO {role} WITH GRANT OPTION", "WITH GRANT"),
        ("GRANT EXECUTE ON FUNCTION {capture} TO {role}", "EXECUTE on public.pgtrigger_"),
    ],
)
def test_doctor_finds_excessive_grants(grant, named, shop, roles):
    (role,) = roles("reader")
    shop.migrate()
    ((capture,),) = shop.run(
        "SELECT t.tgfoid::regproc::text FROM pg_trigger AS t "
        "WHERE t.tgname LIKE 'pgtrigger_bulksafe_capture%%'"
    )
    shop.run(grant.format(role=role, capture=capture))

    assert named in shop.manage("bulksafe", "doctor", code=1).stdout


def test_an_unknown_role_stops_migrate_before_its_first_step(shop):
    settings(shop, WRITER_ROLES=["nobody_at_all"])

    result = shop.migrate(code=1)

    assert "BULKSAFE['WRITER_ROLES'] lists 'nobody_at_all'" in result.stderr
    assert "CREATE ROLE" in result.stderr
    assert shop.run("SELECT to_regclass('shop_order') IS NULL") == [(True,)]


def test_a_role_that_may_not_grant_is_given_the_statements(shop, roles):
    deputy, app = roles("deputy", "app")
    shop.migrate()
    owner = shop.aliases["default"]["USER"]
    shop.run(f"GRANT SELECT, INSERT, UPDATE ON django_migrations TO {deputy}")
    settings(shop, WRITER_ROLES=[app])
    as_role(shop, deputy)
    result = shop.migrate(code=1)
    as_role(shop, owner)

    assert f"only their owner, {owner}, may do that" in result.stderr
    assert "GRANT EXECUTE ON FUNCTION" in result.stderr


def test_the_mark_of_an_application_role_is_trusted(shop, roles):
    """It calls the receivers itself: this is what saves the round trip."""
    (app,) = roles("app")
    settings(shop, WRITER_ROLES=[app])
    shop.migrate()
    shop.run(
        f"GRANT INSERT ON shop_order TO {app}; GRANT USAGE ON SEQUENCE shop_order_id_seq TO {app}"
    )
    url = server.database_url({**shop.aliases["default"], "USER": app})
    with psycopg.connect(url) as connection:
        mark = f"/* bulksafe: in hand {connection.info.backend_pid} shop_order */"
        connection.execute(f"INSERT INTO shop_order (number, amount) VALUES ('a', 1) {mark}")
    assert shop.run("SELECT number FROM shop_order") == [("a",)]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("CREATE TABLE front.bulksafe_cursor (queue text)", "comes before bulksafe's own"),
        (
            "CREATE FUNCTION front.bulksafe_prefix() RETURNS text LANGUAGE sql RETURN 'x'",
            "comes before bulksafe's own",
        ),
        (
            "CREATE TABLE front.bulksafe_outbox (LIKE bulksafe_outbox INCLUDING ALL); "
            "ALTER TABLE front.bulksafe_outbox OWNER TO {role}",
            "belongs to",
        ),
    ],
)
def test_a_listener_does_not_start_on_objects_in_front_of_ours(shop, roles, sql, named):
    (mallory,) = roles("mallory")
    shop.migrate()
    shop.run(f"CREATE SCHEMA front; {sql.format(role=mallory)}")
    options = shop.aliases["default"]["OPTIONS"]
    shop.aliases["default"]["OPTIONS"] = {**options, "options": "-c search_path=front,public"}

    refused = shop.manage("bulksafe", "listen", "--once", code=2)
    assert named in refused.stderr
    assert "Drop it if it is not bulksafe's" in refused.stderr
    shop.run("DROP SCHEMA front CASCADE")
    shop.manage("bulksafe", "listen", "--once")
