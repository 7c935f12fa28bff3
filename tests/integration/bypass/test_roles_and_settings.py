"""Roles, schemas, search paths and settings."""

from __future__ import annotations

import pytest
from django.db import transaction

from bulksafe.exceptions import ReceiversNotRun
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration.bypass.writes import stored
from tests.integration.inline_committed import (
    ARTICLES,
    execute,
    insert,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_role_without_rights_on_bulksafe_s_tables(refused_in_psql, clerk):
    refused_in_psql(f"SET ROLE {clerk}; {insert()};\n")


@pytest.mark.parametrize("table", ["bulksafe_buffer", "bulksafe_ticket", "bulksafe_receiver"])
@pytest.mark.parametrize("what", ["SELECT FROM", "DELETE FROM", "TRUNCATE"])
def test_a_role_without_rights_may_neither_read_nor_tamper(table, what, psql, clerk, calls):
    done = psql(f"SET ROLE {clerk}; {what} {table}")

    assert done.returncode == 3
    assert "permission denied" in done.stderr


def test_a_role_without_rights_writes_through_django(clerk, calls):
    execute(f"SET ROLE {clerk}")
    try:
        Article.objects.create(title="one")
        with transaction.atomic():
            Article.objects.bulk_create([Article(title="two")])
            Article.objects.update(title="three")
        Article.objects.all().delete()
    finally:
        execute("RESET ROLE")

    assert len(calls) == 6
    assert stored() == []


def test_a_hostile_search_path(psql, refused_in_psql):
    """Functions, operators and tables of the names that are used, in front of all others."""
    try:
        refused_in_psql(
            "CREATE SCHEMA trap; CREATE TABLE trap.bulksafe_ticket (xid xid8);"
            "CREATE TABLE trap.bulksafe_buffer (LIKE public.bulksafe_buffer);"
            "CREATE FUNCTION trap.pg_current_xact_id() RETURNS xid8 LANGUAGE sql "
            "AS $$ SELECT '3'::xid8 $$;"
            "CREATE FUNCTION trap.pg_trigger_depth() RETURNS int LANGUAGE sql AS $$ SELECT 7 $$;"
            "CREATE FUNCTION trap.current_setting(text, boolean) RETURNS text LANGUAGE sql "
            "AS $$ SELECT '{*}' $$;"
            "CREATE FUNCTION trap.eq(xid8, xid8) RETURNS boolean LANGUAGE sql "
            "AS $$ SELECT false $$;"
            "CREATE OPERATOR trap.= (LEFTARG = xid8, RIGHTARG = xid8, FUNCTION = trap.eq);"
            f"SET search_path = trap, pg_catalog, public; {insert(table='public.' + ARTICLES)};\n"
        )
    finally:
        execute("DROP SCHEMA trap CASCADE")


@pytest.mark.parametrize("way", ["bulk", "raw"])
def test_a_search_path_that_would_redirect_django(way, calls):
    """Another ``bulksafe_take`` in front is not called: the trigger names the schema of ours."""
    execute(
        "CREATE SCHEMA trap; "
        'CREATE FUNCTION trap.bulksafe_take(oid, "char", bigint, bigint) '
        "RETURNS SETOF public.bulksafe_buffer LANGUAGE sql "
        "AS $$ SELECT * FROM public.bulksafe_buffer WHERE false $$; "
        "CREATE FUNCTION trap.bulksafe_prefix() RETURNS text LANGUAGE sql RETURN 'trap'"
    )
    try:
        execute("SET search_path = trap, public")
        if way == "bulk":
            Article.objects.bulk_create([Article(title="kept")])
        else:
            execute(insert("kept"))
    finally:
        execute("SET search_path = public")
        execute("DROP SCHEMA trap CASCADE")
    assert titles() == ["kept"]
    (call,) = calls
    assert not (call["event_id"] or "").startswith("trap")


def test_disabled_triggers_bypass_receivers(psql, calls):
    """As for all triggers, and documented: a superuser may."""
    done = psql(f"SET session_replication_role = replica; {insert('replicated')}")

    assert done.returncode == 0, done.stderr
    assert titles() == ["replicated"]
    assert calls == []


def test_triggers_disabled_only_at_the_commit(refused_in_psql):
    refused_in_psql(f"BEGIN; {insert()}; SET LOCAL session_replication_role = replica; COMMIT;\n")


def test_muting_bypasses_receivers_on_purpose(psql, calls):
    label = "practice.CriticalArticle:bulksafe_capture"
    done = psql(f"BEGIN; SET LOCAL bulksafe.muted = '{{{label}}}'; {insert('muted')}; COMMIT")

    assert done.returncode == 0, done.stderr
    assert titles() == ["muted"]
    assert calls == []


# Which function takes the changes: the database says where it is.


@pytest.mark.parametrize(
    "arguments", ["integer, text, integer, integer", "bigint, text, bigint, bigint"]
)
def test_a_function_of_another_role_is_not_called(calls, arguments):
    """In the same schema, it would fit bare numbers better."""
    execute(
        f"CREATE FUNCTION public.bulksafe_take({arguments}) RETURNS SETOF bulksafe_buffer "
        "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$"
    )
    try:
        Article.objects.bulk_create([Article(title="one")])
        execute(f"UPDATE {ARTICLES} SET title = 'two'")
    finally:
        execute(f"DROP FUNCTION public.bulksafe_take({arguments})")
    assert len(calls) == 2


def test_a_role_that_may_not_take_is_refused(calls):
    """And is shown nothing of the rows."""
    execute("CREATE ROLE bulksafe_clerk")
    try:
        execute(f"GRANT INSERT, SELECT, UPDATE ON {ARTICLES} TO bulksafe_clerk")
        execute(f"GRANT USAGE ON SEQUENCE {ARTICLES}_id_seq TO bulksafe_clerk")
        for write in (
            lambda: Article.objects.create(title="one"),
            lambda: Article.objects.bulk_create([Article(title="one")]),
            lambda: execute(insert("one")),
        ):
            refusal = pytest.raises(ReceiversNotRun, match=r'BULKSAFE."WRITER_ROLES".')
            with refusal, transaction.atomic():
                execute("SET LOCAL ROLE bulksafe_clerk")
                write()
    finally:
        execute("DROP OWNED BY bulksafe_clerk; DROP ROLE bulksafe_clerk")
    assert titles() == []
