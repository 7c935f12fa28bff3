"""Captures run with the rights of the installing role: into which table do they write?"""

import pytest
from django.db import ProgrammingError, connection, transaction
from django.db.models import Q
from django.db.models.signals import post_save

from tests.apps.columns.models import Guarded
from tests.integration import reception

pytestmark = pytest.mark.django_db


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with reception.only_these():
        yield


@pytest.fixture
def mallory(db):
    """A role that may create tables in a schema of its own, and has made an outbox there."""
    execute("CREATE ROLE bulksafe_mallory")
    execute("CREATE SCHEMA trap AUTHORIZATION bulksafe_mallory")
    execute("CREATE TABLE trap.bulksafe_outbox (LIKE bulksafe_outbox)")
    execute("CREATE SEQUENCE trap.bulksafe_outbox_slot")
    execute("ALTER TABLE trap.bulksafe_outbox OWNER TO bulksafe_mallory")


def test_an_outbox_of_another_role_on_the_search_path(mallory):
    """Its triggers would run with the rights of the capture's owner, a superuser here."""
    reception.declare(post_save, Guarded)
    execute("SET LOCAL search_path = trap, public")
    with (
        pytest.raises(ProgrammingError, match=r"bulksafe_outbox belongs to bulksafe_mallory"),
        transaction.atomic(),
    ):
        reception.capture(Guarded)
    execute("SET LOCAL search_path = public")

    reception.capture(Guarded)


def test_an_outbox_of_the_table_s_owner_is_fine(mallory):
    """A superuser migrates on behalf of another role."""
    reception.declare(post_save, Guarded)
    execute(f'ALTER TABLE "{Guarded._meta.db_table}" OWNER TO bulksafe_mallory')
    execute("SET LOCAL search_path = trap, public")

    reception.capture(Guarded)


def test_a_role_that_is_a_member_of_the_owner(mallory):
    reception.declare(post_save, Guarded)
    execute("CREATE ROLE bulksafe_team IN ROLE bulksafe_mallory")
    execute("GRANT CREATE, USAGE ON SCHEMA public TO bulksafe_team")
    execute(f'ALTER TABLE "{Guarded._meta.db_table}" OWNER TO bulksafe_team')
    execute("SET LOCAL search_path = trap, public")
    execute("SET LOCAL ROLE bulksafe_team")

    reception.capture(Guarded)
    execute("RESET ROLE")


def test_a_database_without_an_outbox():
    reception.declare(post_save, Guarded)
    execute("DROP TABLE bulksafe_outbox CASCADE")

    with pytest.raises(ProgrammingError, match="own tables are missing in this database"):
        reception.capture(Guarded)


def test_a_function_named_like_the_one_that_binds_conditions():
    """Another role made it first, with other arguments: its body was taken for the condition."""
    execute("CREATE ROLE bulksafe_eve; GRANT CREATE, USAGE ON SCHEMA public TO bulksafe_eve")
    execute("SET LOCAL ROLE bulksafe_eve")
    execute("CREATE FUNCTION bulksafe_condition(text) RETURNS boolean LANGUAGE sql RETURN true")
    execute("RESET ROLE")

    calls = reception.listen(post_save, Guarded, when=Q(new__amount=5))
    Guarded.objects.create(amount=1)
    assert calls.delivered() == []
    Guarded.objects.create(amount=5)
    assert len(calls.delivered()) == 1


def test_a_temporary_outbox_is_not_written_to():
    """The session that migrates has one in front, as every session may."""
    execute("CREATE TEMP TABLE bulksafe_outbox (LIKE bulksafe_outbox)")
    execute("CREATE TEMP SEQUENCE bulksafe_outbox_slot")
    reception.declare(post_save, Guarded)
    reception.capture(Guarded)
    execute("DROP TABLE pg_temp.bulksafe_outbox; DROP SEQUENCE pg_temp.bulksafe_outbox_slot")

    Guarded.objects.create(amount=1)

    assert execute("SELECT count(*) FROM bulksafe_outbox") == [(1,)]


@pytest.mark.parametrize("name", ["bulksafe_buffer", "bulksafe_ticket", "bulksafe_outbox_0"])
def test_another_role_s_table_beside_the_outbox(name):
    """No capture writes there: its triggers would run with the rights of the capture's owner."""
    execute("CREATE ROLE bulksafe_eve; GRANT CREATE, USAGE ON SCHEMA public TO bulksafe_eve")
    execute(f"ALTER TABLE {name} OWNER TO bulksafe_eve")
    reception.declare(post_save, Guarded)
    with (
        pytest.raises(ProgrammingError, match=f"{name} belongs to bulksafe_eve"),
        transaction.atomic(),
    ):
        reception.capture(Guarded)
