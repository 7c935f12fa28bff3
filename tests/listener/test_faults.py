"""One run of each fault. ``python -m benchmarks.faults`` makes hundreds."""

import os
import random

import pytest

from tests.listener import faults
from tests.listener.machines import machine
from tests.listener.proxy import Proxy
from tests.listener.site import Site
from tests.migration.project import Databases

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def place(tmp_path_factory, forge):
    """Where the faults are run, one after the other: what one leaves behind meets the next."""
    with machine(os.environ.get("BULKSAFE_TEST_POSTGRES", "embedded")) as started:
        site = Site(tmp_path_factory.mktemp("faults") / "site", forge, Databases(started.url))
        faults.prepare(site)
        proxy = Proxy(("127.0.0.1", started.port))
        found = faults.Range(site, started, proxy, random.Random(0))
        yield found
        # No call was repeated later.
        assert found.of_all_rows().is_good
        proxy.close()


@pytest.mark.parametrize("kind", faults.KINDS)
def test_fault(place, kind):
    outcome = faults.run(place, kind)
    assert outcome.is_good, outcome


@pytest.mark.parametrize("part", range(5))
def test_killed_at_a_statement(place, part):
    """A few places; the campaign goes through all."""
    at = _place(place, part, 5)
    outcome = place.outcome(f"SIGKILL {at}", place.kill_at(at))
    assert outcome.is_good, outcome


@pytest.mark.parametrize("part", range(5))
def test_connection_lost_at_a_statement(place, part):
    at = _place(place, part, 5)
    outcome = place.outcome(f"lost {at}", place.cut_at("reset", at))
    assert outcome.is_good, outcome


@pytest.mark.parametrize(
    "at",
    [
        *(f"{process}:connecting" for process in faults.PROCESSES),
        # A worker has one connection, and is about to open its second, which works.
        *(f"default:after:{number}" for number in (4, 5, 6)),
        # Meanwhile, its second connection awaits the answer to the marker of the batch.
        "default:images",
    ],
)
def test_proxy_hangs_at(place, at):
    outcome = place.outcome(f"silent {at}", place.cut_at("silence", at))
    assert outcome.is_good, outcome


def _place(faults, part, parts):
    places = faults.places()
    return places[len(places) * part // parts]
