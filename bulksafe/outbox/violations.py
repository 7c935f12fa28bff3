"""The recorded violations of observed rules, and the writes that observed receivers missed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.management import CommandError
from django.db import connections, transaction

from bulksafe import conf

if TYPE_CHECKING:
    from datetime import datetime

    from bulksafe.outbox.store import Store

RULE, RECEIVER = "rule", "receiver"

_OPERATIONS = {"I": "INSERT", "U": "UPDATE", "D": "DELETE", "T": "TRUNCATE"}


@dataclass(frozen=True)
class Count:
    """The records of one invariant.

    Attributes:
        invariant: the label of the rule, or the name of the receiver.
        kind: ``"rule"`` or ``"receiver"``.
        count: the number of records.
        is_full: whether further violations are not recorded.
        first, last: the times of the earliest and the latest record.
    """

    invariant: str
    kind: str
    count: int
    is_full: bool
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Violation:
    """One record.

    Attributes:
        invariant, kind: as in ``Count``.
        at: the time of the write.
        table: the table, as PostgreSQL shows it; of a partition, the partitioned table.
        operation: ``"INSERT"``, ``"UPDATE"``, ``"DELETE"`` or ``"TRUNCATE"``.
        key: the row's primary key, ``"id=5"``.
        old, new: the row before and after the write, by column.
        session_user, current_user: the role that logged in, and the role that wrote.
        context: the application's ``bulksafe.context``, if any.
        query: the first 200 characters of the client's statement.
    """

    invariant: str
    kind: str
    at: datetime
    table: str
    operation: str
    key: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    session_user: str
    current_user: str
    context: dict[str, Any] | None
    query: str


def counts(store: Store) -> list[Count]:
    """The number of records of each invariant that has any."""
    ((most,),) = store.rows("violation_limit")
    return [
        Count(invariant, kind, count, count >= most, first, last)
        for invariant, kind, count, first, last in store.rows("violation_counts")
    ]


def find(store: Store, invariant: str | None, limit: int) -> list[Violation]:
    """The latest records, of one invariant or of all."""
    rows = store.rows("violations", {"invariant": invariant, "limit": limit})
    return [
        Violation(
            invariant=row[0],
            kind=row[1],
            at=row[2],
            table=row[3],
            operation=_OPERATIONS[row[4]],
            key=row[5],
            old=_read(row[6]),
            new=_read(row[7]),
            session_user=row[8],
            current_user=row[9],
            context=_read(row[10]),
            query=row[11],
        )
        for row in rows
    ]


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def delete(store: Store, invariant: str | None) -> int:
    """Delete the records of one invariant or of all, and return their number.

    Lane by lane, each in its own transaction: it waits for writers, and none waits for it.
    """
    deleted = 0
    for label, lane in store.rows("violation_lanes", {"invariant": invariant}):
        parameters = {"invariant": label, "lane": lane}
        with transaction.atomic(using=store.using):
            store.rows("lock_violation_lane", parameters)
            ((count,),) = store.rows("delete_violations", parameters)
        deleted += count
    return deleted


def limit(store: Store) -> None:
    """Tell the database how many records each invariant may have.

    Raises:
        CommandError: the number has changed, and the session's role may not set it.
    """
    most = conf.get().MAX_OBSERVED
    ((current,),) = store.rows("violation_limit")
    if current == most:
        return
    with connections[store.using].cursor() as cursor:
        cursor.execute("SELECT has_sequence_privilege('bulksafe_violation_limit', 'UPDATE')")
        ((is_allowed,),) = cursor.fetchall()
    if not is_allowed:
        raise CommandError(
            f'BULKSAFE["MAX_OBSERVED"] is {most} and {current} in the database {store.using!r}, '
            "where only the owner of bulksafe's tables may change it. Run migrate as that role."
        )
    store.rows("set_violation_limit", {"most": most})
