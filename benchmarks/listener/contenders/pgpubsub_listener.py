"""django-pgpubsub: a trigger stores each change as a notification, and a listener takes them up.

A listener that starts with ``--recover`` works off what is stored. It locks the whole backlog in
one query, so a second process would find nothing: it is measured with one.
"""

from __future__ import annotations

import logging
from typing import Any

import pgpubsub.listen
from django.db.models import F
from pgpubsub import process_stored_notifications

from benchmarks.listener import database
from benchmarks.listener.channels import CHANNELS, MODELS
from benchmarks.listener.contenders.base import Contender, Load, new_orders
from benchmarks.listener.models import Seen


class Pgpubsub(Contender):
    label = "django-pgpubsub"
    note = "lock_notifications, a listener with --recover"
    is_rival = True

    def fill(self, load: Load, receiver: str) -> None:
        model: Any = MODELS[receiver]
        database.empty(model, Seen)
        database.truncate("pgpubsub_notification")
        model.objects.bulk_create(new_orders(model, load.rows), batch_size=5_000)
        for _ in range(load.steps - 1):
            model.objects.update(step=F("step") + 1)
        database.analyze("pgpubsub_notification")

    def prepare(self, receiver: str) -> None:
        logging.getLogger("pgpubsub").setLevel(logging.WARNING)

    def drain(self, receiver: str) -> None:
        channels = [CHANNELS[receiver]]
        connection = pgpubsub.listen.listen_to_channels(channels)
        process_stored_notifications(channels)
        pgpubsub.listen.process_notifications(connection)
        connection.stop()
