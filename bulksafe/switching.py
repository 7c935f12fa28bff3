"""Switches the captures of models on and off: ``bulksafe switch-on`` and ``switch-off``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from django.db import connections

from bulksafe import conf, inspection, lock_waits
from bulksafe.declarations import Capture, declared, receivers
from bulksafe.declarations.lineage import lineage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db.models import Model

    from bulksafe.compiler import Trigger

ON, OFF = "on", "off"


class CannotSwitch(Exception):  # noqa: N818
    """The captures cannot be switched; the message gives the fact and the fix."""


@dataclass(frozen=True)
class Group:
    """Models whose captures are switched in one transaction.

    Almost always one model. Models of multi-table inheritance share tables.

    Attributes:
        models: the models with receivers.
        captures: the captures of their tables, by the label of the table's model.
    """

    models: tuple[type[Model], ...]
    captures: dict[str, Trigger]

    @property
    def label(self) -> str:
        return ", ".join(sorted(model._meta.label for model in self.models))

    def states(self, using: str) -> dict[str, str]:
        """The states of ``inspection``, by label."""
        tables = {trigger.table for trigger in self.captures.values()}
        found = inspection.statuses(using, tables)
        return {
            status.label.partition(":")[0]: status.state
            for status in found
            if status.kind == Capture.__name__
        }


def groups(using: str) -> list[Group]:
    """Every model with captured receivers in the database, in groups."""
    captured = {
        item.model: item.invariant
        for item in declared()
        if isinstance(item.invariant, Capture) and inspection.is_in(item, using)
    }
    merged: list[tuple[set[type[Model]], set[type[Model]]]] = []
    for model in _with_receivers():
        models, tables = {model}, set(lineage(model)) & set(captured)
        if not tables:
            continue
        for other in [one for one in merged if one[1] & tables]:
            merged.remove(other)
            models |= other[0]
            tables |= other[1]
        merged.append((models, tables))
    return [
        Group(
            tuple(sorted(models, key=_label)),
            {
                table._meta.label: captured[table].compile(table)
                for table in sorted(tables, key=_label)
            },
        )
        for models, tables in merged
    ]


def _with_receivers() -> Iterator[type[Model]]:
    found = (model for receiver in receivers.captured() for model in receiver.models())
    yield from dict.fromkeys(found)


def _label(model: type[Model]) -> str:
    return model._meta.label


def switch(group: Group, to: str, using: str, seconds: float) -> bool:
    """Switch the captures of a group, in a transaction of its own.

    Args:
        seconds: to wait for the lock of a table, before it is tried again.

    Returns:
        whether any capture was in the other state.

    Raises:
        CannotSwitch: a capture is not installed as the code declares it, or it may not be off.
        CommandError: a lock was not granted.
    """
    states = group.states(using)
    _refuse_unlisted(group, to)
    for label, state in states.items():
        if state == inspection.OUTDATED or (state == inspection.MISSING and to == ON):
            raise CannotSwitch(
                f"The capture of {label} is {state}. Run makemigrations and migrate first."
            )
    wanted = inspection.INSTALLED if to == ON else inspection.SWITCHED_OFF
    left = [label for label, state in states.items() if state not in {wanted, inspection.MISSING}]
    if left:
        statements = [
            trigger.enable_sql if to == ON else trigger.switch_off_sql
            for label, trigger in group.captures.items()
            if label in left
        ]
        work = partial(_execute, statements, using)
        lock_waits.run(using, work, f"Switch {group.label} {to}", seconds)
    return bool(left)


def _refuse_unlisted(group: Group, to: str) -> None:
    missing = [one._meta.label for one in group.models if not conf.is_in_rollout(one._meta.label)]
    if to == OFF and missing:
        raise CannotSwitch(
            f'BULKSAFE["ROLLOUT"] does not list {", ".join(missing)}: without it, receivers would '
            "not run while the capture is off. Add it to the settings of all processes first."
        )


def _execute(statements: Sequence[str], using: str) -> None:
    with connections[using].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
