"""``/healthz``: when a listener is well."""

import json
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from bulksafe.listener.daemon import Pulse
from bulksafe.listener.health import SILENCE, Health, report

NOW = 1_000_000.0
WELL = Pulse(beat=NOW, connected=True, delivered=7, failed=1)
MUTE = Pulse(beat=NOW - SILENCE, connected=True)
LOST = Pulse(beat=NOW, connected=False)


@pytest.mark.parametrize(
    ("pulses", "expected"),
    [
        ([WELL], True),
        ([WELL, WELL], True),
        ([MUTE], False),
        ([LOST], False),
        ([WELL, LOST], False),
        ([Pulse(beat=NOW - SILENCE + 1, connected=True)], True),
    ],
    ids=["well", "both", "mute", "lost", "one lost", "just not mute"],
)
def test_all_processes_have_to_be_connected_and_alive(pulses, expected):
    well, said = report(pulses, NOW)

    assert well is expected
    assert said["status"] == ("ok" if expected else "not well")
    assert len(said["processes"]) == len(pulses)


def test_it_says_of_each_process_what_it_did():
    _, said = report([Pulse(NOW - 1.26, True, 7, 1)], NOW)

    assert said["processes"] == [
        {"connected": True, "seconds_since_beat": 1.3, "delivered": 7, "failed": 1}
    ]


@pytest.fixture
def served():
    """The port of a server, and the pulses that it reports."""
    pulses = []
    health = Health(0, lambda: pulses, host="127.0.0.1")
    health.start()
    yield f"http://127.0.0.1:{health.port}", pulses
    health.stop()


def answer(url):
    try:
        with urlopen(url, timeout=10) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_probe_reads_the_state_in_the_status(served):
    url, pulses = served
    pulses.append(Pulse(connected=True))
    status, body = answer(f"{url}/healthz?verbose=1")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    pulses.append(Pulse(connected=False))
    status, body = answer(f"{url}/healthz/")
    assert (status, json.loads(body)["status"]) == (503, "not well")


def test_nothing_else_is_served(served):
    assert answer(f"{served[0]}/")[0] == 404
