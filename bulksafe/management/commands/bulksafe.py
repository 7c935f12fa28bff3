"""``manage.py bulksafe``: one command, a subcommand for each task."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from bulksafe.exceptions import InvalidDeclaration
from bulksafe.management.subcommands import failed
from bulksafe.management.subcommands.backfill import BACKFILL
from bulksafe.management.subcommands.doctor import DOCTOR
from bulksafe.management.subcommands.listen import LISTEN
from bulksafe.management.subcommands.ls import LS
from bulksafe.management.subcommands.parked import DISCARD, PRUNE, RETRY
from bulksafe.management.subcommands.replay import REPLAY
from bulksafe.management.subcommands.status import STATUS
from bulksafe.management.subcommands.switch import SWITCH_OFF, SWITCH_ON
from bulksafe.management.subcommands.verify import VERIFY
from bulksafe.management.subcommands.violations import VIOLATIONS

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

SUBCOMMANDS = (
    LS,
    VERIFY,
    BACKFILL,
    LISTEN,
    STATUS,
    VIOLATIONS,
    RETRY,
    DISCARD,
    PRUNE,
    REPLAY,
    DOCTOR,
    SWITCH_ON,
    SWITCH_OFF,
)


class Command(BaseCommand):
    help = "Inspect invariants and critical receivers, and run the after-commit receivers."
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        epilog = "exit status: 0 clean, 1 findings, 2 an error"
        return super().create_parser(prog_name, subcommand, epilog=epilog, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        subparsers = parser.add_subparsers(title="subcommands", dest="subcommand", required=True)
        for subcommand in SUBCOMMANDS:
            subcommand.add_to(subparsers, self)

    def handle(self, *args: Any, run: Callable[..., int], **options: Any) -> None:
        try:
            code = run(**options)
            self.stdout.flush()
        except BrokenPipeError:
            # For “status | head”: otherwise Python would try to write the rest at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(128 + signal.SIGPIPE) from None
        except InvalidDeclaration as error:
            raise failed(str(error)) from error
        except DatabaseError as error:
            raise failed(f"The database query failed: {error}") from error
        if code:
            raise SystemExit(code)
