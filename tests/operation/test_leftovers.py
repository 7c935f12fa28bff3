"""State that a receiver leaves behind: it must not stop its queue or the listener."""

import signal

import pytest

from tests.operation.conftest import order, texts
from tests.operation.processes import PATIENCE, listening, wait_until
from tests.operation.test_dead_letters import parked
from tests.operation.test_isolation import BOTH, attempts, site  # noqa: F401

pytestmark = pytest.mark.once

THREAD = "__import__('threading').Thread(target=time.sleep, args=(3600,)).start()"
CHILD = "__import__('multiprocessing').Process(target=time.sleep, args=(30,)).start()"


@pytest.mark.parametrize("deed", [THREAD, CHILD], ids=["thread", "child process"])
def test_a_thread_that_outlives_the_receiver_does_not_keep_the_listener(site, deed):  # noqa: F811
    project = site(deed, "")
    order(project, "bad")
    order(project, "good")

    done = project.manage("bulksafe", "listen", "--once")

    assert sorted(texts(project)) == ["bad bad", "bad good", "other bad", "other good"]
    assert "a receiver left a thread or a child process running" in done.stderr


@pytest.mark.parametrize(
    "deed",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.signal(signal.SIGTERM, lambda *of: None)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})",
    ],
)
def test_a_receiver_that_replaces_the_signal_handler(site, deed):  # noqa: F811
    project = site(deed, "")
    order(project, "bad")
    with listening(project) as (process, log):
        wait_until(lambda: "bad bad" in texts(project), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("before", ["", "time.sleep(0.6); "], ids=["in a batch", "alone"])
def test_a_callback_after_the_commit_that_hangs(site, before):  # noqa: F811
    project = site(f"{before}transaction.on_commit(lambda: time.sleep(3600))", "timeout=1")
    order(project, "bad")
    with listening(project) as (_, log):
        wait_until(lambda: attempts(project), log)
        order(project, "good")
        wait_until(lambda: "bad good" in texts(project), log)
        wait_until(
            lambda: "the dead_letter signal of bad exceeded its timeout" in log.read_text(), log
        )

    assert sorted(t for t in texts(project) if t.startswith("bad")) == ["bad bad", "bad good"]


@BOTH
def test_a_receiver_of_dead_letters_that_hangs_or_exits(site, atomic):  # noqa: F811
    project = site("raise ValueError", f"timeout=0.3, max_attempts=1, atomic={atomic}")
    path = project.directory / "shop/receivers.py"
    path.write_text(
        "import django.dispatch\n"
        + path.read_text()
        + """
@django.dispatch.receiver(bulksafe.dead_letter)
def hang(key, **kwargs):
    if key == "1":
        time.sleep(3600)
    raise SystemExit(7)
"""
    )
    for number in ("bad1", "bad2", "good"):
        order(project, number)

    done = project.manage("bulksafe", "listen", "--once", code=1)

    assert "bad good" in texts(project)
    found = parked(project)
    assert sorted(found) == [("bad", "1", "dead", 1), ("bad", "2", "dead", 1)]
    assert "the dead_letter signal of bad exceeded its timeout" in done.stderr
    assert "it is replaced" not in done.stderr
    assert project.run("SELECT DISTINCT error FROM bulksafe_parked") == [("ValueError: ",)]


@pytest.mark.parametrize(
    "deed",
    [
        "connection.cursor().execute('BEGIN')",
        "connection.set_autocommit(False)",
        "transaction.atomic().__enter__()",
        "connection.cursor().execute('BEGIN'); raise ValueError",
    ],
)
def test_a_transaction_that_is_left_open(site, deed):  # noqa: F811
    """What comes after it would never be committed."""
    project = site(deed, "atomic=False, max_attempts=2")
    for number in ("good1", "bad", "good2", "good3"):
        order(project, number)

    project.manage("bulksafe", "listen", "--once", code=1)

    assert parked(project) == [("bad", "2", "dead", 2)]
    assert attempts(project) == ["bad", "bad"]
    written = [text for text in texts(project) if text.startswith("bad good")]
    assert sorted(written) == ["bad good1", "bad good2", "bad good3"]


@BOTH
def test_the_statement_of_a_killed_process_ends_with_it(site, atomic):  # noqa: F811
    """It would hold its part of the queue, or have the keeper wait for its parked call."""
    deed = "__import__('threading').Timer(0.3, os._exit, [3]).start()"
    project = site(
        f"{deed}; connection.cursor().execute('SELECT pg_sleep(3600)')",
        f"max_attempts=1, atomic={atomic}",
        SLOW_CALL=60,
    )
    order(project, "bad")
    with listening(project) as (_, log):
        wait_until(lambda: project.run("SELECT FROM bulksafe_parked WHERE state = 'dead'"), log)
        order(project, "good")
        wait_until(lambda: "bad good" in texts(project), log)

    assert "no answer from the server" not in log.read_text()


def test_a_call_that_swallows_its_interruption_is_interrupted_in_the_repeated_batch(site):  # noqa: F811
    deed = """
        try:
            connection.cursor().execute('SELECT pg_sleep(3600)')
        except BaseException:
            pass
"""
    project = site(deed.strip("\n").lstrip(), "max_attempts=1", SLOW_CALL=0.3, TIMEOUT=3600)
    order(project, "bad")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert parked(project) == [("bad", "1", "dead", 1)]
    assert attempts(project) == ["bad", "bad"]


def test_a_hanging_worker_does_not_outlive_its_killed_supervisor(site):  # noqa: F811
    project = site("time.sleep(3600)", "timeout=0.4, atomic=False")
    order(project, "bad")
    with listening(project) as (process, log):
        wait_until(lambda: attempts(project), log)
        process.kill()
        text = "the supervisor is gone, and this worker did not stop in time: killing it"
        wait_until(lambda: text in log.read_text(), log)


@BOTH
@pytest.mark.parametrize(
    "deed", ["if os.fork() == 0: return", "os.fork() or [][0]"], ids=["returns", "raises"]
)
def test_a_forked_copy_of_the_worker_ends(site, deed, atomic):  # noqa: F811
    """It would use the same connection."""
    project = site(deed, f"atomic={atomic}")
    for number in ("good1", "bad", "good2"):
        order(project, number)

    done = project.manage("bulksafe", "listen", "--once")

    assert attempts(project) == ["bad"]
    written = sorted(text for text in texts(project) if text.startswith("bad"))
    assert written == ["bad bad", "bad good1", "bad good2"]
    assert "no connection" not in done.stderr


def test_the_supervisor_survives_a_failed_fork(site):  # noqa: F811
    project = site("os._exit(3)", "max_attempts=1, atomic=False")
    path = project.directory / "shop/receivers.py"
    path.write_text(
        path.read_text()
        + """
fork, failures = os.fork, []

def failing():
    if os.path.getsize(ATTEMPTS) and len(failures) < 2:
        failures.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = failing
""".replace("ATTEMPTS", repr(str(project.attempts)))
    )
    project.write_settings()
    order(project, "bad")
    order(project, "good")

    done = project.manage("bulksafe", "listen", "--once", code=1)

    assert done.stderr.count("cannot be replaced now") == 2
    assert "bad good" in texts(project)
    assert parked(project) == [("bad", "1", "dead", 1)]


@pytest.mark.parametrize("seconds", [2.5, 4])
def test_a_call_that_outlasts_its_lease_still_comes_before_later_receivers(site, seconds):  # noqa: F811
    """In a transaction its lease cannot be renewed: it holds the lock of its row."""
    project = site(f"time.sleep({seconds})", "", LEASE=1)
    path = project.directory / "shop/receivers.py"
    path.write_text(
        path.read_text()
        + """
@bulksafe.critical(
    post_save, sender=Order, run="after_commit", dispatch_uid="second", after=["bad"]
)
def second(sender, instance, **kwargs):
    Log.objects.create(text=f"second {instance.number}")
"""
    )
    project.write_settings()
    order(project, "bad")
    with listening(project, "--concurrency", "3") as (_, log):
        wait_until(lambda: len(texts(project)) == 3, log)

    assert texts(project) == ["other bad", "bad bad", "second bad"]
