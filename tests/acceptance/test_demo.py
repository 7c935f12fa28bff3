"""``make demo`` with few rows: its parts, its exit status and its clean-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from rich.console import Console

from examples import server
from examples.shop.demo import bars, paths, report
from examples.shop.demo.breaches import BREACHES
from examples.shop.demo.delivery import PATHS as DELIVERY_PATHS
from examples.shop.demo.delivery import CrashResult, Delivery, PathResult
from examples.shop.demo.errors import DemoError
from examples.shop.demo.matrix import Cell, Verdict
from examples.shop.demo.paths import PATHS
from examples.shop.demo.processes import Listener
from examples.shop.demo.refunding import NOT_RUN, Attempt, Outcome, Refunding, Side, Tried
from examples.shop.demo.refunding import Verdict as Came
from examples.shop.demo.tally import tally

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
ROWS = 20
EVENTS = 400
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

#: What the receivers of a refund leave behind, by write path.
LEFT = {
    "save": {"give_number", "keep_history", "keep_total"},
    "bulk_create": {"give_number", "keep_history", "keep_total"},
    "bulk_update": {"keep_history", "keep_total"},
    "update": {"keep_history", "keep_total"},
    "sql": {"keep_history", "keep_total"},
    "delete": {"keep_history", "keep_total"},
    "psql": {"give_number", "keep_history", "keep_total"},
}


def run(url: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/", "DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,  # for a run that hangs, however busy the machine is
    )


def run_demo(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    size = ["--rows", str(ROWS), "--orders", "300", "--events", str(EVENTS)]
    return run(url, "-m", "examples.shop.demo", *size, *arguments, **environment)


@pytest.fixture(scope="module")
def url(postgres) -> Iterator[str]:
    """A database of its own."""
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
    assert demo.returncode in {0, 1}, demo.stderr
    found = json.loads(demo.stdout)
    assert found["problems"] == []
    assert demo.returncode == 0
    return found


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


def test_a_refusal_shows_the_message_of_the_rule(results):
    said = {cell["rule"]: set() for cell in results["with"]}
    for cell in results["with"]:
        if cell["verdict"] == "refused":
            said[cell["rule"]].add(cell["message"])

    assert said[CHECK] == {"A discount lies between zero and the amount."}
    assert said[CHECK_ON_DELETE] == {"An entry of a closed period stays."}
    # Django's paths show the display names, psql the stored values.
    assert said.pop(TRANSITION) == {
        "“status” cannot change from “Cancelled” to “Paid”.",
        "“status” cannot change from “cancelled” to “paid”.",
        "“status” cannot start with “Paid”.",
    }
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


# The second part: receivers.


def test_django_runs_its_receivers_for_save_only(results):
    paths = results["receivers"]["paths"]

    assert [(t["path"], t["rows"], t["plain"]) for t in paths] == [
        ("save", ROWS, ROWS),
        ("bulk_create", ROWS, 0),
        ("update", ROWS, 0),
        ("sql", ROWS, 0),
        ("copy", ROWS, 0),
        ("psql", ROWS, 0),
    ]


def test_no_path_skips_a_critical_receiver(results):
    for path in results["receivers"]["paths"]:
        critical = path["critical"]
        assert (critical["due"], critical["made"]) == (ROWS, ROWS)
        assert (critical["twice"], critical["unasked"]) == (0, 0)


def test_the_listener_was_killed_in_the_middle_and_lost_nothing(results):
    crash = results["receivers"]["crash"]

    assert [where for where, _ in crash["kills"]] == ["a transaction", "a request"]
    assert all(0 < waiting <= EVENTS for _, waiting in crash["kills"])
    assert (crash["written"], crash["while_down"], crash["disordered"]) == (EVENTS, 100, 0)
    assert [(t["receiver"], t["due"], t["made"], t["twice"]) for t in crash["tallies"]] == [
        ("keep_history", EVENTS, EVENTS, 0),
        ("note_fulfilment, by Emit", 100, 100, 0),
        ("request_picking", 150, 150, 0),
    ]
    # Each of the two processes that were killed may have been in a request.
    assert 1 <= crash["again"] <= len(crash["kills"])
    assert crash["recovery"] > 0


@pytest.mark.usefixtures("demo")
def test_the_second_part_leaves_no_rows_or_listeners(url):
    with psycopg.connect(url) as connection:
        for query in (
            "SELECT count(*) FROM shop_auditlog",
            "SELECT count(*) FROM shop_signals_auditlog",
            "SELECT count(*) FROM bulksafe_parked",
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name LIKE 'bulksafe listen%'",
        ):
            assert connection.execute(query).fetchone() == (0,), query


@pytest.mark.usefixtures("demo")
def test_events_that_are_lost_end_in_failure(url):
    """A capture that is switched off stands for an event that was lost on the way."""
    with psycopg.connect(url, autocommit=True) as connection:
        (trigger,) = connection.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop_order'::regclass "
            "AND tgname LIKE 'bulksafe_bulksafe_capture_%_update'"
        ).fetchone()
        connection.execute(f"ALTER TABLE shop_order DISABLE TRIGGER {trigger}")
        try:
            failed = run_demo(
                url, "--replace", "--part", "receivers", "--only", "update", "--only", "copy"
            )
        finally:
            connection.execute(f"ALTER TABLE shop_order ENABLE TRIGGER {trigger}")

    assert failed.returncode == 1, failed.stderr
    text = " ".join(failed.stdout.split())
    assert f"update(value): keep_history: {ROWS} calls were lost." in text
    assert "COPY: keep_history" not in text
    assert "After the crash, keep_history: 250 calls were lost." in text
    assert "the listener was done before it was killed." in text


# The third part: receivers in the writer's transaction.


def made(outcome) -> dict[str, tuple[int, int]]:
    """How many calls of each receiver were due, and how many were made."""
    assert all(call["twice"] == call["unasked"] == 0 for call in outcome["calls"])
    return {call["receiver"]: (call["due"], call["made"]) for call in outcome["calls"]}


def test_every_path_writes_refunds_in_both_shops(results):
    tried = results["transaction"]["tried"]

    assert [one["path"] for one in tried] == list(LEFT)
    for one in tried:
        assert (one["rows"], one["plain"]["right"]["rows"]) == (ROWS, ROWS)
        assert one["critical"]["right"]["rows"] == (0 if one["elsewhere"] else ROWS)


def test_connected_receivers_are_called_by_save_and_delete_alone(results):
    for one in results["transaction"]["tried"]:
        calls = made(one["plain"]["right"])
        assert set(calls) == LEFT[one["path"]]
        for due, found in calls.values():
            assert 0 < due <= ROWS
            assert found == (due if one["path"] in SEEN_BY_SIGNALS else 0)


def test_critical_receivers_are_called_by_every_path_of_django(results):
    for one in results["transaction"]["tried"]:
        if one["elsewhere"]:
            continue
        calls = made(one["critical"]["right"])
        assert set(calls) == LEFT[one["path"]]
        assert all(0 < due == found for due, found in calls.values())
        # The due ones are the same in both shops: they have the same orders.
        plain = made(one["plain"]["right"])
        assert [due for due, _ in calls.values()] == [due for due, _ in plain.values()]


def test_a_mistake_is_refused_by_critical_receivers_on_every_path(results):
    came = {
        one["path"]: (one["plain"]["wrong"]["verdict"], one["critical"]["wrong"]["verdict"])
        for one in results["transaction"]["tried"]
    }

    assert came == {
        path: ("refused" if path in SEEN_BY_SIGNALS else "stored", "refused") for path in LEFT
    }
    for one in results["transaction"]["tried"]:
        assert one["critical"]["wrong"]["rows"] == 0
        assert one["plain"]["wrong"]["rows"] == (one["path"] not in SEEN_BY_SIGNALS)


def test_another_program_is_refused_with_the_names_of_the_receivers(results):
    (psql,) = [one for one in results["transaction"]["tried"] if one["elsewhere"]]
    critical = psql["critical"]

    assert (psql["title"], psql["plain"]["right"]["refusal"]) == ("psql", "")
    for message in (critical["right"]["refusal"], critical["wrong"]["message"]):
        assert NOT_RUN in message
        for name in ("rules", "number", "history", "total"):
            assert f"shop.refund_{name}" in message


@pytest.mark.usefixtures("demo")
def test_the_third_part_leaves_no_rows(url):
    with psycopg.connect(url) as connection:
        for table in (
            "shop_refund",
            "shop_refundtotal",
            "shop_signals_refund",
            "shop_signals_refundtotal",
            "bulksafe_buffer",
            "bulksafe_ticket",
        ):
            found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert found == (0,), table


@pytest.mark.usefixtures("demo")
def test_receivers_that_are_skipped_end_in_failure(url):
    """A capture that is switched off stands for a write that was missed."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE shop_refund DISABLE TRIGGER USER")
        try:
            only = [word for path in ("save", "update", "psql") for word in ("--only", path)]
            failed = run_demo(url, "--replace", "--part", "transaction", *only)
        finally:
            connection.execute("ALTER TABLE shop_refund ENABLE TRIGGER USER")

    assert failed.returncode == 1, failed.stderr
    text = " ".join(failed.stdout.split())
    assert f"update(value): keep_history: {ROWS} calls were lost." in text
    assert f"update(value): one of {ROWS} is too large, and the write was stored." in text
    assert f"psql: {ROWS} refunds were stored without the receivers." in text
    assert "save(): " not in text  # there Django sends its signals


def test_a_part_without_the_write_path_says_which_it_has(url):
    failed = run_demo(url, "--replace", "--part", "transaction", "--only", "copy")

    assert failed.returncode == 2
    assert "save, bulk_create, bulk_update, update, sql, delete, psql" in " ".join(
        failed.stderr.split()
    )


@pytest.mark.django_db(transaction=True)
def test_another_process_writes_if_psql_is_missing(monkeypatch):
    monkeypatch.setattr(paths.shutil, "which", lambda program: None)

    assert paths.other_program() == "psycopg"
    paths.run_psql("CREATE TABLE demo_other (id int)")
    try:
        with pytest.raises(paths.PsqlError, match='relation "demo_other" already exists'):
            paths.run_psql("CREATE TABLE demo_other (id int)")
    finally:
        paths.run_psql("DROP TABLE demo_other")


def test_a_listener_that_ends_is_reported_with_its_output(tmp_path):
    listener = Listener("", tmp_path / "log", ["-c", "raise SystemExit('no such queue')"])

    with pytest.raises(DemoError) as error, listener.running():
        listener.wait_until(lambda: False, "it is at work")

    assert "The listener ended before it is at work." in str(error.value)
    assert "no such queue" in str(error.value)


def test_a_listener_that_ignores_sigterm_is_killed(tmp_path):
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    there = "print(1, flush=True); signal.pause()"
    listener = Listener("", tmp_path / "log", ["-c", f"{deaf}; {there}"])
    listener.patience = 0.1

    with listener.running():
        listener.wait_until(lambda: bool(listener.log.read_text()), "it is deaf")
        with pytest.raises(DemoError, match="has not come so far that it is at work"):
            listener.wait_until(lambda: False, "it is at work", deadline=0.1)

    assert not listener.is_running


@pytest.mark.usefixtures("demo")
def test_the_printed_commands_work(url):
    assert run(url, "manage.py", "bulksafe", "ls", "shop").returncode == 0
    assert run(url, "manage.py", "bulksafe", "listen", "--once").returncode == 0
    assert run(url, "manage.py", "bulksafe", "status").returncode == 0

    statement = "UPDATE {} SET discount = amount + 1"
    psql = ("manage.py", "dbshell", "--", "-c")
    refused = run(url, *psql, statement.format("shop_order"))
    passed = run(url, *psql, statement.format("shop_signals_order"))
    past = run(url, *psql, report.PAST)

    assert refused.returncode != 0
    assert "A discount lies between zero and the amount." in refused.stderr
    assert passed.stdout.strip() == "UPDATE 300"
    assert past.returncode != 0
    assert NOT_RUN in past.stderr


@pytest.mark.usefixtures("demo")
def test_rows_of_a_given_database_are_not_replaced_without_replace(url):
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
            failed = run_demo(
                url, "--replace", "--part", "rules", "--only", "copy", "--only", "update"
            )
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
    tables, rest = shown.stdout.split("Look further")
    commands, result = rest.split("\n\n")
    before, after = tables.split("WITH bulksafe:")
    assert "WITHOUT bulksafe:" in before
    assert (before.count(f"broke {ROWS}"), after.count("broke")) == (5, 0)
    assert max(map(len, [*tables.splitlines(), *result.splitlines()])) <= width
    for command in ("ls shop", "listen", "status"):
        assert f"manage.py bulksafe {command}\n" in commands
    text = " ".join(result.split())
    assert text.startswith("Without bulksafe: 5 of 9 writes broke a rule. With bulksafe: 0 of 9.")
    assert f"events written {EVENTS}, delivered {EVENTS}, lost 0, twice" in text
    assert "were skipped, and 1 of 2 wrong writes stored. With bulksafe: 0 and 0." in text
    text = " ".join(tables.split())
    assert "psql cannot run receivers" in text
    assert NOT_RUN in text


def test_help_needs_no_database():
    shown = run("postgresql:///shop?host=/nowhere", "-m", "examples.shop.demo", "--help")

    assert shown.returncode == 0
    assert "examples:" in shown.stdout


def test_no_database_is_reported_without_a_traceback():
    failed = run_demo("postgresql:///shop?host=/nowhere")

    assert failed.returncode == 2
    assert "/nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_unknown_path_is_refused_with_the_list_of_paths(url):
    failed = run_demo(url, "--only", "bulk")

    assert failed.returncode == 2
    assert "bulk_create" in failed.stderr


def test_too_few_events_to_be_killed_among_are_refused(url):
    failed = run_demo(url, "--events", "20")

    assert failed.returncode == 2
    assert "--events 20 is too few" in failed.stderr


# Detecting lost calls.


def test_a_tally_of_calls_that_were_all_made_once():
    found = tally("keep", "a row", due=["a", "b"], seen=["b", "a"])

    assert (found.due, found.made, found.lost, found.twice, found.unasked) == (2, 2, 0, 0, 0)
    assert list(found.problems) == []


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (["a"], "keep: 1 calls were lost."),
        (["a", "b", "b"], "keep: 1 calls were made twice."),
        (["a", "b", "c"], "keep: 1 calls were made that were not due."),
        (["a", "a"], "keep: 1 calls were lost."),  # what came twice makes up for nothing
    ],
)
def test_a_tally_reports_lost_and_repeated_calls(seen, problem):
    found = tally("keep", "a row", due=["a", "b"], seen=seen)

    assert problem in found.problems


def made_up_delivery(seen=("a", "b"), kills=(("a request", 7), ("a transaction", 7)), **values):
    one = tally("keep_history", "a row in the database", due=["a", "b"], seen=seen)
    values = {"disordered": 0, "again": 1, **values}
    crash = CrashResult(2, 2, 0, kills=kills, recovery=1.5, tallies=[one], **values)
    return Delivery([PathResult("copy", "COPY", 2, 0, one)], crash)


def test_a_delivery_without_problems():
    assert made_up_delivery().problems == []


@pytest.mark.parametrize(
    ("delivery", "problem"),
    [
        (made_up_delivery(seen=["a"]), "After the crash, keep_history: 1 calls were lost."),
        (made_up_delivery(seen=["a"]), "COPY: keep_history: 1 calls were lost."),
        (
            made_up_delivery(kills=[]),
            "After the crash, the listener was done before it was killed.",
        ),
        (
            made_up_delivery(disordered=3),
            "After the crash, 3 orders have their history out of order.",
        ),
    ],
)
def test_a_delivery_sees_what_is_wrong(delivery, problem):
    results = report.Results("18.0", "6.1", 1_000, 57_000, [], [], [], delivery)

    assert problem in delivery.problems
    assert problem in results.problems
    assert problem in shown(results, no_color=True)


def side(made=("a", "b"), rows=2, refusal="", verdict=Came.REFUSED, message="Too large."):
    calls = [] if refusal else [tally("keep_total", "a total", due=["a", "b"], seen=made)]
    return Side(Outcome(rows, 0.1, refusal, calls), Attempt(verdict, 0, message))


def refunds(critical=None, plain=None, **values):
    values = {"path": "update", "title": "update(value)", "elsewhere": False, **values}
    mistake = "one of 2 is too large"
    skipped = side(made=(), verdict=Came.STORED)
    one = Tried(
        rows=2, mistake=mistake, plain=plain or skipped, critical=critical or side(), **values
    )
    return Refunding([one])


PSQL = {"path": "psql", "title": "psql", "elsewhere": True}


@pytest.mark.parametrize(
    "refunding",
    [
        refunds(),
        refunds(side(rows=0, refusal=f"ERROR:  {NOT_RUN}"), **PSQL),
    ],
)
def test_refunds_without_problems(refunding):
    assert refunding.problems == []


@pytest.mark.parametrize(
    ("refunding", "problem"),
    [
        (refunds(side(made=["a"])), "update(value): keep_total: 1 calls were lost."),
        (
            refunds(side(made=["a", "b", "b"])),
            "update(value): keep_total: 1 calls were made twice.",
        ),
        (refunds(side(rows=1)), "update(value): 1 refunds were written, not 2."),
        (refunds(side(refusal="No such column.")), "update(value): No such column."),
        (
            refunds(side(verdict=Came.STORED)),
            "update(value): one of 2 is too large, and the write was stored.",
        ),
        (
            refunds(side(verdict=Came.ERROR, message="No such column.")),
            "update(value): one of 2 is too large: No such column.",
        ),
        (
            refunds(plain=side(verdict=Came.ERROR, message="No such column.")),
            "update(value): Without bulksafe, one of 2 is too large: No such column.",
        ),
        (
            refunds(plain=side(refusal="No such column.")),
            "update(value): Without bulksafe: No such column.",
        ),
        (refunds(**PSQL), "psql: 2 refunds were stored without the receivers."),
        (refunds(side(rows=0, refusal="no such user"), **PSQL), "psql: no such user"),
    ],
)
def test_failed_refunds_are_reported(refunding, problem):
    results = report.Results("18.0", "6.1", 1_000, 57_000, [], [], [], None, refunding)

    assert refunding.problems == [problem]
    assert results.problems == [problem]
    assert problem in shown(results, no_color=True)


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


def test_each_step_fits_a_screen():
    """100 columns and 40 lines, of which the bar of the step takes one."""
    cells = [
        Cell(path.name, breach.label, Verdict.BROKE, rows=1_000, seconds=0.7)
        for path in PATHS
        for breach in BREACHES
    ]
    held = [replace(cell, verdict=Verdict.REFUSED, rows=0, message="No.") for cell in cells]
    impossible = replace(cells[0], verdict=Verdict.IMPOSSIBLE)
    delivery = made_up_delivery()
    delivery = replace(
        delivery,
        paths=[replace(delivery.paths[0], title=path.title) for path in DELIVERY_PATHS],
        crash=replace(delivery.crash, tallies=delivery.crash.tallies * 3),
    )
    psql = refunds(side(rows=0, refusal=NOT_RUN), **PSQL).tried
    refunding = Refunding([*refunds().tried * 6, *psql])
    results = report.Results(
        "18.0", "6.1", 1_000, 57_000, PATHS, [impossible, *cells[1:]], held, delivery, refunding
    )

    console = Console(file=StringIO(), width=100)
    lines = []
    for step in report.STEPS:
        report.show_step(step, results, console)
        lines.append(console.file.getvalue().count("\n"))
    report.show_result(results, console)
    lines.append(console.file.getvalue().count("\n"))

    heights = [after - before for before, after in pairwise([0, *lines])]
    assert all(0 < height < 40 for height in heights), heights
    text = console.file.getvalue().partition("Look further")[0]
    assert max(map(len, text.splitlines())) <= 100
    assert "\N{HORIZONTAL ELLIPSIS}" not in text.replace("INSERT … SELECT", "").replace(
        "WITH … UPDATE", ""
    )


def test_a_refusal_shows_no_time_that_looks_slower_than_the_loop():
    """A loop of save() stops at its first row: its time compares with nothing."""
    text = shown(made_up(Verdict.BROKE, rows=1_000, seconds=0.7), no_color=True)

    assert (text.count("700 ms"), text.count("broke 1,000")) == (1, 5)


def test_the_result_comes_last():
    text = shown(made_up(Verdict.BROKE, rows=1_000), no_color=True)

    assert "Without bulksafe: " in text.splitlines()[-1]


def test_a_bar_moves_within_a_stage():
    progress = bars.progress(Console(file=StringIO()))
    stages = bars.Stages(progress, total=2)
    (task,) = progress.tasks

    stages.begin("one")
    stages.share(0.5)
    assert (task.completed, task.description) == (0.5, "one")
    stages.begin("two")
    assert (task.completed, task.description) == (1, "two")
    stages.end("both")
    assert (task.completed, task.finished, task.description) == (2, True, "both")


def test_tables_are_readable_without_colour():
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
