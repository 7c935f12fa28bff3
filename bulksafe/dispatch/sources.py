"""Maps database tables to models."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from django.db import connections

from bulksafe.declarations import receivers
from bulksafe.declarations.options import DEFAULT_LANE
from bulksafe.outbox.known import Known
from bulksafe.outbox.parking import EVERY_RECEIVER
from bulksafe.own_cursor import own_cursor
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.declarations.options import Lane


def models_of(among: Iterable[Receiver]) -> list[type[Model]]:
    """The models of the receivers, without duplicates."""
    found: dict[type[Model], None] = {}
    for receiver in among:
        found |= dict.fromkeys(receiver.models())
    return list(found)


def sources(using: str) -> dict[int, type[Model]]:
    """The models with after-commit receivers, by the oid of their table in ``using``."""
    return by_oid(models_of(receivers.listened()), using)


def known(using: str, queues: Collection[str] | None = None) -> Known:
    """The receivers and tables of this code, for the listener.

    Args:
        queues: only these queues; all by default.
    """
    models = sources(using)
    oids = {model: oid for oid, model in models.items()}
    pairs = [(EVERY_RECEIVER, oid) for oid in models]
    lanes: dict[Lane, set[int]] = defaultdict(set)
    if queues is None or DEFAULT_LANE[0] in queues:
        lanes[DEFAULT_LANE] = set()
    for receiver in receivers.listened():
        if queues is None or receiver.queue in queues:
            tables = {oids[model] for model in receiver.models() if model in oids}
            pairs += [(receiver.name, oid) for oid in tables]
            lanes[receiver.queue, receiver.atomic] |= tables
    return Known(pairs, lanes)


def by_oid(models: Sequence[type[Model]], using: str) -> dict[int, type[Model]]:
    """Models by the oid of their table; models without a table in this database are omitted."""
    names = [quoting.relation(model._meta.db_table) for model in models]
    connection = connections[using]
    connection.ensure_connection()
    # Bypasses Django's cursor, so that tests that count queries do not depend on which write comes
    # first.
    with own_cursor(connection) as cursor:
        cursor.execute(
            "SELECT n.number, pg_catalog.to_regclass(n.name)::pg_catalog.oid::pg_catalog.int8 "
            "FROM pg_catalog.unnest(%s::pg_catalog.text[]) WITH ORDINALITY AS n (name, number)",
            [names],
        )
        return {oid: models[number - 1] for number, oid in cursor.fetchall() if oid is not None}
