"""Checks which receivers can be replayed for existing rows, and for which rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.declarations.options import IN_TRANSACTION
from bulksafe.declarations.signals import INSERT, UPDATE
from bulksafe.planning.expressions import NEW, OLD, compile_expression

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.declarations import Receiver


class NotReplayable(Exception):  # noqa: N818
    """The receiver cannot be called for existing rows; the message says why."""


def operation_of(receiver: Receiver) -> str:
    """The operation of a replayed event: UPDATE, or INSERT for receivers of new rows only.

    Raises:
        NotReplayable: it handles deletions only, or runs only in the writer's transaction.
    """
    if receiver.run == IN_TRANSACTION and not receiver.is_listened:
        raise NotReplayable(
            f"The receiver {receiver.name!r} runs in the writer's transaction, and a replay has no "
            'writer. Declare it with otherwise="after_commit", so that the listener can run it.'
        )
    for operation in (UPDATE, INSERT):
        if operation in receiver.operations:
            return operation
    raise NotReplayable(
        f"The receiver {receiver.name!r} is called for deletions only, and existing rows have not "
        "been deleted."
    )


def condition_on_rows(receiver: Receiver, model: type[Model]) -> str:
    """SQL that tests whether a stored row meets the receiver's condition.

    Raises:
        NotReplayable: the condition depends on the row before the change.
        Refused: the condition cannot be compiled.
    """
    if receiver.when is None:
        return "true"
    condition = compile_expression(model, receiver.when, row=NEW)
    if OLD in condition.rows():
        raise NotReplayable(
            f"The condition of {receiver.name!r} compares with the row before the change (old__…), "
            "which an existing row does not have. --ignore-when calls the receiver for every row."
        )
    return condition.sql
