"""Calls for several events, one of which is discarded, kills its process or is unreadable."""

import pytest

from tests.operation.conftest import CRITICAL, TAKEN_TOGETHER, change, mend, order, texts
from tests.operation.conftest import RECEIVERS as SHOP_RECEIVERS
from tests.operation.processes import listening, wait_until
from tests.operation.test_dead_letters import parked
from tests.operation.test_isolation import site  # noqa: F401

RECEIVERS = """
import os, pathlib, time
import bulksafe
from django.db.models.signals import post_save
from shop.models import Log, Order

path = pathlib.Path({path!r})

def group(sender, instances, **kwargs):
    with path.open("a") as file:
        file.write(" ".join(i.number for i in instances) + "\\n")
    {deed}
    for instance in instances:
        Log.objects.create(text=f"{{instance.number}}")

for name in ("group", "renamed"):
    bulksafe.critical(
        post_save, sender=Order, run="after_commit", dispatch_uid=name, batch=True,
        atomic=False, {options}
    )(group) if name in {names!r} else None
"""


@pytest.fixture
def grouped(site):  # noqa: F811
    """Makes the project with a receiver that gets all orders in one call."""

    def make(deed, options, *numbers, names=("group",)):
        project = site("pass", "", LEASE=3600)
        declare(project, deed, options, names)
        project.migrate()
        for number in numbers:
            order(project, number)
        # One bucket: one call.
        project.run("UPDATE bulksafe_outbox SET bucket = 0")
        return project

    return make


def declare(project, deed, options, names=("group",)):
    path = str(project.attempts)
    text = RECEIVERS.format(path=path, deed=deed, options=options, names=names)
    project.write("shop/receivers.py", text)
    project.write_settings()


def lines(project):
    return project.attempts.read_text().splitlines()


def test_the_first_event_is_discarded_while_the_call_runs(grouped):
    deed = "while not path.with_name('go').exists(): time.sleep(0.05)"
    project = grouped(deed, "", "a", "b", "c")
    with listening(project) as (_, log):
        wait_until(lambda: lines(project), log)
        project.manage("bulksafe", "discard", "1")
        (project.directory / "go").touch()
        wait_until(lambda: not project.run("SELECT FROM bulksafe_parked"), log)

    assert lines(project) == ["a b c"]


@pytest.fixture
def interrupted(grouped):
    """A call of three events whose listener was killed in it."""
    project = grouped("os.kill(os.getppid(), 9); os._exit(9)", "", "a", "b", "c")
    with listening(project) as (process, log):
        wait_until(lambda: process.poll() is not None, log)
    assert lines(project) == ["a b c"]
    project.run("UPDATE bulksafe_parked SET leased_until = NULL, attempts = 0")
    return project


def test_the_first_event_is_discarded_before_the_call(interrupted):
    declare(interrupted, "", "")
    interrupted.manage("bulksafe", "discard", "1")

    interrupted.manage("bulksafe", "listen", "--once")

    assert sorted(texts(interrupted)) == ["b", "c"]


@pytest.mark.parametrize("number", [1, 2])
def test_one_event_is_renamed(interrupted, number):
    declare(interrupted, "", "", names=("group", "renamed"))
    interrupted.manage("bulksafe", "retry", str(number), "--rename", "renamed")
    assert interrupted.run(
        "SELECT id FROM bulksafe_parked WHERE leads AND call IS NULL ORDER BY id"
    ) == [(1,), (2,), (3,)]

    interrupted.manage("bulksafe", "listen", "--once")

    assert sorted(texts(interrupted)) == ["a", "b", "c"]
    assert sorted(lines(interrupted)[1:]) == ["a", "b", "c"]


def test_a_process_that_dies_in_a_call_of_several_events(grouped):
    """Its one attempt is not the first event's only one, and the others are made, too."""
    deed = "[os._exit(3) for i in instances if i.number == 'b']"
    project = grouped(deed, "max_attempts=1", "a", "b", "c")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert (lines(project)[0], sorted(lines(project)[1:])) == ("a b c", ["a", "b", "c"])
    assert sorted(texts(project)) == ["a", "c"]
    assert parked(project) == [("group", "2", "dead", 1)]


def test_an_event_that_cannot_be_read_keeps_its_own_row_only(grouped):
    project = grouped("", "max_attempts=2", "a", "b", "c")
    project.run("UPDATE shop_order SET amount = 7 WHERE number = 'a'")
    project.run(
        "UPDATE bulksafe_outbox SET bucket = 0, "
        """new = CASE WHEN operation = 'I' AND key = '1' THEN '{"amount": "x"}' ELSE new END"""
    )

    project.manage("bulksafe", "listen", "--once", code=1)

    assert sorted(texts(project)) == ["b", "c"]
    assert [row[1:3] for row in parked(project)] == [("1", "dead"), ("1", "waiting")]


JOINED = """
@critical("joined", coalesce=True)
def joined(instance, old, **kwargs):
    note(f"joined {old and old.amount} to {instance.amount}")

@critical("each")
def each(instance, old, **kwargs):
    note(f"each {old and old.amount} to {instance.amount}")

def note(text):
    if not Mended.objects.exists():
        raise ValueError(text)
    Log.objects.create(text=text)
"""


def test_one_event_that_two_calls_of_different_changes_end_with(shop):
    project = shop(placeholder="")
    project.settings('BULKSAFE = {"RETRY_DELAY": 10000, "RETRY_DELAY_MAX": 10000}\n')
    order(project, "a")
    project.manage("bulksafe", "listen", "--once")
    project.run("DELETE FROM shop_log")
    project.write("shop/receivers.py", SHOP_RECEIVERS + CRITICAL + JOINED + TAKEN_TOGETHER)
    for amount in (1, 2):
        change(project, "a", amount)
    project.manage("bulksafe", "listen", "--once", code=1)
    waiting = project.run("SELECT receiver, seq, id FROM bulksafe_parked ORDER BY id")
    (each, first, number), (joined, last, _), (_, behind, _) = waiting
    assert (each, joined) == ("each", "joined")
    assert behind == last != first

    mend(project)
    project.manage("bulksafe", "discard", str(number))
    project.run("UPDATE bulksafe_parked SET due = clock_timestamp()")
    project.manage("bulksafe", "listen", "--once")

    assert sorted(texts(project)) == ["each 1 to 2", "joined 0 to 2"]
