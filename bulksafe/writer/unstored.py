"""Warns of assignments to fields that a write does not store, as in ``save(update_fields=…)``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

    from bulksafe.declarations import Receiver

logger = logging.getLogger("bulksafe")

#: The receivers and fields already warned about.
_named: set[tuple[str, str]] = set()


def warn(model: type[Model], by: Iterable[Receiver], attributes: Iterable[str]) -> None:
    """Warn once for each field and receiver.

    Args:
        by: the receivers, one of which assigned them.
        attributes: the attributes that the write leaves out.
    """
    by_attribute = {field.attname: field.name for field in model._meta.concrete_fields}
    fields = {by_attribute[name] for name in attributes}
    for receiver in by:
        new = sorted(name for name in fields if (receiver.name, name) not in _named)
        if new:
            _named.update((receiver.name, name) for name in new)
            logger.warning(
                "%s assigns %s, which this write of %s does not store: add it to the fields of "
                "bulk_update(), or to update_fields= of bulk_create().",
                receiver.name,
                ", ".join(new),
                model._meta.label,
            )
