"""The invariants that ``verify`` and ``backfill`` work on, table by table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django.db import connections

from bulksafe.declarations import Capture, Declared, declared
from bulksafe.inspection import is_in
from bulksafe.management.subcommands import check_database, failed, is_selected

if TYPE_CHECKING:
    from collections.abc import Sequence


class TableRules(NamedTuple):
    """Invariants of one table in one database."""

    database: str
    items: list[Declared]


def selected(labels: Sequence[str], database: str | None) -> list[TableRules]:
    """The invariants that match one of ``labels``; all if there are none.

    Args:
        database: an alias; None for all databases that the routers allow for the model.
    """
    rules = [item for item in declared() if not isinstance(item.invariant, Capture)]
    for label in labels:
        if not any(is_selected(item.label, [label]) for item in rules):
            raise failed(
                f"No invariant matches {label!r}. “manage.py bulksafe ls” lists all of them."
            )
    if database is not None:
        check_database(database)
    aliases = list(connections) if database is None else [database]
    found: dict[tuple[str, str], TableRules] = {}
    for alias in aliases:
        for item in rules:
            if is_selected(item.label, labels) and is_in(item, alias):
                key = (alias, item.model._meta.db_table)
                found.setdefault(key, TableRules(alias, [])).items.append(item)
    if labels and database is not None and not found:
        listed = ", ".join(labels)
        raise failed(f"The routers keep the tables of {listed} out of the database {database!r}.")
    for alias, _ in found:
        _commit_each_batch(alias)
    return [found[key] for key in sorted(found, key=lambda key: (aliases.index(key[0]), key[1]))]


def _commit_each_batch(using: str) -> None:
    """With ``AUTOCOMMIT: False`` the run would be one transaction, which is never committed."""
    connection = connections[using]
    if not connection.settings_dict["AUTOCOMMIT"] and not connection.in_atomic_block:
        connection.set_autocommit(True)
