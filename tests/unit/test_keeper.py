"""The keeper wakes as many workers as there may be work for, and sleeps as long as it may."""

import multiprocessing

import pytest

from bulksafe.listener import keeper as module
from bulksafe.listener.keeper import Keeper
from bulksafe.listener.serving import Serving
from bulksafe.listener.slots import Places


class Clock:
    """``time.monotonic()`` that stands still."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def places():
    places = Places.of({"mail": 8, "search": 2})
    for slot in places.slots:
        slot.activity.is_idle = True
    return places


@pytest.fixture
def keeper(places, clock):
    deaths, mourner = multiprocessing.Pipe()
    with deaths, mourner:
        yield Keeper(Serving("default"), places, deaths, once=False)


def woken(places, queue="mail"):
    """How many workers of a queue were rung."""
    return sum(slot.bell.wait(0) for slot in places.slots if slot.queue == queue)


def test_one_event_wakes_one_worker(keeper, places):
    keeper._wake({"mail"})

    assert woken(places) == 1
    assert woken(places, "search") == 0


def test_events_that_are_left_wake_twice_as_many_each_time(keeper, places, clock):
    numbers = []
    for _ in range(4):
        keeper._wake({"mail"})
        numbers.append(woken(places))
        clock.now += 0.02

    assert numbers == [1, 2, 4, 1]
    assert not keeper._waiting() - {"search"}


def test_progress_wakes_no_further_workers(keeper, places, clock):
    keeper._wake({"mail"})
    assert woken(places) == 1
    places.slots[0].activity.rounds += 1

    assert keeper._idle() == {"mail", "search"}
    keeper._wake({"mail"})
    assert woken(places) == 1


def test_a_later_event_wakes_one_worker_again(keeper, places, clock):
    """Another listener has taken the events before, so that no worker here made progress."""
    for _ in range(5):
        keeper._wake({"mail"})
        assert woken(places) == 1
        for slot in places.slots:
            slot.activity.is_idle = True
        clock.now += 1


def test_the_second_worker_need_not_wait_for_the_first(keeper, places, clock):
    """The first one may be in a call that hangs."""
    keeper._wake({"mail", "search"})

    assert keeper._idle() == set()
    assert keeper._until_due(set()) == pytest.approx(0.005)
    clock.now += 0.006
    assert keeper._idle() == {"mail", "search"}


def test_a_due_queue_is_polled_at_once(keeper, clock):
    """Sleep would be a second otherwise: it became due after the keeper chose its queues."""
    keeper._wake({"mail"})
    idle = keeper._idle()
    clock.now += 0.006

    assert idle == {"search"}
    assert keeper._until_due(idle) == 0


class Ear:
    """Stands for the listening connection: each wait ends as the next of ``ends`` says."""

    def __init__(self, *ends):
        self.ends = list(ends)


@pytest.fixture
def asked(keeper, monkeypatch):
    """The queues that the database was asked about."""
    asked = []
    keeper._tidy = lambda: None
    monkeypatch.setattr(keeper, "_seconds", lambda idle: 1.0)
    monkeypatch.setattr(keeper, "_is_notified", lambda ear, seconds: ear.ends.pop(0)())
    monkeypatch.setattr(
        keeper._store, "ready", lambda queues, known, idle: asked.append(set(idle)) or {"mail"}
    )
    return asked


def rests(places, looked, queue="mail"):
    """A worker of the queue, which was busy, finds nothing more to do."""

    def ring():
        slot = next(slot for slot in places.slots if slot.queue == queue)
        slot.activity.looked = looked
        slot.activity.is_idle = True
        return False

    return ring


def busy(places, queue="mail"):
    for slot in places.slots:
        slot.activity.is_idle = slot.queue != queue


def test_a_worker_that_polled_during_the_sleep_is_not_checked(keeper, places, clock, asked):
    busy(places)

    found = keeper._sleep(Ear(rests(places, clock.now + 1), lambda: True), {"search"})

    assert asked == [{"mail", "search"}]  # when the notification came
    assert found == {"mail"}


def test_a_worker_that_polled_before_the_sleep_is_checked(keeper, places, clock, asked):
    """Others may have committed between its look and the lock, and need not have notified."""
    busy(places)

    assert keeper._sleep(Ear(rests(places, clock.now - 1)), {"search"}) == set()
    assert asked == []


def test_a_sleep_that_times_out_sends_no_query(keeper, places, asked):
    assert keeper._sleep(Ear(lambda: False), {"mail", "search"}) == set()
    assert asked == []


def test_with_once_a_resting_worker_ends_the_sleep(keeper, places, clock, asked):
    busy(places)
    keeper._once = True

    assert keeper._sleep(Ear(rests(places, clock.now + 1)), {"search"}) == set()


def test_a_busy_queue_shortens_no_sleep(keeper, places):
    """Its worker rings when it is done; meanwhile the keeper would look twenty times a second."""
    for slot in places.slots:
        slot.activity.is_idle = slot.queue == "search"

    assert keeper._until_due(keeper._idle()) == float("inf")
