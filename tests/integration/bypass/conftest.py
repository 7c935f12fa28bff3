"""Objects of other programs in the database, and receivers of articles."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.db import connections
from django.db.models.signals import post_delete, post_save

from bulksafe.outbox import own
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.bypass.writes import check_words, stored
from tests.integration.inline_committed import (  # noqa: F401
    ARTICLES,
    TICKET,
    _django_db_helper,
    clean,
    committed,
    execute,
    insert,
)

#: What other programs find in a database. %s is an INSERT of an article.
SCENERY = f"""
    CREATE SCHEMA bypass;
    CREATE TABLE bypass.other (id bigint);
    CREATE TABLE bypass.deferred (id bigint);
    CREATE TABLE bypass.ruled (id bigint);
    CREATE VIEW bypass.seen AS SELECT * FROM {ARTICLES};
    CREATE FUNCTION bypass.in_sql() RETURNS void LANGUAGE sql AS $f$ {insert("function")} $f$;
    CREATE FUNCTION bypass.in_plpgsql() RETURNS int LANGUAGE plpgsql AS $f$
        BEGIN
            {insert("function")};
            RETURN 1;
        END
    $f$;
    CREATE PROCEDURE bypass.procedure() LANGUAGE plpgsql AS $f$
        BEGIN
            {insert("procedure")};
        END
    $f$;
    CREATE PROCEDURE bypass.committing() LANGUAGE plpgsql AS $f$
        BEGIN
            INSERT INTO bypass.other VALUES (1);
            COMMIT;
            {insert("after its commit")};
        END
    $f$;
    CREATE FUNCTION bypass.on_other() RETURNS trigger LANGUAGE plpgsql AS $f$
        BEGIN
            {insert("trigger")};
            RETURN NULL;
        END
    $f$;
    CREATE TRIGGER other AFTER INSERT ON bypass.other
        FOR EACH ROW WHEN (new.id > 1) EXECUTE FUNCTION bypass.on_other();
    CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON bypass.deferred
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bypass.on_other();
    CREATE RULE ruled AS ON INSERT TO bypass.ruled DO ALSO {insert("rule")};
"""


@pytest.fixture(scope="module", autouse=True)
def scenery(committed) -> Iterator[None]:  # noqa: F811
    execute(SCENERY)
    yield
    connections.close_all()
    execute("DROP SCHEMA bypass CASCADE")


@pytest.fixture
def calls(clean):  # noqa: F811
    """The calls of a receiver of saved articles, and of one of deleted ones."""
    execute("DELETE FROM bypass.other")
    return inline.critical([post_save, post_delete], Article, dispatch_uid="warehouse")


_VERBOSE = re.compile(
    r"ERROR: +(?P<sqlstate>\w{5}): (?P<message>.*?)^DETAIL: +(?P<detail>.*?)^HINT: +(?P<hint>.*?)"
    r"^(?:CONTEXT.*?)?SCHEMA NAME: +(?P<schema>\S+)$.*^TABLE NAME: +(?P<table>\S+)$.*"
    r"^CONSTRAINT NAME: +(?P<constraint>\S+)$",
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture
def refused_in_psql(psql, calls):
    """Runs a script in psql and expects that the database refuses it, whole."""

    def run(script, **words):
        connections.close_all()
        before = stored()
        done = psql(f"\\set VERBOSITY verbose\n{script}")
        assert done.returncode == 3, (done.stdout, done.stderr)
        found = _VERBOSE.search(done.stderr)
        assert found, done.stderr
        assert found["sqlstate"] == "23000"
        assert (found["table"], found["constraint"]) == (ARTICLES, TICKET)
        check_words(found["message"], found["detail"], found["hint"], **words)
        assert stored() == before
        assert calls == []
        return done

    return run


@pytest.fixture
def clerk(committed) -> Iterator[str]:  # noqa: F811
    """A role that may write articles, and that the settings name as one of the application's."""
    execute("CREATE ROLE bypass_clerk")
    execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {ARTICLES} TO bypass_clerk")
    execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO bypass_clerk")
    execute("REVOKE ALL ON SEQUENCE bulksafe_outbox_seq, bulksafe_outbox_slot FROM bypass_clerk")
    execute(f"GRANT EXECUTE ON FUNCTION {', '.join(own.WRITING)} TO bypass_clerk")
    yield "bypass_clerk"
    connections.close_all()
    execute("DROP OWNED BY bypass_clerk")
    execute("DROP ROLE bypass_clerk")
