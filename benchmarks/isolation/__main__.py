"""The command line: ``python -m benchmarks.isolation``."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.isolation.figures import IDLE, LIMIT, Measured, Phase
from benchmarks.isolation.measuring import Range
from benchmarks.isolation.workloads import DEEDS, MEASURED
from tests.listener.machines import machine
from tests.listener.site import NeverHappenedError
from tests.migration.project import Databases, Forge

EXAMPLES = """\
examples:
  python -m benchmarks.isolation                    ten minutes, each deed in turn
  python -m benchmarks.isolation --quick            a first look, in about a minute
  python -m benchmarks.isolation --deed lock --minutes 2
                                                    one deed only

Close what else uses the CPU: “idle” is measured first and last, to show how far apart the same
thing is on this machine.

exit status: 0 nothing failed, 1 a p95 latency exceeded twice its idle value, an event was lost or
a bad call did not end as a dead letter
"""

MINUTES, QUICK_MINUTES = 10.0, 1.0


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when nothing failed, and 1 otherwise."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        measured = _measure(options, console)
    except NeverHappenedError as error:
        console.print(f"FAILED: {error}", markup=False, highlight=False)
        return 1
    console.print(_table(measured))
    failures = list(measured.failures())
    for failure in failures:
        console.print(f"FAILED: {failure}", markup=False, highlight=False)
    return int(bool(failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.isolation",
        description="Measure the latency of two queues while the receivers of a third one hang, "
        "end their process, wait for a lock or eat memory.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=_minutes, metavar="N", help=f"in all (default: {MINUTES:g})"
    )
    parser.add_argument("--quick", action="store_true", help=f"--minutes {QUICK_MINUTES:g}")
    parser.add_argument(
        "--deed",
        action="append",
        choices=list(DEEDS),
        metavar="DEED",
        help=f"only this one: {', '.join(DEEDS)}",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the writer's pauses")
    parser.add_argument("--postgres", choices=["embedded", "system"], default="embedded")
    return parser


def _minutes(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return number


def _measure(options: argparse.Namespace, console: Console) -> Measured:
    """Run all phases, each for an equal share of the time."""
    workloads = options.deed or list(DEEDS)
    minutes = options.minutes or (QUICK_MINUTES if options.quick else MINUTES)
    seconds = minutes * 60 / (len(workloads) + 2)
    with tempfile.TemporaryDirectory() as directory, machine(options.postgres) as server:
        forge = Forge()
        try:
            found = Range(
                Path(directory), forge, Databases(server.url), random.Random(options.seed)
            )
            with found.listening():
                for deed in (None, *workloads, None):
                    began = time.monotonic()
                    phase = found.phase(deed, seconds)
                    _say(console, phase, time.monotonic() - began)
                found.wait_for_calls()
            return found.measured()
        finally:
            forge.close()


def _say(console: Console, phase: Phase, seconds: float) -> None:
    console.print(
        f"{phase.title}: {seconds:.0f} s, {len(phase.commits)} commits, {phase.bad_calls} bad "
        f"calls, {phase.dead} dead letters",
        style="dim",
        highlight=False,
        markup=False,
    )


def _table(measured: Measured) -> Table:
    table = Table(
        title="How late other queues are while one misbehaves",
        title_justify="left",
        caption="Milliseconds from COMMIT to the call, p50 / p95; in brackets the p95 ÷ that of "
        f"both idle phases together, which may be up to {LIMIT:g}.",
    )
    headings = ["the receiver", "bad calls", "dead letters", *MEASURED]
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left")
    for phase in measured.phases:
        table.add_row(
            "is idle" if phase.title == IDLE else phase.title,
            str(phase.bad_calls),
            str(phase.dead),
            *(_cell(measured, phase, queue) for queue in MEASURED),
        )
    return table


def _cell(measured: Measured, phase: Phase, queue: str) -> str:
    found, ratio = measured.latency(queue, phase), measured.ratio(queue, phase)
    if found is None or ratio is None:
        return "—"
    return f"{found.p50 * 1e3:.1f} / {found.p95 * 1e3:.1f} ({ratio:.2f})"


if __name__ == "__main__":
    sys.exit(main())
