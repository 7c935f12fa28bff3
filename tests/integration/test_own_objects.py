"""Our own objects are checked before they are used: another role may have created some first."""

from contextlib import contextmanager

import pytest
from django.core.management import CommandError
from django.db import DatabaseError, connection, transaction

from bulksafe.management.subcommands import ownership
from bulksafe.outbox import own, schema, shape

pytestmark = pytest.mark.django_db


def test_the_migrations_create_what_the_list_says():
    """``python -m tests.migration.own_objects`` writes the list again."""
    assert list(shape.differences("default", "public")) == []
    assert list(shape.strangers("default", "public")) == []
    assert list(shape.shadows("default", "public")) == []
    assert len(shape.expected()) > 150


OWN = f"""
    DROP TABLE bulksafe_ticket, bulksafe_receiver CASCADE;
    DROP FUNCTION {", ".join(own.FUNCTIONS)};
    DROP TABLE bulksafe_buffer, bulksafe_staged, bulksafe_violation;
    DROP SEQUENCE bulksafe_violation_limit
"""
OUTBOX = """
    DROP TABLE bulksafe_outbox, bulksafe_cursor, bulksafe_started, bulksafe_parked, bulksafe_worker,
        bulksafe_outbox_identity CASCADE;
    DROP SEQUENCE bulksafe_outbox_seq, bulksafe_outbox_slot, bulksafe_call_seq
"""


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def create_role(name):
    execute(f"CREATE ROLE {name}; GRANT CREATE, USAGE ON SCHEMA public TO {name}")


@contextmanager
def role(name):
    execute(f"SET LOCAL ROLE {name}")
    yield
    execute("RESET ROLE")


@pytest.fixture
def mallory(db):
    """A role with CREATE before the migrations, as every role has on PostgreSQL 14."""
    create_role("bulksafe_mallory")
    execute(f"{OWN}; {OUTBOX}")


BEFORE = [
    "CREATE TABLE bulksafe_outbox (slot int)",
    "CREATE TABLE bulksafe_outbox_1 (slot int)",
    "CREATE TABLE bulksafe_buffer (xid xid8, seq bigint)",
    "CREATE TABLE bulksafe_ticket (xid xid8)",
    "CREATE UNLOGGED TABLE bulksafe_worker (host text)",
    "CREATE VIEW bulksafe_cursor AS SELECT 1 AS one",
    "CREATE SEQUENCE bulksafe_outbox_seq",
    "CREATE SEQUENCE bulksafe_parked_id_seq",
    "CREATE TYPE bulksafe_parked AS (id bigint)",
    "CREATE TYPE bulksafe_receiver AS ENUM ('a')",
    "CREATE DOMAIN bulksafe_started AS text",
    "CREATE FUNCTION bulksafe_prefix() RETURNS text LANGUAGE sql RETURN 'x'",
    "CREATE FUNCTION bulksafe_take(integer, text, integer) RETURNS text LANGUAGE sql RETURN 'x'",
    "CREATE TABLE mine (id int); CREATE INDEX bulksafe_parked_due ON mine (id)",
]


@pytest.mark.parametrize("is_superuser", [True, False])
@pytest.mark.parametrize("sql", BEFORE)
def test_objects_that_another_role_created_before_the_migrations(sql, is_superuser, mallory):
    with role("bulksafe_mallory"):
        execute(sql)
    if not is_superuser:
        execute(
            "CREATE ROLE bulksafe_owner; GRANT CREATE, USAGE ON SCHEMA public TO bulksafe_owner"
        )
        execute("SET LOCAL ROLE bulksafe_owner")
    with pytest.raises((CommandError, DatabaseError)) as raised, transaction.atomic():
        schema.create("default")
    execute("RESET ROLE")

    assert "belongs to bulksafe_mallory" in str(raised.value)
    assert "drop" in str(raised.value)


def test_the_migrating_role_need_not_be_a_superuser(mallory):
    execute("CREATE ROLE bulksafe_owner; GRANT CREATE, USAGE ON SCHEMA public TO bulksafe_owner")
    with role("bulksafe_owner"):
        schema.create("default")
        schema.create("default")
    assert list(shape.differences("default", "public")) == []


CHANGES = [
    ("ALTER TABLE bulksafe_buffer ADD extra text", "column extra text"),
    ("ALTER TABLE bulksafe_parked DROP CONSTRAINT bulksafe_parked_state_check", "lacks"),
    ("ALTER TABLE bulksafe_buffer ALTER seq DROP DEFAULT", "column seq"),
    ("ALTER TABLE bulksafe_buffer ALTER key TYPE varchar", "column key character varying"),
    ("DROP INDEX bulksafe_parked_due", "lacks"),
    ("CREATE INDEX ON bulksafe_buffer (key)", "index CREATE INDEX"),
    (
        "CREATE TRIGGER spy AFTER INSERT ON bulksafe_buffer FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger CREATE TRIGGER spy",
    ),
    ("ALTER TABLE bulksafe_ticket DISABLE TRIGGER bulksafe_ticket_open", "lacks"),
    ("DROP TRIGGER bulksafe_ticket_open ON bulksafe_ticket", "lacks"),
    ("CREATE RULE spy AS ON INSERT TO bulksafe_buffer DO ALSO NOTIFY spy", "rule CREATE RULE spy"),
    ("ALTER TABLE bulksafe_buffer ENABLE ROW LEVEL SECURITY", "row security"),
    ("CREATE POLICY spy ON bulksafe_buffer", "policy spy"),
    ("CREATE TABLE spy () INHERITS (bulksafe_buffer)", "parent of spy"),
    ("ALTER SEQUENCE bulksafe_outbox_seq CACHE 10", "cache 10"),
    ("ALTER TABLE bulksafe_buffer SET LOGGED", "relation r p"),
    ("ALTER FUNCTION bulksafe_take SECURITY INVOKER", "lacks"),
    ("ALTER FUNCTION bulksafe_take RESET search_path", "lacks"),
    (
        "CREATE FUNCTION bulksafe_prefix(int) RETURNS int LANGUAGE sql RETURN $1",
        "function (integer)",
    ),
    (
        "CREATE ROLE bulksafe_x; ALTER TABLE bulksafe_buffer OWNER TO bulksafe_x",
        "belongs to bulksafe_x",
    ),
    ("CREATE TEMP TABLE bulksafe_cursor (queue text)", "comes before"),
    (
        "CREATE SCHEMA front; SET LOCAL search_path = front, public; "
        "CREATE FUNCTION front.bulksafe_take(oid) RETURNS int LANGUAGE sql RETURN 1",
        "comes before",
    ),
]


@pytest.mark.parametrize(("sql", "named"), CHANGES)
def test_doctor_finds_every_change(sql, named):
    execute(sql)
    facts = [fact for fact, _ in ownership.findings("default")]
    assert any(named in fact for fact in facts), facts
    refusal = pytest.raises((CommandError, DatabaseError), match=r"did not create|belongs to")
    with refusal, transaction.atomic():
        schema.create("default")


def test_a_temporary_table_does_not_stand_for_ours(mallory):
    """A session of the role that migrates may have one, and the migrations create their own."""
    execute(
        "CREATE TEMP TABLE bulksafe_outbox (slot int); CREATE TEMP TABLE bulksafe_buffer (x int)"
    )
    execute("CREATE TEMP SEQUENCE bulksafe_outbox_seq")
    assert not schema.exists("default")
    with pytest.raises(CommandError, match="comes before bulksafe's own"):
        schema.create("default")
    execute("DROP TABLE pg_temp.bulksafe_outbox, pg_temp.bulksafe_buffer")
    execute("DROP SEQUENCE pg_temp.bulksafe_outbox_seq")
    schema.create("default")
    assert list(shape.differences("default", "public")) == []
