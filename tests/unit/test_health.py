"""``/livez`` and ``/readyz``: when a listener works, and when it delivers."""

import json
import time
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from bulksafe.listener.health import SILENCE, Health, liveness, readiness
from bulksafe.listener.slots import Places


@pytest.fixture
def supervisor():
    """One that looks after a keeper and two workers, all of which are well."""
    places = Places.of({"default": 1, "mail": 1})
    places.shared.is_connected = True
    for number, slot in enumerate(places.slots, 1):
        slot.activity.start()
        slot.activity.pid = number
        slot.activity.is_connected = True
    gone = set()
    return SimpleNamespace(
        places=places,
        beat=time.time(),
        gone=gone,
        is_alive=lambda slot: slot.activity.pid not in gone,
    )


def test_all_is_well(supervisor):
    assert liveness(supervisor).well
    answer = readiness(supervisor)

    assert answer.well
    assert answer.body["status"] == "ok"
    assert [worker["queue"] for worker in answer.body["workers"]] == ["default", "mail"]


def test_a_stuck_supervisor_is_not_alive(supervisor):
    supervisor.beat -= SILENCE + 1

    assert not liveness(supervisor).well
    assert "no sign of life" in liveness(supervisor).body["status"]


def worker_gone(supervisor):
    supervisor.gone.add(2)


def worker_unconnected(supervisor):
    supervisor.places.slots[1].activity.is_connected = False


def keeper_unconnected(supervisor):
    supervisor.places.shared.is_connected = False


def keeper_silent(supervisor):
    supervisor.places.shared.looked -= SILENCE + 1


def event_late(supervisor):
    supervisor.places.shared.lag = 301


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (worker_gone, "a worker of the queue 'mail' has no connection"),
        (worker_unconnected, "a worker of the queue 'mail' has no connection"),
        (keeper_unconnected, "the keeper has no connection"),
        (keeper_silent, "the keeper has not checked for events for 31 s"),
        (event_late, "an event has been due for 301 s"),
    ],
)
def test_the_cause_of_a_backlog_is_reported_and_needs_no_restart(supervisor, fault, said):
    fault(supervisor)

    answer = readiness(supervisor)
    assert not answer.well
    assert answer.body["status"] == said
    assert liveness(supervisor).well


def test_the_limit_is_a_setting(supervisor, settings):
    settings.BULKSAFE = {"READY_LAG": 1000}
    event_late(supervisor)
    assert readiness(supervisor).well
    settings.BULKSAFE = {"READY_LAG": 300}
    assert not readiness(supervisor).well


@pytest.fixture
def address(supervisor):
    health = Health(0, supervisor, host="127.0.0.1")
    health.start()
    yield f"http://127.0.0.1:{health.port}"
    health.stop()


def answer(url):
    try:
        with urlopen(url, timeout=10) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("path", ["livez", "readyz", "healthz", "readyz/", "livez?verbose=1"])
def test_a_probe_reads_the_state_in_the_status(address, path):
    status, body = answer(f"{address}/{path}")

    assert (status, json.loads(body)["status"]) == (200, "ok")


def test_a_restart_is_requested_only_if_it_helps(address, supervisor):
    event_late(supervisor)

    assert answer(f"{address}/livez")[0] == 200
    assert answer(f"{address}/readyz")[0] == 503
    assert answer(f"{address}/healthz")[0] == 503


def test_nothing_else_is_served(address):
    assert answer(f"{address}/")[0] == 404
