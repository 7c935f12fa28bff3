"""From ``@receiver`` to ``@critical`` and back, while processes of both releases write."""

import json
import shutil
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.operation import rollout
from tests.operation.processes import listening, wait_until
from tests.operation.rollout import Writers, expected, go_on

#: Writes in all.
ENOUGH = 5000

ROLLOUT = 'BULKSAFE = {"ROLLOUT": True, "LOCK_TIMEOUT": 0.5, "LOCK_ATTEMPTS": 100}\n'


@pytest.fixture
def releases(project):
    """The project in its old release, and folders with the code of the old and the new one."""
    project.models(rollout.MODELS)
    project.write("shop/receivers.py", rollout.OLD)
    project.write("worker.py", rollout.WORKER)
    project.make()
    project.migrate()
    project.run("INSERT INTO shop_tag (name) VALUES ('new')")
    old = project.directory.parent / "old"
    shutil.copytree(project.directory, old)
    project.settings(ROLLOUT)
    project.write("shop/receivers.py", rollout.NEW)
    project.make()
    one_table_at_a_time(project)
    new = project.directory.parent / "new"
    shutil.copytree(project.directory, new)
    return old, new


def one_table_at_a_time(project):
    """Let the migration lock each table in a transaction of its own."""
    (name,) = [name for name in project.migrations() if name.startswith("0002")]
    path = f"shop/migrations/{name}.py"
    text = project.migration("0002")
    project.write(path, text.replace("    dependencies", "    atomic = False\n    dependencies"))


def effects_of(project):
    return Counter(project.run("SELECT receiver, write FROM shop_effect"))


def switch(project, to):
    project.manage("bulksafe", f"switch-{to}")
    state = {"on": "installed", "off": "switched off"}[to]
    assert state in project.manage("bulksafe", "ls", "shop.Order").stdout


def waiting(project):
    (queue,) = json.loads(project.manage("bulksafe", "status", "--json", code=None).stdout)[
        "queues"
    ]
    return queue["waiting"]


def test_no_write_is_refused_skipped_or_doubled(project, releases):
    """Migrate, deploy, switch on and off, and roll back, each while processes write."""
    old, new = releases
    with ExitStack() as stack:

        def start(release, name, count):
            group = Writers(release, name, count)
            stack.callback(group.kill)
            return group

        before = start(old, "before", 1)
        go_on(before)
        project.migrate()
        assert "switched off" in project.manage("bulksafe", "ls", "shop.Order").stdout
        go_on(before)
        deployed = start(new, "deployed", 2)
        go_on(before, deployed)
        before.end()
        with listening(project) as (_, log):
            for _ in range(3):
                switch(project, "on")
                go_on(deployed)
                switch(project, "off")
                go_on(deployed)
            wait_until(lambda: not waiting(project), log)
        after = start(old, "after", 1)
        go_on(after, deployed)
        deployed.end()
        project.migrate("shop", "0001")
        go_on(after)
        wait_until(lambda: expected(old, new)[2] >= ENOUGH)
        after.end()

    wanted, refused, _ = expected(old, new)
    found = effects_of(project)
    assert refused == []
    assert {"skipped": wanted - found, "doubled": found - wanted} == {
        "skipped": Counter(),
        "doubled": Counter(),
    }
