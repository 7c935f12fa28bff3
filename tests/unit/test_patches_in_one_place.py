"""Every patch of Django, psycopg and pgtrigger is in bulksafe/patches/, with its reason."""

import functools
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.db.models.fields import related_descriptors

import bulksafe
from bulksafe import compat, conf, object_state, patches
from bulksafe.caching import forever, per_model
from tests.unit import patch_finder

PACKAGE = Path(bulksafe.__file__).parent
PATCHES = PACKAGE / "patches"
OBJECT_STATE = Path(object_state.__file__)

#: What is written outside these, and why it is no patch.
ALLOWED = {
    "compat.py": {"query.annotations": "a query of its own, which chain() has returned"},
    "contexts/carrier.py": {
        "connection.execute_wrappers.insert": "Django has execute wrappers for that"
    },
    "dispatch/lane_batches.py": {"batch.routes.models": "an object of bulksafe's"},
    "joining/cursors.py": {"message.query": "a copy of the query, for the message"},
    "listener/serving.py": {
        "connection.connection.isolation_level": "psycopg documents the attribute as writable"
    },
    "listener/watchdog.py": {
        "connection.settings_dict.setdefault": "the settings of a connection that is opened next"
    },
    "outbox/kept_plans.py": {
        "connection.prepare_threshold": "psycopg documents the attribute as writable",
        "connection.prepared_max": "the same",
    },
    "planning/autodetection.py": {
        "migration.operations": "a migration that the autodetector is about to write",
        "proxy.bases": "the state of a model, which the migration alters",
    },
    "planning/expressions.py": {"lhs.output_field": "a copy of the expression"},
    "writer/snapshots.py": {
        "state.adding": "the documented state of a model's instance",
        "state.db": "the same",
    },
    "writer/bulk_paths.py": {"stored[key]._order": "the field of order_with_respect_to"},
    "writer/attaching.py": {
        "connection.execute_wrappers.insert": "Django has execute wrappers for that"
    },
}


def test_no_other_module_patches_an_object_of_django_or_pgtrigger():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        findings = patch_finder.find(path.read_text())
        if findings and PATCHES not in path.parents and path != OBJECT_STATE:
            texts = found.setdefault(path.relative_to(PACKAGE).as_posix(), set())
            texts.update(finding.text for finding in findings)
    assert found == {path: set(texts) for path, texts in ALLOWED.items()}


@pytest.mark.parametrize(
    "source",
    [
        "from django.db.models import QuerySet\nQuerySet.update = f",
        "from django.db.models import QuerySet as Q\nQ.update = f",
        "import django.db.models\ndjango.db.models.QuerySet.update = f",
        "import pgtrigger.apps\npgtrigger.apps.patch_migrations = f",
        "from psycopg import Connection\ndel Connection.execute",
        "from psycopg import Connection\nsetattr(Connection, name, f)",
        "from psycopg import Connection\ntype.__setattr__(Connection, name, f)",
        "from psycopg import Connection\nvars(Connection)['execute'] = f",
        "from django.db import models\nbase = models.Model\nbase.save = f",
        "from django.db import models\nfor one in (models.Model, models.QuerySet):\n    one.x = f",
        "def run(connection):\n    connection.close = f",
        "def run(connection):\n    setattr(connection, 'close', f)",
        "def run(connection):\n    connection.in_atomic_block, y = True, False",
        "def run(connection):\n    connection.__dict__['close'] = f",
        "def run(connection):\n    connection.__dict__.update(close=f)",
        "def run(connection):\n    self.watch.connection.needs_rollback = True",
        "def run(driver):\n    driver.cursor_factory = f",
        "def run(cursor):\n    cursor._rowcount = 1",
        "def run(signal):\n    signal.receivers.append(f)",
        "def run(signal):\n    signal.receivers[0] = f",
        "def run(collector):\n    collector._has_signal_listeners = f",
        "def run(queryset):\n    queryset._for_write = True",
        "patch(owner, 'name', f)",
        "mock.patch('django.db.models.QuerySet.update')",
        "Patch(owner, 'name', f, 'why')",
    ],
)
def test_the_finder_finds(source):
    assert len(patch_finder.find(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    def __init__(self):\n        self.connection = self._x = 1",
        "def run(instance):\n    instance.__dict__['name'] = 1\n    instance._state.adding = True",
        "def run(connection):\n    hooks = connection.run_on_commit\n    hooks = [*hooks]",
        "from django.db.models import QuerySet\nclass Own(QuerySet):\n    update = None",
        "from django.db.models.signals import post_save\npost_save.connect(f)",
    ],
)
def test_the_finder_leaves_alone(source):
    assert patch_finder.find(source) == []


def test_the_table_lists_every_patch_that_is_in_place():
    table = [(patch.owner, patch.name) for patch in patches.PATCHES]
    assert len(table) == len(set(table))
    assert patch_finder.find_live() == set(table)


def test_every_patch_has_a_reason():
    assert [patch for patch in patches.PATCHES if not patch.why.endswith(".")] == []


def test_managers_of_many_to_many_fields_are_patched_where_they_send_signals():
    """Their classes are no attributes of a module: ``find_live`` does not see them."""
    assert User.groups.related_manager_cls.__qualname__.startswith(
        related_descriptors.create_forward_many_to_many_manager.__name__
    )
    found = patch_finder.made_by_bulksafe(User.groups.related_manager_cls)
    assert found == set(compat.M2M_CHANGED_SENDERS)


@pytest.mark.parametrize(
    "planted",
    [
        conf.get,
        conf.Settings,
        property(conf.get),
        functools.partial(conf.get),
        # Its ``__module__`` is Django's.
        per_model(forever)(QuerySet.count),
        staticmethod(functools.wraps(conf.get)(lambda: None)),
    ],
)
def test_a_patch_that_is_in_no_table_is_found(monkeypatch, planted):
    monkeypatch.setattr(QuerySet, "count", planted)
    assert (QuerySet, "count") in patch_finder.find_live()


def test_a_module_s_function_in_no_table_is_found(monkeypatch):
    monkeypatch.setattr(related_descriptors, "create_reverse_many_to_one_manager", conf.get)
    found = patch_finder.find_live()
    assert (related_descriptors, "create_reverse_many_to_one_manager") in found
