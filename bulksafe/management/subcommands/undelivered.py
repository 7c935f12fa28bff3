"""``manage.py bulksafe discard --undelivered``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.management.subcommands import CLEAN, FINDINGS
from bulksafe.outbox import discarding

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from bulksafe.outbox.store import Store


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--undelivered",
        action="store_true",
        help="all waiting events of all queues: undelivered events, parked events, dead letters",
    )
    parser.add_argument(
        "--noinput",
        "--no-input",
        action="store_false",
        dest="interactive",
        help="do not ask for confirmation of --undelivered and --all",
    )


def discard(command: BaseCommand, store: Store, *, interactive: bool, dry_run: bool) -> int:
    found = discarding.undelivered(store)
    if not found:
        command.stdout.write("Nothing waits to be delivered.")
        return FINDINGS
    if dry_run:
        command.stdout.write(f"Would discard {found}.")
        return CLEAN
    if interactive and not is_confirmed(command, store, str(found)):
        command.stdout.write("Nothing was discarded.")
        return FINDINGS
    done = discarding.discard(store)
    command.stdout.write(f"Discarded {done}. Their receivers never ran.")
    return CLEAN


def is_confirmed(command: BaseCommand, store: Store, found: str) -> bool:
    """Ask the operator for confirmation."""
    command.stdout.write(
        f"The database {store.using!r} holds {found}. Receivers will never be called for them."
    )
    try:
        answer = input("Type “yes” to discard them: ")
    except EOFError:
        command.stderr.write("There is no terminal to confirm on: pass --noinput.")
        return False
    return answer.strip() == "yes"
