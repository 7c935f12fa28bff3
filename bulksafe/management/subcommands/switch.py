"""``manage.py bulksafe switch-on`` and ``switch-off``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from bulksafe import conf, switching
from bulksafe.declarations import receivers
from bulksafe.management.subcommands import CLEAN, Subcommand, check_database, failed
from bulksafe.planning.problems import did_you_mean

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from django.core.management.base import BaseCommand

#: Seconds to wait for a lock, if the setting gives no limit.
_SECONDS = 2.0

_ON_DESCRIPTION = """\
Switch on the captures of models that are being rolled out, once no process of the older release
writes any more. From then on, critical receivers run for every write.

Each table is a transaction of its own. It waits for the transactions that have written to the
table, at most --lock-timeout seconds; then the writers behind it go first, and it tries again.

exit status: 0 all are on, 2 an error
"""

_ON_EXAMPLES = """\
  manage.py bulksafe switch-on              all models in BULKSAFE["ROLLOUT"]
  manage.py bulksafe switch-on shop.Order   one model
"""

_OFF_DESCRIPTION = """\
Switch off the captures of models in BULKSAFE["ROLLOUT"], before an older release is deployed again.
From then on, their receivers run like plain signal receivers, and bulk writes skip them.

exit status: 0 all are off, 2 an error
"""

_OFF_EXAMPLES = """\
  manage.py bulksafe switch-off              all models in BULKSAFE["ROLLOUT"]
  manage.py bulksafe switch-off shop.Order   one model
"""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("labels", nargs="*", metavar="app.Model", help="only these models")
    parser.add_argument(
        "--lock-timeout",
        type=float,
        metavar="SECONDS",
        help='wait so long for a lock (default: BULKSAFE["LOCK_TIMEOUT"], else 2)',
    )


def _run(
    command: BaseCommand,
    *,
    to: str,
    labels: Sequence[str],
    database: str,
    lock_timeout: float | None,
    **options: Any,
) -> int:
    check_database(database)
    seconds = lock_timeout if lock_timeout is not None else conf.get().LOCK_TIMEOUT or _SECONDS
    if not 0 < seconds <= conf.LONGEST_LOCK_TIMEOUT:
        raise failed(
            "--lock-timeout must be a positive number of seconds, at most "
            f"{conf.LONGEST_LOCK_TIMEOUT}."
        )
    for group in _chosen(labels, database, to):
        try:
            has_changed = switching.switch(group, to, database, seconds)
        except (switching.CannotSwitch, CommandError) as error:
            raise failed(str(error)) from error
        done = f"switched {to}" if has_changed else f"was {to} already"
        command.stdout.write(f"{group.label}: {done}")
        if to == switching.ON and (queues := _queues(group)):
            command.stdout.write(
                f"  The listener must run: it now calls the receivers of {', '.join(queues)}."
            )
    return CLEAN


def _chosen(labels: Sequence[str], database: str, to: str) -> list[switching.Group]:
    groups = switching.groups(database)
    known = {model._meta.label.lower(): group for group in groups for model in group.models}
    if not labels:
        listed = [group for label, group in known.items() if conf.is_in_rollout(label)]
        if not listed:
            # Only models in rollout can be switched off.
            fix = (
                "Name the models: “bulksafe switch-on shop.Order”."
                if to == switching.ON
                else "Add the models to it in the settings of all processes first."
            )
            raise failed(f'BULKSAFE["ROLLOUT"] lists no model with critical receivers. {fix}')
        return list({id(group): group for group in listed}.values())
    for label in labels:
        if label.lower() not in known:
            names = {name: group for group in groups for name in _names(group)}
            hint = did_you_mean(
                label, names, f"Known models: {', '.join(sorted(names)) or 'none'}."
            )
            raise failed(f"No model {label!r} has critical receivers here. {hint}")
    return list({id(g): g for g in (known[label.lower()] for label in labels)}.values())


def _names(group: switching.Group) -> list[str]:
    return [model._meta.label for model in group.models]


def _queues(group: switching.Group) -> list[str]:
    found = {
        f"queue {receiver.queue!r}"
        for model in group.models
        for receiver in receivers.of_model(model, receivers.is_after_commit)
    }
    return sorted(found)


SWITCH_ON = Subcommand(
    "switch-on",
    "switch on the captures of models in rollout",
    _ON_DESCRIPTION,
    _ON_EXAMPLES,
    _arguments,
    partial(_run, to=switching.ON),
)

SWITCH_OFF = Subcommand(
    "switch-off",
    "switch off the captures of models in rollout",
    _OFF_DESCRIPTION,
    _OFF_EXAMPLES,
    _arguments,
    partial(_run, to=switching.OFF),
)
