"""A replay among writers, listeners of other versions, and interruptions."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from tests.migration.project import environment
from tests.operation.conftest import RECEIVERS, change, declare, mend, texts
from tests.operation.processes import PATIENCE, wait_until

pytestmark = pytest.mark.once

MANY = "INSERT INTO shop_order (number, amount) SELECT n::text, 0 FROM generate_series(1, %s) AS n"


@pytest.fixture
def site(shop):
    """A shop with rows that no listener has to deliver any more."""

    def make(**receivers):
        project = shop(**receivers)
        project.run(MANY, 20)
        project.manage("bulksafe", "listen", "--once")
        project.run("TRUNCATE shop_log")
        return project

    return make


@pytest.fixture
def replaying():
    """Starts a replay in a process of its own."""
    started = []

    def start(project, *arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "manage.py", "bulksafe", "replay", *arguments],
            cwd=project.directory,
            env=environment(),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def is_waiting_for_a_lock(project):
    return project.run(
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'"
    )


@pytest.mark.parametrize("options", ["", 'queue="search"', "atomic=False", "coalesce=True"])
def test_a_listener_calls_the_one_receiver(site, options):
    project = site(index=options, other="")
    said = project.manage("bulksafe", "replay", "index", "--where", 'number__in=["3", "7"]')
    project.manage("bulksafe", "listen", "--once")

    assert "shop.Order: 2 rows, 2 events for the queue" in said.stdout
    assert sorted(texts(project)) == ["index 3 0", "index 7 0"]
    assert "No findings." in project.manage("bulksafe", "doctor").stdout


def test_a_failed_call_is_parked_and_blocks_its_row(site):
    project = site(index="max_attempts=1", other="")
    project.run("UPDATE shop_order SET number = 'bad' WHERE number = '3'")
    project.manage("bulksafe", "listen", "--once", code=1)
    project.manage("bulksafe", "discard", "--all", "--noinput")
    project.manage("bulksafe", "replay", "index", "--where", "number=bad")
    change(project, "bad", 7)
    project.manage("bulksafe", "listen", "--once", code=1)
    mend(project)
    project.manage("bulksafe", "retry", "--all")
    project.manage("bulksafe", "listen", "--once")

    assert [text for text in texts(project) if text.startswith("index")] == [
        "index bad 0",
        "index bad 7",
    ]


def test_the_image_waits_for_and_includes_an_uncommitted_change(site, replaying):
    project = site(index="")
    with project.connect() as writer:
        # The writer would be the victim of a deadlock.
        writer.execute("SET deadlock_timeout = '10ms'")
        writer.execute("BEGIN")
        writer.execute("UPDATE shop_order SET amount = 5 WHERE number = '7'")
        process = replaying(project, "index")
        wait_until(lambda: is_waiting_for_a_lock(project))
        # Only the one row is locked by the other side: a writer can go on with all the others.
        writer.execute("UPDATE shop_order SET amount = 5 WHERE number <> '7'")
        writer.execute("COMMIT")
    _, errors = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, errors
    project.manage("bulksafe", "listen", "--once")
    # The change, and then the replayed row with the changed amount.
    assert [text for text in texts(project) if text.startswith("index 7 ")] == 2 * ["index 7 5"]
    assert {text for text in texts(project) if text.endswith(" 5")} == {
        f"index {number} 5" for number in range(1, 21)
    }


def test_a_change_during_the_replay_is_delivered_after_the_replayed_row(site):
    project = site(index="")
    changed = []

    def write():
        with project.connect() as writer:
            for number in [*range(1, 21)] * 5:
                writer.execute(
                    "UPDATE shop_order SET amount = amount + 1 WHERE number = %s", [str(number)]
                )
                changed.append(number)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(3):
        project.manage("bulksafe", "replay", "index", "--batch", "3")
    thread.join()
    project.manage("bulksafe", "listen", "--once")

    assert len(changed) == 100
    for number in map(str, range(1, 21)):
        amounts = [int(t.split()[2]) for t in texts(project) if t.split()[1] == number]
        assert amounts == sorted(amounts)
        assert amounts[-1] == 5
        assert len(amounts) == 5 + 3


def test_a_listener_without_the_receiver_keeps_the_event_for_one_that_has_it(site):
    project = site(index='queue="search"', other="")
    project.manage("bulksafe", "replay", "index", "--where", "number=3")
    change(project, "3", 9)
    declare(project, other="", third='queue="search"')
    # The code of before: it serves the queue and lacks the receiver.
    project.manage("bulksafe", "listen", "--once")
    assert sorted(texts(project)) == ["other 3 9", "third 3 9"]

    declare(project, index='queue="search"', other="")
    project.manage("bulksafe", "listen", "--once")
    assert [text for text in texts(project) if "index" in text] == ["index 3 0"]
    assert "No findings." in project.manage("bulksafe", "doctor").stdout


def test_a_listener_without_the_table_keeps_the_event_for_the_one_receiver(site):
    project = site(index="", other="", third='queue="search"')
    project.manage("bulksafe", "replay", "index", "--where", "number=3")
    project.write("shop/receivers.py", RECEIVERS)
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == []

    # Code that has the table but not yet the receiver.
    declare(project, other="", third='queue="search"')
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == []

    declare(project, index="", other="", third='queue="search"')
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == ["index 3 0"]
    assert project.run("SELECT count(*) FROM bulksafe_parked") == [(0,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_says_how_to_continue(site, replaying, number):
    project = site(index="")
    selected = 'number__in=["5", "6", "7", "8"]'
    with project.connect() as writer:
        writer.execute("BEGIN")
        writer.execute("UPDATE shop_order SET amount = 5 WHERE number = '7'")
        process = replaying(project, "index", "--batch", "1", "--where", selected)
        wait_until(lambda: is_waiting_for_a_lock(project))
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
        writer.execute("ROLLBACK")

    (command,) = [line for line in errors.splitlines() if line.startswith("manage.py")]
    assert "--model shop.Order --after 6" in command
    project.manage(*shlex.split(command)[1:])
    project.manage("bulksafe", "listen", "--once")
    assert sorted(texts(project)) == ["index 5 0", "index 6 0", "index 7 0", "index 8 0"]


def test_progress_overwrites_itself_on_a_terminal_only(site, replaying):
    project = site(index="")
    said = project.manage("bulksafe", "replay", "index", "--batch", "5").stdout
    assert said == "shop.Order: 20 rows, 20 events for the queue 'default', last key 20.\n"
    assert project.manage("bulksafe", "replay", "index", "-v", "0").stdout == ""

    reader, terminal = pty.openpty()
    process = replaying(project, "index", "--batch", "5", stdout=terminal)
    process.communicate(timeout=PATIENCE)
    os.close(terminal)
    shown = os.read(reader, 100_000).decode()
    os.close(reader)
    assert "\r\x1b[Kshop.Order: 5 of about" in shown
    assert shown.endswith(
        "\r\x1b[Kshop.Order: 20 rows, 20 events for the queue 'default', last key 20.\r\n"
    )


def test_a_capture_that_is_off_is_refused(site):
    project = site(index="")
    project.run("ALTER TABLE shop_order DISABLE TRIGGER USER")
    failed = project.manage("bulksafe", "replay", "index", code=2)
    assert "shop.Order:bulksafe_capture is disabled" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: RECEIVER"),
        (["idnex"], "There is no receiver 'idnex'. Did you mean 'index'?"),
        (["index", "--where", "number"], "'number' is neither LOOKUP=VALUE nor a JSON object"),
        (["index", "--where", "{number: 1}"], "is not JSON"),
        (["index", "--where", "colour=red"], "Cannot resolve keyword 'colour' into field"),
        (["index", "--batch", "0"], "'0' is not a positive number"),
        (["index", "--sleep", "nan"], "'nan' is not a number of seconds"),
        (["index", "--after", "x"], "invalid input syntax for type bigint"),
        (["index", "--model", "shop.Log"], "'index' is not a receiver of 'shop.Log'"),
    ],
)
def test_bad_arguments(shop, arguments, said):
    failed = shop(index="").manage("bulksafe", "replay", *arguments, code=2)
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_replay_under_repeatable_read(site):
    project = site(index="")
    project.aliases["default"]["OPTIONS"] = {
        **project.aliases["default"]["OPTIONS"],
        "options": "-c default_transaction_isolation=repeatable\\ read",
    }
    project.manage("bulksafe", "replay", "index", "--where", "number=3")
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == ["index 3 0"]
