"""``manage.py bulksafe listen``."""

from __future__ import annotations

import gc
import json
import logging
import re
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from bulksafe.declarations.options import DEFAULT_LANE
from bulksafe.declarations.receivers import lanes, served_queues
from bulksafe.listener.descriptors import allow
from bulksafe.listener.health import Health
from bulksafe.listener.supervisor import CannotStart, Supervisor
from bulksafe.listener.watchdog import Watchdog, connect
from bulksafe.management.subcommands import (
    CLEAN,
    FINDINGS,
    Subcommand,
    check_database,
    failed,
    ownership,
    store_of,
)
from bulksafe.management.subcommands.doctor import findings
from bulksafe.outbox.shape import FIX
from bulksafe.planning.problems import did_you_mean

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Sequence

    from django.core.management.base import BaseCommand

    from bulksafe.outbox.store import Store

_DESCRIPTION = """\
Run the receivers that run after the commit, for every committed change: those declared with
run="after_commit", those with otherwise="after_commit" for writes by other programs, and Emit.

Each queue has its own worker process, so a call that hangs or crashes delays no other queue. Start
as many listeners as you like, on as many machines as you like: they divide the rows among
themselves. The first SIGTERM lets the workers finish their current work, the second one abandons
it; nothing is lost either way, nor by SIGKILL. Listeners reconnect automatically.

exit status: 0 stopped normally, 1 with --once: receivers failed, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe listen                                 every queue, one worker each
  manage.py bulksafe listen --concurrency mail=4,default=2  number of workers for these queues
  manage.py bulksafe listen --queues mail,search            these queues only
  manage.py bulksafe listen --max-memory 512M               replace a worker that holds more
  manage.py bulksafe listen --once                          deliver the backlog and exit: for cron
  manage.py bulksafe listen --health-port 8080              answer GET /livez and /readyz
"""


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) <= highest:
            raise ArgumentTypeError(f"{text!r} is not a number from {lowest} to {highest}")
        return int(text)

    return parse


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--queues",
        action="append",
        metavar="NAME[,NAME]",
        help="the queues to serve (default: the queues of all receivers)",
    )
    parser.add_argument(
        "--concurrency",
        action="append",
        metavar="QUEUE=N[,QUEUE=N]",
        help="workers per queue, which run in parallel (default: 1); a bare N is for all queues",
    )
    parser.add_argument(
        "--max-memory",
        type=_memory,
        metavar="SIZE",
        help="memory limit of a worker, like 512M: a larger worker is replaced after its batch, "
        "and killed if the current call is to blame",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="exit when nothing is due; calls that wait for a retry stay",
    )
    parser.add_argument(
        "--health-port",
        type=_number(0, 65535),
        metavar="P",
        help="answer /livez and /readyz on this port; 0 selects a free port and logs it",
    )
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="log format on standard error, unless LOGGING gives the logger “bulksafe” a handler",
    )


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _memory(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.upper())
    if match is None or not int(match[1]):
        raise ArgumentTypeError(f"{text!r} is not a size: write 512M or 2G")
    return int(match[1]) * _UNITS[match[2]]


def _chosen(queues: Sequence[str] | None) -> list[str]:
    known = served_queues()
    chosen = [name.strip() for text in queues or () for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            hint = did_you_mean(name, known, f"Known queues: {', '.join(known)}.")
            raise failed(f"No receiver has the queue {name!r}. {hint}")
    if queues and not chosen:
        raise failed("--queues lists no queue.")
    return sorted(set(chosen)) or known


#: The most files that the supervisor opens for each worker, and besides.
_FILES, _OTHER_FILES = 4, 100

#: The maximum number of workers of one queue on one machine.
_MOST_WORKERS = 256


def _workers(given: Sequence[str] | None, queues: Sequence[str]) -> dict[str, int]:
    """The number of workers of each queue."""
    found = dict.fromkeys(queues, 1)
    for text in (part.strip() for one in given or () for part in one.split(",")):
        queue, separator, number = text.rpartition("=")
        if not number.isdecimal() or not 1 <= int(number) <= _MOST_WORKERS:
            raise failed(
                f"--concurrency {text}: {number!r} is not a number from 1 to {_MOST_WORKERS}. "
                "Write --concurrency mail=4."
            )
        if separator and queue not in found:
            hint = did_you_mean(queue, list(queues), f"Queues served: {', '.join(queues)}.")
            raise failed(f"--concurrency {text}: the queue {queue!r} is not served. {hint}")
        found |= dict.fromkeys([queue] if separator else queues, int(number))
    return found


def _run(
    command: BaseCommand,
    *,
    queues: Sequence[str] | None,
    concurrency: Sequence[str] | None,
    max_memory: int | None,
    once: bool,
    health_port: int | None,
    log_format: str,
    database: str,
    verbosity: int = 1,
    **options: Any,
) -> int:
    check_database(database)
    chosen = _chosen(queues)
    workers = _workers(concurrency, chosen)
    _set_up_logging(command, log_format, verbosity)
    _prepare(database, chosen)
    # Freeze the loaded objects, so that garbage collection skips them and child processes do not
    # copy them.
    gc.freeze()
    allow(_OTHER_FILES + sum(workers.values()) * _FILES)
    try:
        supervisor = Supervisor(database, workers, once=once, max_memory=max_memory)
        health = _health(health_port, supervisor)
        # Start the thread after the processes, which would inherit its locks.
        failures = supervisor.run(started=health.start if health else lambda: None)
    except CannotStart as error:
        raise failed(
            f"The machine cannot start {sum(workers.values())} workers: {error}. Lower "
            "--concurrency, or raise the limits of open files and processes (ulimit -n, ulimit -u)."
        ) from error
    if health:
        health.stop()
    return FINDINGS if once and failures else CLEAN


def _prepare(database: str, queues: Sequence[str]) -> None:
    """One-time steps before the processes start."""
    watchdog = Watchdog()
    try:
        connect(database, watchdog)
        with watchdog.watch():
            store = store_of(database)
            if imitations := list(ownership.foreign(database)):
                # A different role could feed forged rows to the receivers.
                raise failed(f"{' '.join(imitations)} {FIX}")
            _begin_queues(store, queues)
            for fact, fix in findings(store):
                logging.getLogger("bulksafe").warning("%s %s", fact, fix)
    finally:
        watchdog.close()
        # Forked processes must not share it.
        connections[database].close()


def _begin_queues(store: Store, queues: Sequence[str]) -> None:
    """Start queues that are new since the last ``migrate``."""
    wanted = {lane for lane in lanes() if lane[0] in queues}
    missing = {*wanted, DEFAULT_LANE} - store.lanes()
    if missing:
        with transaction.atomic(using=store.using):
            store.create_cursors(missing)


def _health(port: int | None, supervisor: Supervisor) -> Health | None:
    if port is None:
        return None
    try:
        health = Health(port, supervisor)
    except OSError as error:
        raise failed(f"Port {port} cannot be used: {error}.") from error
    logging.getLogger("bulksafe").info("answering /livez and /readyz on port %d", health.port)
    return health


class _Json(logging.Formatter):
    """Formats each record as a line of JSON, including its extra attributes."""

    _usual = frozenset(vars(logging.makeLogRecord({})))

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        said |= {k: v for k, v in vars(record).items() if k not in {*self._usual, "message"}}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def _set_up_logging(command: BaseCommand, log_format: str, verbosity: int) -> None:
    """Log to standard error unless LOGGING gives the logger ``bulksafe`` a handler."""
    logger = logging.getLogger("bulksafe")
    if logger.handlers or verbosity == 0:
        return
    handler = logging.StreamHandler(command.stderr._out)  # type: ignore[call-overload]  # not in the stubs
    text = logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s")
    handler.setFormatter(_Json() if log_format == "json" else text)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
    logger.propagate = False


LISTEN = Subcommand(
    "listen",
    "run the after-commit receivers: the daemon",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
