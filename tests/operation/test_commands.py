"""The command line of the listener and its maintenance: bad input, help, exit codes."""

import json
import signal
import socket
import subprocess
import sys

import pytest

from tests.migration.project import environment
from tests.operation.conftest import declare, order, texts
from tests.operation.processes import PATIENCE, listening, wait_until

pytestmark = pytest.mark.once

SUBCOMMANDS = (
    *(
        "ls",
        "verify",
        "backfill",
        "listen",
        "status",
        "retry",
        "discard",
        "prune",
        "replay",
        "doctor",
    ),
)


@pytest.fixture
def site(shop):
    return shop(notify="", mail='queue="mail", atomic=False')


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_help_has_examples_and_the_exit_status(project, subcommand):
    shown = project.manage("bulksafe", subcommand, "--help").stdout

    assert f"manage.py bulksafe {subcommand}" in shown.partition("examples:")[2]
    assert "exit status: 0" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["listen", "--queues", "mial"], "No receiver has the queue 'mial'. Did you mean 'mail'?"),
        (["listen", "--queues", ","], "--queues lists no queue"),
        (["listen", "--concurrency", "0"], "'0' is not a number from 1 to 256"),
        (["listen", "--concurrency", "mail=two"], "'two' is not a number from 1 to 256"),
        (["listen", "--concurrency", "mial=2"], "'mial' is not served. Did you mean 'mail'?"),
        (["listen", "--max-memory", "much"], "'much' is not a size: write 512M or 2G"),
        (["status", "--max-lag", "soon"], "'soon' is not a number of seconds"),
        (["listen", "--health-port", "65536"], "'65536' is not a number from 0 to 65535"),
        (["listen", "--database", "nowhere"], "There is no database 'nowhere'"),
        (["listen", "--database", "lite"], "The database 'lite' is not PostgreSQL"),
        (["status", "--database", "nowhere"], "There is no database 'nowhere'"),
        (["retry"], "Select events: give ids"),
        (["discard"], "Select events: give ids"),
        (["discard", "--undelivered", "--queue", "mail"], "cannot be combined with ids"),
        (["retry", "x"], "invalid int value: 'x'"),
        (["prune", "--older-than", "soon"], "'soon' is not an age"),
        (["verify", "--batch", "0"], "'0' is not a positive number"),
        (["verify", "--database", "nowhere"], "There is no database 'nowhere'"),
        (["verify", "shop.Nothing"], "No invariant matches 'shop.Nothing'"),
        (["backfill", "--limit", "-1"], "'-1' is not a positive number"),
        (["backfill", "--sleep", "long"], "'long' is not a number of seconds"),
        (["lisen"], "invalid choice: 'lisen'"),
    ],
)
def test_bad_arguments(site, arguments, said):
    site.aliases["lite"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}

    failed = site.manage("bulksafe", *arguments, code=2)

    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("subcommand", ["listen", "status", "prune", "doctor"])
def test_a_database_without_the_migrations(project, subcommand):
    project.models("class Order(models.Model):\n    pass\n")

    failed = project.manage("bulksafe", subcommand, code=2)

    assert "has no outbox: run “manage.py migrate --database default”" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_port_that_is_taken(site):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        failed = site.manage("bulksafe", "listen", "--once", "--health-port", str(port), code=2)

    assert f"Port {port} cannot be used" in failed.stderr


def test_a_missing_server(site):
    site.aliases["default"]["HOST"] = "/nowhere"

    failed = site.manage("bulksafe", "status", code=2)

    assert "The database query failed" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_once_serves_the_chosen_queues_only(site):
    order(site, "good")

    site.manage("bulksafe", "listen", "--once", "--queues", "mail")
    assert texts(site) == ["mail good 0"]
    site.manage("bulksafe", "listen", "--once", "--queues", "default,mail")
    assert texts(site) == ["mail good 0", "notify good 0"]


def test_once_does_not_end_at_stale_cursors(site):
    site.manage("bulksafe", "listen", "--once")
    site.run("UPDATE bulksafe_cursor SET served_at = now() - interval '1 hour'")
    order(site, "good")

    site.manage("bulksafe", "listen", "--once")

    assert sorted(texts(site)) == ["mail good 0", "notify good 0"]


def test_once_waits_for_cursors_locked_by_another_listener(site):
    order(site, "good")
    with site.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT FROM bulksafe_cursor FOR UPDATE")
        with listening(site, "--once") as (process, log):
            wait_until(lambda: "listening for" in log.read_text(), log)
            connection.execute("COMMIT")
            process.wait(PATIENCE)

    assert sorted(texts(site)) == ["mail good 0", "notify good 0"]


def test_status_shows_the_backlog_and_the_missing_listener(site):
    order(site, "good")

    failed = site.manage("bulksafe", "status", code=1)
    queues = json.loads(site.manage("bulksafe", "status", "--json", code=1).stdout)["queues"]

    assert "No listener serves the queue 'mail'" in failed.stdout
    assert {(q["queue"], q["waiting"]) for q in queues} == {("default", 1), ("mail", 1)}
    site.manage("bulksafe", "listen", "--once")
    assert "No listener" not in site.manage("bulksafe", "status").stdout


#: A listener parks the event after the first, the second, … query of status.
PARKED_MEANWHILE = """
import subprocess, sys
from itertools import count
from bulksafe.dispatch.sources import known
from bulksafe.outbox.state import state
from bulksafe.outbox.store import Store
from shop.models import Order

class Meanwhile(Store):
    def rows(self, *args, **kwargs):
        found = super().rows(*args, **kwargs)
        self.queries -= 1
        if self.queries == 0:
            once = [sys.executable, "manage.py", "bulksafe", "listen", "--once"]
            subprocess.run(once, capture_output=True)
        return found

for number in count(1):
    Order.objects.create(number="bad")
    store = Meanwhile("default")
    store.queries = number
    (queue,) = state(store, known("default")).queues
    print(queue.waiting + queue.parked + queue.dead >= number, store.queries <= 0)
    if store.queries > 0:
        break
"""


def test_an_event_that_is_parked_meanwhile_is_counted(shop):
    project = shop(strict="max_attempts=1")

    printed = project.python(PARKED_MEANWHILE).splitlines()

    assert len(printed) > 2
    assert printed == ["True True"] * (len(printed) - 1) + ["True False"]


def test_the_default_queue_is_served_without_receivers(shop):
    project = shop(notify="max_attempts=1")
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)
    project.manage("bulksafe", "retry", "--all")
    declare(project, notify='queue="mail"')

    assert "No listener serves the queue 'default'" in (
        project.manage("bulksafe", "status", code=1).stdout
    )
    assert "Events wait in the queue 'default'" in (
        project.manage("bulksafe", "doctor", code=1).stdout
    )


def test_the_log_as_json(site):
    order(site, "good")

    done = site.manage("bulksafe", "listen", "--once", "--log-format", "json")

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0]["message"] == "listening for default, mail on 'default'"
    assert lines[-1]["message"] == "stopped after 2 calls"


def test_doctor_finds_a_capture_that_is_off(site):
    assert "No findings." in site.manage("bulksafe", "doctor").stdout
    site.run("ALTER TABLE shop_order DISABLE TRIGGER USER")

    found = site.manage("bulksafe", "doctor", code=1).stdout

    assert "shop.Order:bulksafe_capture is disabled" in found


def test_doctor_finds_unserved_and_unstarted_queues(site):
    path = site.directory / "shop/receivers.py"
    path.write_text(path.read_text().replace('queue="mail"', 'queue="post"'))

    found = site.manage("bulksafe", "doctor", code=1).stdout

    assert "The queue 'post' with atomic=False was never started" in found
    assert "No receiver of this code has the queue 'mail' with atomic=False" in found
    # A listener of this code would not serve it.
    assert "Events wait in the queue 'mail'" not in found
    order(site, "good")
    assert "No receiver of this code has the queue 'mail'" in (
        site.manage("bulksafe", "status", code=1).stdout
    )
    # The listener says so when it starts.
    assert found.splitlines()[-2] in site.manage("bulksafe", "listen", "--once").stderr
    site.migrate()
    assert "The queue 'mail' was forgotten" in site.manage("bulksafe", "prune", "--queues").stdout
    assert "No findings." in site.manage("bulksafe", "doctor").stdout


def test_migrate_drops_and_recreates_the_outbox(site):
    site.migrate("shop", "zero")
    site.migrate("bulksafe", "zero")
    assert site.run("SELECT to_regclass('bulksafe_outbox')") == [(None,)]
    site.migrate()
    order(site, "good")
    site.manage("bulksafe", "listen", "--once")
    assert sorted(texts(site)) == ["mail good 0", "notify good 0"]


@pytest.fixture
def with_dead_letters(shop):
    project = shop(strict='max_attempts=1, on_dead="skip"')
    for number in range(3):
        order(project, f"bad{number}")
    project.manage("bulksafe", "listen", "--once", code=1)
    return project


def test_discard_announces_what_it_would_do(with_dead_letters):
    def discard(*arguments, **expected):
        return with_dead_letters.manage("bulksafe", "discard", *arguments, **expected).stdout

    assert "Would discard 3 parked events." in discard("--all", "--dry-run")
    assert "Would discard 1 parked event." in discard("1", "--dry-run")
    assert "Nothing was discarded." in discard("--all", code=1, answers="no\n")
    assert "Nothing was discarded." in discard("--all", code=1)
    assert with_dead_letters.run("SELECT count(*) FROM bulksafe_parked") == [(3,)]
    assert "2 parked events were discarded" in discard("1", "2")
    assert "1 parked event was discarded" in discard("--all", answers="yes\n")
    assert "Would discard 0 parked events." in discard("--all", "--dry-run", code=1)


def test_discard_with_noinput_does_not_prompt(with_dead_letters):
    done = with_dead_letters.manage("bulksafe", "discard", "--all", "--noinput")

    assert "3 parked events were discarded" in done.stdout


def test_a_truncated_list_says_so(with_dead_letters):
    shown = with_dead_letters.manage("bulksafe", "status", "--parked", "--limit", "2", code=1)

    assert shown.stdout.splitlines()[-1] == "… and 1 more: --limit 3"
    whole = with_dead_letters.manage("bulksafe", "status", "--parked", code=1)
    assert "more" not in whole.stdout


def test_the_keys_of_json_are_the_headings_of_the_tables(with_dead_letters):
    shown = with_dead_letters.manage("bulksafe", "status", "--parked", code=1).stdout
    found = with_dead_letters.manage("bulksafe", "status", "--parked", "--json", code=1).stdout
    found = json.loads(found)

    headings = shown.splitlines()[0].split()
    assert headings == list(found["queues"][0])
    headings = next(line for line in shown.splitlines() if line.startswith("id ")).split()
    assert set(headings) <= set(found["parked"][0])


@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_stops_reading(with_dead_letters, lines):
    process = subprocess.Popen(
        [sys.executable, "manage.py", "bulksafe", "status", "--json", "--parked"],
        cwd=with_dead_letters.directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert process.wait(PATIENCE) in (1, 128 + signal.SIGPIPE)
    assert said == b""


def test_doctor_and_the_log_name_a_call_that_takes_long(site):
    with site.connect() as connection:
        connection.execute("BEGIN; LOCK TABLE shop_log")
        with listening(site) as (_, log):
            order(site, "good")
            wait_until(
                lambda: (
                    "notify" in site.manage("bulksafe", "doctor", "--held", "0.5", code=None).stdout
                ),
                log,
            )
            found = site.manage("bulksafe", "doctor", "--held", "0.5", code=1).stdout
            assert "The receiver 'notify' has run for" in found
            assert "for shop_order 1, in process" in found
            wait_until(lambda: "notify has run for 1" in log.read_text(), log)
            connection.execute("COMMIT")
