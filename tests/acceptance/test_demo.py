"""``make demo``, small: its two halves, its exit status, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from rich.console import Console

from examples import server
from examples.shop.demo import report
from examples.shop.demo.breaches import BREACHES
from examples.shop.demo.matrix import Cell, Verdict
from examples.shop.demo.paths import PATHS

ROOT = Path(__file__).resolve().parents[2]
ROWS = 20
CHECK, COMPUTE, IMMUTABLE, TRANSITION, CHECK_ON_DELETE = (breach.label for breach in BREACHES)
ANY_UPDATE = {CHECK, COMPUTE, IMMUTABLE, TRANSITION}
ANY_INSERT = {CHECK, COMPUTE, TRANSITION}
DELETION = {CHECK_ON_DELETE}

#: The rules that each write path can break.
TRIED = {
    "save": ANY_UPDATE,
    "bulk_create": ANY_INSERT,
    "abulk_create": ANY_INSERT,
    "upsert": ANY_UPDATE,
    "bulk_update": ANY_UPDATE,
    "update": ANY_UPDATE,
    "update-f": ANY_UPDATE,
    "delete": DELETION,
    "raw_delete": DELETION,
    "sql": ANY_UPDATE | DELETION,
    "executemany": ANY_UPDATE | DELETION,
    "insert-select": ANY_INSERT,
    "cte": ANY_UPDATE | DELETION,
    "merge": ANY_UPDATE | DELETION,
    "copy": ANY_INSERT,
    "truncate": DELETION,
    "psql": ANY_UPDATE | DELETION,
}
SEEN_BY_SIGNALS = {"save", "delete"}


def run(url: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/", "DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def run_demo(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    size = ["--rows", str(ROWS), "--orders", "300"]
    return run(url, "-m", "examples.shop.demo", *size, *arguments, **environment)


@pytest.fixture(scope="module")
def url(postgres) -> Iterator[str]:
    """A database that nobody else uses."""
    name = f"demo_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield server.database_url(server.database_settings(postgres.url) | {"NAME": name})
        connection.execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="module")
def demo(url) -> subprocess.CompletedProcess[str]:
    """The first run, in an empty database."""
    return run_demo(url, "--json")


@pytest.fixture(scope="module")
def results(demo):
    assert demo.returncode == 0, demo.stderr
    return json.loads(demo.stdout)


def verdicts(cells) -> dict[tuple[str, str], tuple[str, int]]:
    return {(cell["path"], cell["rule"]): (cell["verdict"], cell["rows"]) for cell in cells}


def expected(without: bool) -> dict[tuple[str, str], tuple[str, int]]:
    found = {}
    for path in PATHS:
        for rule in (breach.label for breach in BREACHES):
            if rule not in TRIED[path.name]:
                found[path.name, rule] = ("impossible", 0)
            elif without and path.name not in SEEN_BY_SIGNALS:
                found[path.name, rule] = ("broke", ROWS)
            else:
                found[path.name, rule] = ("computed" if rule == COMPUTE else "refused", 0)
    return found


def test_without_bulksafe_every_path_that_sends_no_signals_breaks_the_rules(results):
    assert verdicts(results["without"]) == expected(without=True)


def test_with_bulksafe_no_path_breaks_a_rule(results):
    assert verdicts(results["with"]) == expected(without=False)
    assert results["summary"] == {"tried": 60, "broke_without": 55, "broke_with": 0}


def test_a_refusal_is_in_the_rules_own_words(results):
    said = {cell["rule"]: set() for cell in results["with"]}
    for cell in results["with"]:
        if cell["verdict"] == "refused":
            said[cell["rule"]].add(cell["message"])

    assert said[CHECK] == {"A discount lies between zero and the amount."}
    assert said[CHECK_ON_DELETE] == {"An entry of a closed period stays."}
    assert all(len(messages) == 1 for rule, messages in said.items() if rule != COMPUTE)


def test_every_attempt_took_time(results):
    tried = [c for c in results["without"] + results["with"] if c["verdict"] != "impossible"]

    assert all(0 < cell["seconds"] < 60 for cell in tried)


@pytest.mark.usefixtures("demo")
def test_the_shops_are_left_alike_and_as_they_were_loaded(url):
    with psycopg.connect(url) as connection:
        for table in ("order", "ledgerentry", "orderline"):
            query = f"SELECT * FROM shop_{table} EXCEPT ALL SELECT * FROM shop_signals_{table}"
            assert connection.execute(query).fetchall() == []
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("shop_order", "shop_signals_order", "shop_ledgerentry")
        ]
    assert counts == [300, 300, 600]


@pytest.mark.usefixtures("demo")
def test_the_printed_commands_work(url):
    assert run(url, "manage.py", "bulksafe", "ls", "shop").returncode == 0

    statement = "UPDATE {} SET discount = amount + 1"
    psql = ("manage.py", "dbshell", "--", "-c")
    refused = run(url, *psql, statement.format("shop_order"))
    passed = run(url, *psql, statement.format("shop_signals_order"))

    assert refused.returncode != 0
    assert "A discount lies between zero and the amount." in refused.stderr
    assert passed.stdout.strip() == "UPDATE 300"


@pytest.mark.usefixtures("demo")
def test_rows_of_a_given_database_are_not_replaced_unasked(url):
    refused = run_demo(url)

    assert refused.returncode == 2
    assert "--replace" in refused.stderr


@pytest.mark.usefixtures("demo")
def test_a_rule_that_does_not_hold_ends_in_failure(url):
    with psycopg.connect(url, autocommit=True) as connection:
        (trigger,) = connection.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop_order'::regclass "
            "AND tgname LIKE 'pgtrigger_discount_within_amount_%'"
        ).fetchone()
        connection.execute(f"ALTER TABLE shop_order DISABLE TRIGGER {trigger}")
        try:
            failed = run_demo(url, "--replace", "--only", "copy", "--only", "update")
        finally:
            connection.execute(f"ALTER TABLE shop_order ENABLE TRIGGER {trigger}")

    assert failed.returncode == 1, failed.stderr
    text = " ".join(failed.stdout.split())
    assert "With bulksafe: 2 of 7." in text
    for path in ("copy", "update"):
        assert f"With bulksafe, {path} on {CHECK}: {ROWS} rows break the rule." in text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.usefixtures("demo")
def test_tables_when_piped(url, width):
    shown = run_demo(url, "--replace", "--only", "save", "--only", "psql", COLUMNS=str(width))

    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout + shown.stderr
    before, after = shown.stdout.split("WITH bulksafe:")
    assert "WITHOUT bulksafe:" in before
    assert (before.count(f"broke {ROWS}"), after.split("How to")[0].count("broke")) == (5, 0)
    assert "Without bulksafe: 5 of 9 writes broke a rule. With bulksafe: 0 of 9." in after
    tables, commands = shown.stdout.split("Look further")
    assert max(map(len, tables.splitlines())) <= width
    assert "manage.py bulksafe ls shop\n" in commands


def test_help_needs_no_database():
    shown = run("postgresql:///shop?host=/nowhere", "-m", "examples.shop.demo", "--help")

    assert shown.returncode == 0
    assert "examples:" in shown.stdout


def test_no_database_is_reported_without_a_traceback():
    failed = run_demo("postgresql:///shop?host=/nowhere")

    assert failed.returncode == 2
    assert "/nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_path_that_does_not_exist_is_refused_with_those_that_do(url):
    failed = run_demo(url, "--only", "bulk")

    assert failed.returncode == 2
    assert "bulk_create" in failed.stderr


# The report, of results that are made up.


def made_up(verdict: Verdict, **values) -> report.Results:
    cells = [Cell("copy", breach.label, verdict, **values) for breach in BREACHES]
    held = [replace(cell, verdict=Verdict.REFUSED, rows=0) for cell in cells]
    paths = [path for path in PATHS if path.name == "copy"]
    return report.Results("18.0", "6.1", 1_000, 57_000, paths, cells, held)


def shown(results: report.Results, **options) -> str:
    console = Console(file=StringIO(), force_terminal=True, width=120, **options)
    report.show(results, console)
    return console.file.getvalue()


def test_cells_have_colours_and_words():
    text = shown(made_up(Verdict.BROKE, rows=1_000), color_system="standard")

    assert "\x1b[1;31mbroke 1,000" in text
    assert "\x1b[32mrefused" in text


def test_words_alone_are_enough():
    text = shown(made_up(Verdict.BROKE, rows=1_000), no_color=True)

    assert "broke 1,000" in text
    assert "refused" in text
    assert "\x1b[31m" not in text
    assert "\x1b[32m" not in text


def test_an_attempt_that_went_wrong_is_a_problem_and_is_explained():
    results = made_up(Verdict.ERROR, message="ProgrammingError: no such column")

    assert len(results.problems) == len(BREACHES)
    text = shown(results, color_system="standard")
    assert "\x1b[1;33merror" in text
    assert "no such column" in text
