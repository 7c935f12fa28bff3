"""bulksafe itself, and the floor: the least that reading its outbox takes."""

from __future__ import annotations

import gc
import json
from typing import Any

from django.db import connection, transaction
from django.db.models import F

from benchmarks.listener import database
from benchmarks.listener.contenders.base import Contender, Load, new_orders
from benchmarks.listener.listening import drain
from benchmarks.listener.models import Seen
from benchmarks.listener.receivers import MODELS, WRITE, calls
from bulksafe.outbox.events import INSERTED

#: How many cursors and events of each the floor takes at a time: the same as the listener.
CURSORS, EVENTS = 4, 250


class Bulksafe(Contender):
    """The listener, with its defaults."""

    label = "bulksafe"
    note = "manage.py bulksafe listen, defaults"
    most_processes = 4

    def fill(self, load: Load, receiver: str) -> None:
        model: Any = MODELS[receiver]
        database.empty(model, Seen)
        database.reset_outbox()
        model.objects.bulk_create(new_orders(model, load.rows), batch_size=5_000)
        for _ in range(load.steps - 1):
            model.objects.update(step=F("step") + 1)
        database.analyze("bulksafe_outbox")

    def prepare(self, receiver: str) -> None:
        gc.freeze()  # as the command does
        connection.ensure_connection()

    def drain(self, receiver: str) -> None:
        drain(receiver)


class Floor(Bulksafe):
    """Fetch and acknowledge the same rows in plain SQL, as one would by hand.

    It takes the next events of four cursors under a lock, both images as JSON, and moves the
    cursors: no conditions, no windows between snapshots, no parked events, no instances. With the
    receiver that writes it makes the same ORM write for each event.
    """

    label = "floor: plain SQL"
    note = "claim, fetch with both images, acknowledge"
    most_processes = 1

    def prepare(self, receiver: str) -> None:
        self.fetch = _FETCH
        with connection.cursor() as cursor:
            cursor.execute("SELECT min(seq) - 1 FROM bulksafe_outbox")
            self.first = cursor.fetchone()[0]

    def drain(self, receiver: str) -> None:
        while self._batch(receiver):
            pass

    def _batch(self, receiver: str) -> int:
        done = 0
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_CLAIM, {"queue": receiver, "first": self.first, "limit": CURSORS})
            for bucket, position in cursor.fetchall():
                cursor.execute(
                    self.fetch, {"bucket": bucket, "position": position, "limit": EVENTS}
                )
                events = cursor.fetchall()
                for event in events:
                    self.receive(event, receiver)
                done += len(events)
                cursor.execute(
                    _ACKNOWLEDGE,
                    {"queue": receiver, "bucket": bucket, "position": events[-1][0]},
                )
        return done

    def receive(self, event: tuple[Any, ...], receiver: str) -> None:
        calls.note()
        if receiver == WRITE:
            new = json.loads(event[-1])
            Seen.objects.create(order=new["id"], step=new["step"])


class FloorAgain(Floor):
    label = "floor, again"
    note = "the same once more: the noise"


class ByHand(Floor):
    """The floor, with what a receiver is called with: both states of the row as instances.

    What lies between this and bulksafe is bulksafe's; what lies between this and the floor is what
    PostgreSQL, psycopg and Django take to turn an image into an instance.
    """

    label = "floor, with instances"
    note = "the same, with each image made an instance by PostgreSQL's and Django's own means"

    def prepare(self, receiver: str) -> None:
        super().prepare(receiver)
        model = MODELS[receiver]
        table = model._meta.db_table
        self.model: Any = model
        self.names = [field.attname for field in model._meta.concrete_fields]
        columns = [
            f'{side}."{field.column}"'
            for side in ("old", "new")
            for field in model._meta.concrete_fields
        ]
        self.fetch = (
            f"SELECT e.seq, e.operation::text, {', '.join(columns)} FROM ({_FETCH}) AS e "
            f"CROSS JOIN LATERAL jsonb_populate_record(NULL::{table}, e.old) AS old "
            f"CROSS JOIN LATERAL jsonb_populate_record(NULL::{table}, e.new) AS new"
        )

    def receive(self, event: tuple[Any, ...], receiver: str) -> None:
        calls.note()
        operation, width = event[1], len(self.names)
        if operation != INSERTED:
            self.model.from_db("default", self.names, event[2 : 2 + width])
        order = self.model.from_db("default", self.names, event[2 + width :])
        if receiver == WRITE:
            Seen.objects.create(order=order.pk, step=order.step)


_CLAIM = """
SELECT c.bucket, COALESCE(c.position, %(first)s)
FROM bulksafe_cursor AS c
WHERE c.queue = %(queue)s AND c.atomic
  AND EXISTS (
      SELECT FROM bulksafe_outbox AS o
      WHERE o.bucket = c.bucket AND o.seq > COALESCE(c.position, %(first)s)
  )
ORDER BY c.served_at LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""
_FETCH = """
SELECT seq, source, operation, key, at, context, old, new
FROM bulksafe_outbox WHERE bucket = %(bucket)s AND seq > %(position)s
ORDER BY seq LIMIT %(limit)s
"""
_ACKNOWLEDGE = """
UPDATE bulksafe_cursor SET position = %(position)s, served_at = clock_timestamp()
WHERE queue = %(queue)s AND atomic AND bucket = %(bucket)s
"""
