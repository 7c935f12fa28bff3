"""Receivers that hang, end their process or grow: nothing but their own row waits for them."""

import json
import signal
import subprocess
import sys

import pytest

from tests.migration.project import environment
from tests.operation.conftest import TAKEN_TOGETHER, order, texts
from tests.operation.processes import PATIENCE, listening, wait_until
from tests.operation.test_dead_letters import parked, status

pytestmark = pytest.mark.once

BOTH = pytest.mark.parametrize("atomic", [True, False])

#: A receiver that does something bad on rows whose number begins with “bad”, and notes each attempt
#: in a file: what it writes to the database is gone with it.
RECEIVERS = """
import contextlib, ctypes, os, signal, time
import bulksafe
from django.db import connection, transaction
from django.db.models.signals import post_save
from shop.models import Log, Order

def attempt(instance):
    with open({attempts!r}, "a") as file:
        file.write(f"{{instance.number}}\\n")

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="bad", {options})
def bad(sender, instance, **kwargs):
    if instance.number.startswith("bad"):
        attempt(instance)
        {deed}
    Log.objects.create(text=f"bad {{instance.number}}")

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="other", queue="other")
def other(sender, instance, **kwargs):
    Log.objects.create(text=f"other {{instance.number}}")
"""

HANGS = {
    "in Python": "time.sleep(3600)",
    "in a statement": "connection.cursor().execute('SELECT pg_sleep(3600)')",
    "in C, deaf to signals": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}); time.sleep(3600)"
    ),
    "with an alarm of its own": (
        "signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.alarm(1); time.sleep(3600)"
    ),
    "with the interpreter's lock": "ctypes.PyDLL(None).sleep(3600)",
    "whatever is raised": (
        "[time.sleep(0.01) for _ in iter(int, 1) if contextlib.suppress(BaseException)"
        ".__enter__() is None]"
    ),
}
ENDS = {
    "exit": "os._exit(3)",
    "exit as if well": "os._exit(0)",
    "signal": "os.kill(os.getpid(), signal.SIGKILL)",
    "crash": "ctypes.string_at(0)",
}


@pytest.fixture
def site(shop):
    """Makes the project with a receiver that does a deed on bad rows."""

    def make(deed, options, **settings):
        project = shop(placeholder="")
        known = {"RETRY_DELAY": 0.000001, "LEASE": 5, "SLOW_CALL": 0.5, "TIMEOUT": 60, **settings}
        project.settings(f"BULKSAFE = {known!r}\n")
        project.attempts = project.directory / "attempts"
        project.attempts.touch()
        text = RECEIVERS.format(attempts=str(project.attempts), deed=deed, options=options)
        project.write("shop/receivers.py", text)
        project.migrate()
        return project

    return make


def attempts(project):
    return project.attempts.read_text().split()


@BOTH
@pytest.mark.parametrize("hang", HANGS)
def test_a_call_that_hangs_is_ended_and_its_attempts_are_counted(site, hang, atomic):
    project = site(HANGS[hang], f"timeout=0.3, max_attempts=2, atomic={atomic}")
    order(project, "bad")
    order(project, "good")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert attempts(project) == ["bad", "bad"]
    assert parked(project) == [("bad", "1", "dead", 2)]
    assert sorted(texts(project)) == ["bad good", "other bad", "other good"]
    ((error,),) = project.run("SELECT error FROM bulksafe_parked")
    assert "CallTimedOut: bad exceeded its timeout of 0.3 s" in error


@pytest.mark.parametrize("closing", ["connection.close()", "connection.connection.close()"])
def test_a_call_that_hangs_without_a_connection_counts_as_an_attempt(site, closing):
    project = site(f"{closing}; time.sleep(3600)", "timeout=0.3, max_attempts=2, atomic=False")
    order(project, "bad")

    done = project.manage("bulksafe", "listen", "--once", code=1)

    assert attempts(project) == ["bad", "bad"]
    assert "it is replaced" not in done.stderr
    ((error,),) = project.run("SELECT error FROM bulksafe_parked")
    assert "CallTimedOut: bad exceeded its timeout of 0.3 s" in error


def test_a_call_that_fails_in_another_database_without_a_connection(site):
    """It says what failed, not that the connection was lost."""
    failing = "connection.close(); raise OperationalError('of another database')"
    project = site(failing, "max_attempts=1, atomic=False")
    path = project.directory / "shop/receivers.py"
    path.write_text("from django.db import OperationalError\n" + path.read_text())
    order(project, "bad")

    project.manage("bulksafe", "listen", "--once", code=1)

    ((error,),) = project.run("SELECT error FROM bulksafe_parked")
    assert "OperationalError: of another database" in error


ASYNCHRONOUS = """
import asyncio

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="later", {options})
async def later(sender, instance, **kwargs):
    if instance.number.startswith("bad"):
        try:
            await asyncio.sleep(3600)
        finally:
            attempt(Order(number="cancelled"))
    await Log.objects.acreate(text=f"later {{instance.number}}")
"""


@BOTH
def test_an_asynchronous_call_that_hangs_is_cancelled_and_its_attempts_are_counted(site, atomic):
    """Its coroutine ends before the next call begins: in its own thread it could go on."""
    project = site("pass", "")
    path = project.directory / "shop/receivers.py"
    options = f"timeout=0.3, max_attempts=2, atomic={atomic}"
    path.write_text(path.read_text() + ASYNCHRONOUS.format(options=options))
    project.migrate()
    order(project, "bad")
    order(project, "good")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert attempts(project).count("cancelled") == 2
    assert parked(project) == [("later", "1", "dead", 2)]
    assert "later good" in texts(project)
    assert "later bad" not in texts(project)


@BOTH
@pytest.mark.parametrize("end", ENDS)
def test_a_call_that_ends_its_process_counts_as_an_attempt(site, end, atomic):
    project = site(ENDS[end], f"max_attempts=3, atomic={atomic}")
    order(project, "bad")
    order(project, "good")

    done = project.manage("bulksafe", "listen", "--once", code=1)

    assert attempts(project) == ["bad"] * 3
    assert parked(project) == [("bad", "1", "dead", 3)]
    assert sorted(texts(project)) == ["bad good", "other bad", "other good"]
    assert done.stderr.count(": receiver bad gave up on shop.Order 1 after 3 attempts: ") == 1


@BOTH
def test_other_rows_and_queues_go_on_while_a_call_hangs(site, atomic):
    """Until its timeout, it holds its row and its worker, and nothing else."""
    project = site("time.sleep(3600)", f"atomic={atomic}")
    with listening(project, "--concurrency", "default=2") as (process, log):
        order(project, "bad")
        wait_until(lambda: attempts(project), log)
        for number in range(40):
            order(project, f"good{number}")
        wait_until(lambda: len(texts(project)) == 81, log)

        assert {text.split()[0] for text in texts(project)} == {"bad", "other"}
        project.run("UPDATE shop_order SET amount = 1 WHERE number = 'good7'")
        wait_until(lambda: len(texts(project)) == 83, log)

        def running():
            workers = status(project, code=0)["workers"]
            return [(w["receiver"], w["source"], w["key"]) for w in workers if w["receiver"]]

        wait_until(lambda: running() == [("bad", "shop_order", "1")], log)
        assert "running: bad for shop_order 1" in project.manage("bulksafe", "status").stdout
        # The first signal would wait for the call; the second gives it up.
        process.terminate()
        wait_until(lambda: "finishing the batches" in log.read_text(), log)
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_a_slow_call_runs_alone_and_finishes(site):
    """It is no failure; what it had begun in the batch is rolled back with it."""
    project = site("Log.objects.create(text='begun'); time.sleep(1.5)", "max_attempts=1")
    for number in ("good1", "bad1", "good2", "bad2"):
        order(project, number)

    done = project.manage("bulksafe", "listen", "--once")

    assert "receiver bad is slow: its calls run alone" in done.stderr
    assert sorted(t for t in texts(project) if not t.startswith("other")) == [
        "bad bad1",
        "bad bad2",
        "bad good1",
        "bad good2",
        "begun",
        "begun",
    ]


@BOTH
def test_a_call_that_eats_memory(site, atomic):
    project = site(
        "hoard = [bytes(range(256)) * 4096 for _ in iter(int, 1)]",
        f"max_attempts=2, atomic={atomic}",
        SLOW_CALL=60,
    )
    order(project, "bad")
    order(project, "good")

    project.manage("bulksafe", "listen", "--once", "--max-memory", "300M", code=1)

    assert parked(project) == [("bad", "1", "dead", 2)]
    assert attempts(project) == ["bad", "bad"]
    ((error,),) = project.run("SELECT error FROM bulksafe_parked")
    assert "MB of 300 MB" in error
    assert sorted(texts(project)) == ["bad good", "other bad", "other good"]


def test_a_process_that_grows_over_many_calls_is_replaced_between_two(site):
    deed = "globals().setdefault('kept', []).append(bytes(range(256)) * 262144)"
    project = site(deed, "", SLOW_CALL=60, BATCH_SIZE=4)
    for number in range(12):
        order(project, f"bad{number}")

    done = project.manage("bulksafe", "listen", "--once", "--max-memory", "300M")

    assert sorted(attempts(project)) == sorted(f"bad{number}" for number in range(12))
    assert done.stderr.count("it is replaced") >= 1


def test_the_whole_listener_is_killed_in_a_call(site):
    """No process is left to store it: only the lease and the journal show it."""
    deed = "[os.kill(pid, signal.SIGKILL) for pid in (os.getppid(), os.getpid())]"
    project = site(deed, "max_attempts=3", LEASE=1)
    order(project, "bad")
    order(project, "good")

    def is_over():
        dead = project.run("SELECT FROM bulksafe_parked WHERE state = 'dead'")
        return dead and "bad good" in texts(project)

    while not is_over():
        with listening(project) as (process, log):
            wait_until(lambda process=process: process.poll() is not None or is_over(), log)

    assert "bad good" in texts(project)
    # The first attempt, in the batch, is the one that no process could store.
    assert 3 <= len(attempts(project)) <= 4


def test_retry_after_and_permanent_failure(site):
    project = site(
        "raise bulksafe.RetryAfter(3600) if instance.number == 'bad1' "
        "else bulksafe.PermanentFailure('no such address')",
        "",
    )
    order(project, "bad1")
    order(project, "bad2")

    done = project.manage("bulksafe", "listen", "--once", code=1)

    assert sorted(parked(project)) == [("bad", "1", "waiting", 1), ("bad", "2", "dead", 1)]
    assert "Traceback" not in done.stderr
    assert "after 1 attempt: PermanentFailure: no such address" in done.stderr
    found = project.run("SELECT key FROM bulksafe_parked WHERE due > now() + interval '3500 s'")
    assert found == [("1",)]


def test_a_dead_letter_sends_a_signal(site):
    project = site("raise bulksafe.PermanentFailure('gone')", "")
    path = project.directory / "shop/receivers.py"
    path.write_text(
        path.read_text()
        + """
from django.dispatch import receiver as connected

@connected(bulksafe.dead_letter)
def alert_operator(sender, id, receiver, key, attempts, error, event_id, **kwargs):
    Log.objects.create(text=f"{sender.__name__} {id} {receiver} {key} {attempts} {error}")

@connected(bulksafe.dead_letter)
def fail(**kwargs):
    raise ValueError("the pager is off")
"""
    )
    order(project, "bad")

    done = project.manage("bulksafe", "listen", "--once", code=1)

    assert "Order 1 bad 1 1 PermanentFailure: gone" in texts(project)
    assert "the pager is off" in done.stderr


def test_calls_outside_a_transaction_run_side_by_side(site):
    """In order for each row. None of the first eight calls ends before all have begun."""
    begun = "len(__import__('pathlib').Path('attempts').read_text().splitlines())"
    project = site(f"while {begun} < 8: time.sleep(0.01)", "atomic=False")
    for number in range(8):
        order(project, f"bad{number}")
    project.run("UPDATE shop_order SET number = number || ' again'")

    project.manage("bulksafe", "listen", "--once", "--concurrency", "default=8", "-v", "0")

    seen = attempts_lines(project)
    assert len(seen) == 16
    for number in range(8):
        assert [line for line in seen if line.startswith(f"bad{number}")] == [
            f"bad{number}",
            f"bad{number} again",
        ]


def attempts_lines(project):
    return project.attempts.read_text().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_releases_the_running_call(site, number):
    """Its attempt is not counted, and the next worker need not wait for its lease."""
    project = site("time.sleep(3600)", "atomic=False, max_attempts=1", LEASE=3600)
    order(project, "bad")
    with listening(project) as (process, log):
        wait_until(lambda: attempts(project), log)
        process.send_signal(number)
        wait_until(lambda: "finishing the batches" in log.read_text(), log)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0

    assert project.run("SELECT attempts, leased_until FROM bulksafe_parked") == [(0, None)]


def test_status_shows_the_age_of_the_oldest_due_event(site):
    project = site("pass", "")
    order(project, "good")
    project.run("UPDATE bulksafe_outbox SET at = now() - interval '100 seconds'")

    late = project.manage("bulksafe", "status", "--max-lag", "60", code=1)

    assert "An event has been due for 10" in late.stderr
    found = json.loads(project.manage("bulksafe", "status", "--json", code=1).stdout)
    assert found["longest_due_seconds"] >= 100
    project.manage("bulksafe", "listen", "--once")
    project.manage("bulksafe", "status", "--max-lag", "60")


WAVE = """
@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="wave", queue="other",
                   when=models.Q(number="first"))
def wave(sender, instance, **kwargs):
    # A process that ends sooner after its start is replaced after a pause.
    time.sleep(1.2)
    for number in ("bad", *"abcdefgh"):
        Order.objects.create(number=number)
"""


def test_once_delivers_the_calls_that_a_dead_process_had_taken(site):
    """They are its own for a second. In the meantime there is nothing that a worker may do."""
    project = site("os._exit(1)", "max_attempts=1, atomic=False")
    path = project.directory / "shop/receivers.py"
    path.write_text("from django.db import models\n" + path.read_text() + WAVE + TAKEN_TOGETHER)
    order(project, "first")

    project.manage("bulksafe", "listen", "--once", code=1)

    done = {text for text in texts(project) if text.startswith("bad")}
    assert done == {"bad first", *(f"bad {letter}" for letter in "abcdefgh")}
    assert parked(project) == [("bad", "2", "dead", 1)]


def test_parked_calls_without_a_listener(site):
    project = site("raise ValueError", "atomic=False", RETRY_DELAY=1000)
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)

    said = project.manage("bulksafe", "status", code=1).stdout
    assert "No listener serves the queue 'default'" in said
    with listening(project) as (_, log):
        wait_until(lambda: "listening" in log.read_text(), log)
        assert "No listener" not in project.manage("bulksafe", "status").stdout


def test_more_workers_than_files_may_be_open(site):
    project = site("pass", "")
    project.write_settings()
    command = f"ulimit -n 70; exec {sys.executable} manage.py bulksafe listen --concurrency 40"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=project.directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 2
    assert "The machine cannot start 80 workers: [Errno 24] Too many open files" in done.stderr
    assert "Lower --concurrency" in done.stderr
    assert "Traceback" not in done.stderr
