"""Which table of the database belongs to which model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections

from bulksafe.declarations import receivers
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from django.db.models import Model


def captured_models() -> list[type[Model]]:
    """The models that have after-commit receivers, each once."""
    found: dict[type[Model], None] = {}
    for receiver in receivers.after_commit():
        found |= dict.fromkeys(receiver.models())
    return list(found)


def sources(using: str) -> dict[int, type[Model]]:
    """The captured models by the oid of their table in the database ``using``."""
    models = captured_models()
    names = [quoting.relation(model._meta.db_table) for model in models]
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT n.number, to_regclass(n.name)::oid::bigint "
            "FROM unnest(%s::text[]) WITH ORDINALITY AS n (name, number)",
            [names],
        )
        return {oid: models[number - 1] for number, oid in cursor.fetchall() if oid is not None}
