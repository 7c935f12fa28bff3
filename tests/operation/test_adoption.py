"""Verifying and repairing a table of 20,000 rows: processes, signals, and writers beside them."""

import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.migration.project import environment
from tests.operation.processes import PATIENCE, wait_until

pytestmark = pytest.mark.once

ROWS = 20_000

BEFORE = """
class Order(models.Model):
    amount = models.IntegerField()
    discount = models.IntegerField(default=0)
    net = models.IntegerField(null=True, editable=False)
    twice = models.IntegerField(null=True, editable=False)
"""
AFTER = f"""{BEFORE}
    class Meta:
        triggers = [
            bulksafe.Check(Q(discount__lte=F("amount")), name="discount_within_amount"),
            bulksafe.Compute("net", F("amount") - F("discount")),
            bulksafe.Compute("twice", F("net") * 2),
        ]
"""
FILL = """
    INSERT INTO shop_order (amount, discount)
    SELECT n, CASE WHEN n %% 5000 = 0 THEN n + 1 ELSE 10 END FROM generate_series(11, %s) AS n
"""
#: The rows whose discount is larger than the amount.
BAD = "SELECT id FROM shop_order WHERE discount > amount ORDER BY id"
WRONG = """
    SELECT count(*) FROM shop_order
    WHERE (net, twice) IS DISTINCT FROM (amount - discount, 2 * (amount - discount))
"""


@pytest.fixture
def before(project):
    """The table without rules, with its rows."""
    project.models(BEFORE)
    project.make()
    project.migrate()
    project.run(FILL, ROWS + 10)
    project.models(AFTER)
    project.make()
    return project


@pytest.fixture
def site(before):
    """The rules are installed, and the rows as they were."""
    before.migrate()
    return before


@pytest.fixture
def started():
    """Starts a management command in a process of its own."""
    processes = []

    def start(project, *arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "manage.py", "bulksafe", *arguments],
            cwd=project.directory,
            env=environment(),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def value(project, statement):
    return project.run(statement)[0][0]


def wait_for_repairs(site, statement, is_reached):
    """Poll a number until it is reached. That may take as long as it keeps changing."""
    while not is_reached(number := value(site, statement)):
        wait_until(lambda number=number: value(site, statement) != number)


def test_the_way_of_a_rule_onto_a_table_with_rows(before):
    shown = before.manage("bulksafe", "verify", "--json", "--first", "2", code=1).stdout
    found = {one["invariant"]: one for one in json.loads(shown)["invariants"]}
    bad = [key for (key,) in before.run(BAD)]
    assert found["shop.Order:discount_within_amount"]["violations"] == len(bad) == 4
    assert found["shop.Order:discount_within_amount"]["first"] == bad[:2]
    assert found["shop.Order:compute_net"]["violations"] == ROWS
    assert found["shop.Order:compute_twice"]["violations"] == 0

    refused = before.manage("bulksafe", "backfill", code=2)
    assert "is missing in the database “default”" in refused.stderr

    before.migrate()
    result = before.manage("bulksafe", "backfill", "--json", "-v", "0", code=1)
    assert result.stderr == ""
    net, twice = json.loads(result.stdout)["invariants"]
    assert [row["key"] for row in net["remaining"]] == bad
    assert {row["message"] for row in net["remaining"]} == {
        "Invariant “discount_within_amount” is violated"
    }
    assert (net["repaired"], twice["repaired"], net["rows"]) == (ROWS - 4, 0, ROWS)

    before.run("UPDATE shop_order SET discount = 0 WHERE discount > amount")
    shown = before.manage("bulksafe", "verify").stdout
    assert f"shop.Order:compute_net: no violation in {ROWS:,} rows" in shown
    assert "Invariants verified: 3, with rows that break them: 0." in shown


def test_batches_are_committed_on_a_connection_without_autocommit(site):
    site.aliases["default"]["AUTOCOMMIT"] = False
    site.manage("bulksafe", "backfill", "--limit", "100", code=1)
    assert value(site, WRONG) == ROWS - 100
    site.manage("bulksafe", "verify", code=1)


def test_a_killed_backfill_goes_on_where_it_was(site, started):
    site.run("UPDATE shop_order SET discount = 0, net = NULL WHERE discount > amount")
    spoil(site)
    process = started(site, "backfill", "-v", "2", "--batch", "100", "--sleep", "0.005")
    for line in process.stderr:
        position = re.search(r"compute_twice --after (\d+)", line)
        if position and int(position[1]) > ROWS // 4:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    done = int(position[1])

    # Nothing that it had said to be done is lost, and the rest is as it was.
    assert value(site, f"{WRONG} AND id <= {done}") == 0
    left = value(site, WRONG)
    assert 0 < left <= ROWS - done

    shown = site.manage("bulksafe", "backfill", "--json", "shop.Order", "--after", done).stdout
    net, _ = json.loads(shown)["invariants"]
    assert net["repaired"] == left
    # It did not read the rows from the start again.
    assert net["rows"] == ROWS - done
    assert value(site, WRONG) == 0


def spoil(project):
    """Make every net wrong, as a write with a disabled trigger does."""
    project.run(
        "ALTER TABLE shop_order DISABLE TRIGGER USER; UPDATE shop_order SET net = -1;"
        "ALTER TABLE shop_order ENABLE TRIGGER USER"
    )


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backfill_says_how_to_go_on(site, started, sent):
    process = started(site, "backfill", "--batch", "10", "--sleep", "0.01")
    wait_for_repairs(site, WRONG, lambda wrong: wrong < ROWS - 1000)
    process.send_signal(sent)
    _, said = process.communicate(timeout=PATIENCE)
    assert sent == signal.SIGINT or process.returncode == 128 + signal.SIGTERM
    resume = (
        "Interrupted. To resume, run this with the same options as before: manage.py bulksafe "
        "backfill shop.Order:compute_net shop.Order:compute_twice --after "
    )
    assert resume in said
    position = re.search(r"--after (\d+)", said)
    assert value(site, f"{WRONG} AND id <= {position[1]} AND discount <= amount") == 0


def test_a_backfill_ends_in_the_middle_of_a_query(site, started):
    """The rest of the query must not replace what ends the backfill by an error."""
    site.run(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(3600); RETURN NEW; END'"
    )
    site.run(
        "CREATE TRIGGER linger BEFORE UPDATE ON shop_order FOR EACH ROW EXECUTE FUNCTION linger()"
    )
    process = started(site, "backfill")
    lingering = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: value(site, lingering) == 1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert said == "Interrupted.\n"
    wait_until(lambda: value(site, lingering) == 0)


def test_rows_in_use_are_left_to_the_end(site, started):
    with site.connect() as writer:
        writer.execute("BEGIN")
        writer.execute("UPDATE shop_order SET amount = 7000 WHERE id IN (3, 12000)")
        process = started(site, "backfill", "--json", "--batch", "500", "-v", "0")
        # All others are repaired while the writer is idle in its transaction.
        wait_for_repairs(site, f"{WRONG} AND discount <= amount", lambda wrong: wrong == 2)
        assert process.poll() is None
        writer.execute("COMMIT")
        out, said = process.communicate(timeout=PATIENCE)
    # The writer's own UPDATE has repaired the two.
    assert value(site, f"{WRONG} AND discount <= amount") == 0
    assert json.loads(out)["invariants"][0]["repaired"] == ROWS - 4 - 2
    assert said == ""


class Writer(threading.Thread):
    """Changes random rows, and measures how long each change takes."""

    def __init__(self, project, seed):
        super().__init__()
        self.connection = project.connect()
        self.random = random.Random(seed)
        self.pid = self.connection.info.backend_pid
        self.ended = threading.Event()
        self.times = []
        self.added = 0
        self.error = None

    def run(self):
        try:
            while not self.ended.is_set():
                keys = [self.random.randint(1, ROWS) for _ in range(3)]
                started = time.monotonic()
                # In any order, in one transaction: what deadlocks are made of.
                with self.connection.transaction():
                    for key in keys:
                        self.connection.execute(
                            "UPDATE shop_order SET amount = amount + 1 WHERE id = %s", [key]
                        )
                self.times.append(time.monotonic() - started)
                self.added += len(keys)
        except Exception as error:
            self.error = error
        finally:
            self.connection.close()


WAITS = """
    SELECT l.locktype
    FROM pg_locks AS l
    WHERE NOT l.granted AND l.pid = ANY (%s)
      AND EXISTS (
          SELECT FROM pg_stat_activity AS a
          WHERE a.pid = ANY (pg_blocking_pids(l.pid)) AND a.pid <> ALL (%s)
      )
"""


def test_writers_beside_a_backfill_wait_for_rows_at_most_and_never_fail(site, started):
    site.run("UPDATE shop_order SET discount = 0 WHERE discount > amount")
    spoil(site)
    total = value(site, "SELECT sum(amount) FROM shop_order")
    # Each in its own half, so that they do not wait for each other: a wait is the backfill's doing.
    writer = Writer(site, seed=7)
    writer.start()
    process = started(site, "backfill", "--json")
    waits = set()
    pids = [writer.pid]
    while process.poll() is None:
        waits |= {locktype for (locktype,) in site.run(WAITS, pids, pids)}
    writer.ended.set()
    writer.join()
    out, said = process.communicate()
    assert (process.returncode, writer.error) == (0, None), said
    assert json.loads(out)["invariants"][0]["remaining"] == []
    assert value(site, WRONG) == 0
    assert value(site, "SELECT sum(amount) FROM shop_order") == total + writer.added
    assert writer.added > 0
    # For rows of the batch in hand, if at all. How long is measured by benchmarks/adoption.py.
    assert waits <= {"transactionid", "tuple"}


def test_verify_takes_no_lock_that_a_writer_waits_for(site, started):
    """A writer that has the whole table for itself, apart from readers, goes on."""
    with site.connect() as writer:
        writer.execute("BEGIN")
        writer.execute("LOCK TABLE shop_order IN EXCLUSIVE MODE")
        process = started(site, "verify", "--json", "--batch", "1000")
        out, said = process.communicate(timeout=PATIENCE)
        writer.execute("COMMIT")
    assert (process.returncode, said) == (1, "")
    assert json.loads(out)["invariants"][1]["violations"] == ROWS


def test_progress_is_shown_on_a_terminal_only(site, started):
    leader, follower = pty.openpty()
    options = {"stdout": follower, "stderr": follower, "text": False}
    process = started(site, "verify", "--batch", "100", **options)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    process.wait(PATIENCE)
    assert re.search(rb"\r\x1b\[Kshop_order: [\d,]+ (of about [\d,]+ )?rows", shown)

    piped = site.manage("bulksafe", "verify", "--batch", "100", code=1)
    assert piped.stderr == ""
    assert "\x1b" not in piped.stdout
