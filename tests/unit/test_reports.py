"""The keeper's records of dead processes."""

import multiprocessing

import pytest

from bulksafe.listener.reports import Reports
from bulksafe.listener.slots import Death, Places


class Store:
    """Refuses the first queries, as one does whose connection is lost."""

    def __init__(self, refusals):
        self.refusals = refusals
        self.asked = []

    def rows(self, name, parameters=None, **parts):
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError
        self.asked.append((name, parameters["id"]))
        return []


def death(number):
    return Death(number, "default", "SIGKILL", 10 + number, 1, 1, "gone", 0, 0)


@pytest.fixture
def reported():
    def make(refusals):
        here, there = multiprocessing.Pipe()
        places, store = Places.of({"default": 1}), Store(refusals)
        return Reports(store, places, there), here, places.shared, store

    return make


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_death_outlasts_a_lost_connection(reported, refusals):
    reports, supervisor, shared, store = reported(refusals)
    supervisor.send(death(1))
    supervisor.send(death(2))
    for _ in range(refusals):
        with pytest.raises(ConnectionError):
            reports._settle_deaths()
        assert shared.settled == 0

    reports._settle_deaths()

    assert store.asked == [("died", 11), ("died", 12)]
    assert shared.settled == 2


def test_a_death_that_was_lost_with_a_keeper_delays_no_other(reported):
    reports, supervisor, shared, _ = reported(0)
    supervisor.send(death(5))

    reports._settle_deaths()

    assert shared.settled == 5
