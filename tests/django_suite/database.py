"""The server that the suite runs on."""

import os
from contextlib import contextmanager

import psycopg

from examples import server
from tests.django_suite.labels import EXTENSIONS

#: Models of Django's tests name a collation of ICU's, which the embedded server is built without.
#: Databases are copies of template1.
_COLLATION = 'CREATE COLLATION "sv-x-icu" FROM "C"'
_HAS_COLLATION = "SELECT count(*) FROM pg_collation WHERE collname = 'sv-x-icu'"


@contextmanager
def running(kind):
    """A server of the kind, or the one that ``DATABASE_URL`` names."""
    found = server.start(kind, options=server.THROWAWAY)
    try:
        if "DATABASE_URL" not in os.environ:
            _stand_in_for_icu(found.url)
        yield found
    finally:
        found.stop()


def missing_extensions(url):
    """The extensions that the suite needs and the server has not."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
    return {name for names in EXTENSIONS.values() for name in names} - {name for (name,) in rows}


def _stand_in_for_icu(url):
    with psycopg.connect(url, dbname="template1", autocommit=True) as connection:
        if connection.execute(_HAS_COLLATION).fetchone() == (0,):
            connection.execute(_COLLATION)
