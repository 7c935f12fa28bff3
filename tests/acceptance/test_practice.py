"""Receivers as found in real projects: bulk writes on one side end as per-row writes on the other.

``BULKSAFE_PRACTICE_ROWS=10000`` tries one more size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.apps.practice.receivers import PRACTICES, Practice, side
from tests.integration import inline

pytestmark = pytest.mark.django_db(transaction=True)

SIZES = [1, 7, 100, *map(int, filter(None, [os.environ.get("BULKSAFE_PRACTICE_ROWS", "")]))]

TABLES = ("Article", "Shelf", "Book", "Tag", "Node")


def empty():
    """Delete all rows, and begin with the first keys again: TRUNCATE takes seconds for that."""
    names = [
        f"practice_{s}{name}" for s in ("plain", "critical") for name in (*TABLES, "Book_tags")
    ]
    tables = [name.lower() for name in (*names, "practice_log")]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for table in tables:
            cursor.execute(f"DELETE FROM {table}")
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1, false)")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bulksafe_buffer")
        assert cursor.fetchone() == (0,)


@pytest.fixture(autouse=True)
def clean(committed) -> Iterator[None]:  # noqa: F811
    empty()
    with inline.only_these():
        yield
    uninstall()
    empty()


def uninstall():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname, tgrelid::regclass::text FROM pg_trigger "
            "WHERE tgrelid::regclass::text LIKE 'practice_critical%' AND NOT tgisinternal"
        )
        for name, table in cursor.fetchall():
            cursor.execute(f'DROP TRIGGER "{name}" ON {table}')


def declare_plain(practice: Practice):
    models = side("Plain")
    connected = []

    def connect(signal, sender, function, options=None):
        signal.connect(function, sender=sender, weak=False)
        connected.append((signal, sender, function))

    models.reconnect = connect
    for signal, sender, function in practice.plain(models):
        connect(signal, sender, function)
    for signal, sender, function, *_ in practice.declare(models):
        connect(signal, sender, function)

    def disconnect():
        for signal, sender, function in connected:
            signal.disconnect(function, sender=sender)

    return models, disconnect


def declare_critical(practice: Practice):
    models = side("Critical")
    connected = []

    def reconnect(signal, sender, function):
        from bulksafe.declarations import receivers
        from bulksafe.patches.signals import connect_critical

        for receiver in receivers.receivers:
            if receiver.function is function:
                connect_critical(receiver)

    models.reconnect = reconnect
    for signal, sender, function in practice.plain(models):
        signal.connect(function, sender=sender, weak=False)
        connected.append((signal, sender, function))
    for signal, sender, function, *options in practice.declare(models):
        inline.critical(
            signal, sender, function, **{"dispatch_uid": None, **(options[0] if options else {})}
        )

    def disconnect():
        for signal, sender, function in connected:
            signal.disconnect(function, sender=sender)

    return models, disconnect


def per_row(practice: Practice, models: SimpleNamespace, step: str, rows: list[dict]):
    model = getattr(models, practice.model)
    if step == "create":
        for row in rows:
            model(**row).save()
        return
    if step == "delete":
        # Django sends the signals of delete() itself, in an order of its own.
        model.objects.all().delete()
        return
    for pk in list(model.objects.order_by("pk").values_list("pk", flat=True)):
        instance = model.objects.get(pk=pk)
        for name, value in practice.values.items():
            # An expression, and its value for one row.
            setattr(instance, name, value[1](instance) if isinstance(value, tuple) else value)
        instance.save()


def in_bulk(practice: Practice, models: SimpleNamespace, step: str, rows: list[dict]):
    model = getattr(models, practice.model)
    if step == "create":
        model.objects.bulk_create([model(**row) for row in rows])
    elif step == "update":
        values = {n: v[0] if isinstance(v, tuple) else v for n, v in practice.values.items()}
        model.objects.update(**values)
    else:
        model.objects.all().delete()


def state(models: SimpleNamespace):
    """All rows of one side."""
    found = {}
    for name in TABLES:
        model = getattr(models, name)
        found[name] = list(model.objects.order_by("pk").values_list())
    found["tags"] = list(models.Book.tags.through.objects.order_by("pk").values_list())
    found["log"] = list(
        models.Log.objects.filter(side=models.prefix).order_by("pk").values_list("text", flat=True)
    )
    return found


def outcome(write, practice, models, step):
    """How a step ends: with what refusal, and in which state."""
    size = models.size
    rows = [practice.row(models, n) for n in range(size)] if step == "create" else []
    try:
        with transaction.atomic():
            write(practice, models, step, rows)
    except ValidationError as error:
        return error.messages, state(models)
    return None, state(models)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("practice", PRACTICES, ids=lambda p: p.name)
def test_bulk_writes_end_as_per_row_writes(practice, size):
    ends = {}
    for declare, write in ((declare_plain, per_row), (declare_critical, in_bulk)):
        models, disconnect = declare(practice)
        models.size = size
        try:
            with transaction.atomic():
                practice.setup(models)
            ends[write] = [outcome(write, practice, models, step) for step in practice.steps]
        finally:
            disconnect()
    for step, plain, critical in zip(practice.steps, ends[per_row], ends[in_bulk], strict=True):
        assert critical[0] == plain[0], step
        for table, rows in plain[1].items():
            if table == "log" and step != "create":
                # The receivers of all rows run before the write, and then after it.
                assert sorted(critical[1][table]) == sorted(rows), (step, table)
            else:
                assert critical[1][table] == rows, (step, table)
