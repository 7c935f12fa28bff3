"""``manage.py bulksafe discard --undelivered``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.management.subcommands import CLEAN, FINDINGS
from bulksafe.outbox import discarding

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from bulksafe.outbox.store import Store


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--undelivered",
        action="store_true",
        help="everything that waits: undelivered events, parked events and dead letters",
    )
    parser.add_argument(
        "--noinput",
        "--no-input",
        action="store_false",
        dest="interactive",
        help="do not ask before --undelivered",
    )


def discard(command: Any, store: Store, interactive: bool) -> int:
    found = discarding.undelivered(store)
    if not found:
        command.stdout.write("Nothing waits to be delivered.")
        return FINDINGS
    if interactive and not _is_confirmed(command, store, found):
        command.stdout.write("Nothing was discarded.")
        return FINDINGS
    done = discarding.discard(store)
    command.stdout.write(f"Discarded {done}. Their receivers never ran.")
    return CLEAN


def _is_confirmed(command: Any, store: Store, found: discarding.Undelivered) -> bool:
    command.stdout.write(
        f"The database {store.using!r} holds {found}. Receivers will never be called for them."
    )
    try:
        answer = input("Type “yes” to discard them: ")
    except EOFError:
        return False
    return answer.strip() == "yes"
