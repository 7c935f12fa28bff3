"""A dump restored into another cluster, whose transaction ids start again."""

import os
import subprocess

import psycopg
import pytest

from examples import server
from tests.operation.conftest import change, mend, order, texts
from tests.operation.processes import listening, wait_until

pytestmark = pytest.mark.skipif(
    "DATABASE_URL" in os.environ, reason="another server cannot be started beside DATABASE_URL"
)


@pytest.fixture
def elsewhere():
    started = server.start(
        os.environ.get("BULKSAFE_TEST_POSTGRES", "embedded"), options=server.THROWAWAY
    )
    yield started
    started.stop()


def move(project, postgres, elsewhere):
    """Dump the project's database, restore it on the other server, and use it there."""
    old = project.aliases["default"]
    new = {**server.database_settings(elsewhere.url), "NAME": "restored"}
    with psycopg.connect(elsewhere.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
    dump = subprocess.run(
        [postgres.bin / "pg_dump", "--no-owner", "-d", server.database_url(old)],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        [postgres.bin / "psql", "-qX", "-v", "ON_ERROR_STOP=1", server.database_url(new)],
        input=dump.stdout,
        check=True,
        capture_output=True,
    )
    project.aliases["default"] = new


def grow_old(project):
    """Use up transaction ids, so that the other cluster's ids are lower."""
    with project.connect() as connection:
        for _ in range(5000):
            connection.execute("SELECT pg_current_xact_id()")


@pytest.mark.parametrize("by_hand", [True, False], ids=["doctor --rebase", "by the listener"])
def test_every_call_is_made_exactly_once(shop, postgres, elsewhere, by_hand):
    project = shop(notify="max_attempts=1", mail='queue="mail"')
    grow_old(project)
    for number in ("one", "two", "bad"):
        order(project, number)
    project.manage("bulksafe", "listen", "--once", "--queues", "default", code=1)
    for number in ("one", "two", "bad"):
        change(project, number, 1)

    move(project, postgres, elsewhere)
    # Written before any listener has polled the new cluster.
    change(project, "one", 2)
    order(project, "three")
    if by_hand:
        assert "restored from a dump" in project.manage("bulksafe", "doctor", code=1).stdout
        assert "were renumbered" in project.manage("bulksafe", "doctor", "--rebase").stdout
    mend(project)
    project.manage("bulksafe", "retry", "--all")
    listened = project.manage("bulksafe", "listen", "--once")

    assert ("transactions are renumbered" in listened.stderr) != by_hand
    for name in ("notify", "mail"):
        assert [t for t in texts(project) if t.startswith(f"{name} one")] == [
            f"{name} one {amount}" for amount in (0, 1, 2)
        ]
    assert sorted(texts(project)) == sorted(
        f"{name} {rest}"
        for name in ("notify", "mail")
        for rest in ("one 0", "one 1", "one 2", "two 0", "two 1", "bad 0", "bad 1", "three 0")
    )
    change(project, "three", 1)
    project.manage("bulksafe", "listen", "--once")
    assert texts(project).count("notify three 1") == 1
    assert "No findings." in project.manage("bulksafe", "doctor").stdout


def test_a_slot_is_not_emptied_before_it_is_renumbered(shop, postgres, elsewhere):
    """Until then, the events of the new cluster look delivered."""
    project = shop(notify="")
    grow_old(project)
    order(project, "one")
    project.manage("bulksafe", "listen", "--once")
    move(project, postgres, elsewhere)
    change(project, "one", 1)  # in the same bucket, whose cursor has the high numbers
    project.run(
        "SELECT setval('bulksafe_outbox_slot', mod(last_value + 1, 3)) FROM bulksafe_outbox_slot"
    )

    assert "emptied: 0" in project.manage("bulksafe", "prune").stdout
    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["notify one 0", "notify one 1"]


#: A keeper that does nothing: the workers look by themselves.
NO_KEEPER = """
import time
from bulksafe.listener.keeper import Keeper

def run(keeper):
    while not keeper._serving.stopping():
        time.sleep(0.05)

Keeper.run = run
"""


def test_a_worker_renumbers_before_its_first_batch(shop, postgres, elsewhere):
    """Whether or not the keeper has come to it."""
    project = shop(notify="")
    path = project.directory / "shop/receivers.py"
    path.write_text(path.read_text() + NO_KEEPER)
    grow_old(project)
    order(project, "one")
    move(project, postgres, elsewhere)
    change(project, "one", 1)

    with listening(project) as (_, log):
        wait_until(lambda: len(texts(project)) == 2, log)

    assert texts(project) == ["notify one 0", "notify one 1"]


def test_in_its_own_cluster_there_is_nothing_to_renumber(shop):
    project = shop(notify="")
    order(project, "one")

    assert "those of this cluster" in project.manage("bulksafe", "doctor", "--rebase").stdout
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == ["notify one 0"]
