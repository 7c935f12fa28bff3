import pytest
from django.contrib.auth.models import Group
from django.db import connection


@pytest.mark.parametrize("using", ["default", "other"])
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_psql_sees_what_django_committed(psql, using):
    Group.objects.using(using).create(name="pickers")

    assert psql("SELECT name FROM auth_group", using).stdout == "pickers\n"


def test_psql_copies_from_stdin_and_reports_failure(psql):
    assert psql("COPY auth_group (name) FROM STDIN", stdin="a\nb\n").returncode == 0
    assert Group.objects.count() == 2

    failed = psql("INSERT INTO auth_group (name) VALUES ('a')")
    assert failed.returncode == 3
    assert "auth_group_name_key" in failed.stderr


def test_the_server_is_the_one_in_the_header(psql, postgres):
    assert psql("SHOW server_version").stdout.startswith(postgres.version)
    assert connection.pg_version // 10_000 == int(postgres.version.split(".")[0])
