"""How the demo, the tests and the benchmarks obtain their PostgreSQL server."""

import getpass
import shutil

import psycopg
import pytest

from examples import server


def test_socket_directory_and_percent_encoding_are_understood():
    settings = server.database_settings(
        "postgresql://us%40er:p%2Fw@/my%20shop?host=%2Ftmp%2Fsocket&port=6432&sslmode=disable"
    )

    assert settings == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "my shop",
        "USER": "us@er",
        "PASSWORD": "p/w",
        "HOST": "/tmp/socket",
        "PORT": "6432",
        "OPTIONS": {"sslmode": "disable"},
    }


def test_settings_and_url_are_inverse():
    settings = server.database_settings("postgresql://u:p%26@db.example:5433/shop?sslmode=require")

    assert server.database_settings(server.database_url(settings)) == settings


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://maria@db.example", "maria"),
        ("postgresql://db.example", getpass.getuser()),
        ("postgresql:///?service=shop", ""),
    ],
)
def test_database_without_a_name_is_the_one_that_libpq_takes(url, name, monkeypatch):
    monkeypatch.delenv("PGDATABASE", raising=False)
    assert server.database_settings(url)["NAME"] == name


def test_database_url_overrides_and_is_never_stopped(postgres, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", postgres.url)

    found = server.start("system")
    found.stop()

    assert (found.url, found.version) == (postgres.url, postgres.version)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_unknown_kind_is_refused(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)

    with pytest.raises(server.ServerError, match="'embedded' or 'system'"):
        server.start("embeded")


@pytest.fixture
def kept(tmp_path):
    """A directory that outlives a server, where the server's user can enter it."""
    directory = server.keeping_directory(tmp_path / "postgres")
    yield directory
    shutil.rmtree(directory)


def test_kept_server_stops_with_its_last_user(kept, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    first = server.start(data=kept, options=server.THROWAWAY)
    second = server.start(data=kept)
    assert first.url == second.url

    first.stop()
    with psycopg.connect(second.url) as connection:
        connection.execute("CREATE TABLE kept (id int)")
    second.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(second.url)

    third = server.start(data=kept)
    with psycopg.connect(third.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    third.stop()


def test_a_server_that_fails_to_start_reports_the_reason(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)

    with pytest.raises(server.ServerError, match="no_such_setting"):
        server.start(options={"no_such_setting": "1"})
