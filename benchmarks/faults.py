"""The fault campaign: ``python -m benchmarks.faults``.

Kills listeners, cuts their connections and restarts their server, and counts what is lost, doubled
or out of order.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.listener import faults
from tests.listener.machines import machine
from tests.listener.proxy import Proxy
from tests.listener.site import Site
from tests.migration.project import Databases, Forge

EXAMPLES = """\
examples:
  python -m benchmarks.faults                       200 runs, each kind of fault in turn
  python -m benchmarks.faults --runs 20             a first look
  python -m benchmarks.faults --statements          SIGKILL and lost connections at every statement
  python -m benchmarks.faults --kind "server crashed" --runs 30
"""

#: The kinds that cover every statement, one by one.
BY_STATEMENT = ("SIGKILL between two statements", "connection lost between two statements")


def main(arguments=None):
    """Return 0 when nothing was lost, doubled or out of order, and 1 otherwise."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    choice = random.Random(options.seed)
    with (
        tempfile.TemporaryDirectory() as directory,
        machine(options.postgres) as server,
    ):
        forge, proxy = Forge(), Proxy(("127.0.0.1", server.port))
        try:
            site = Site(Path(directory) / "site", forge, Databases(server.url))
            faults.prepare(site)
            campaign = faults.Range(site, server, proxy, choice, haste=not options.real_timeouts)
            failures = _run(campaign, list(_plan(campaign, options)), console)
            in_the_end = campaign.of_all_rows()
        finally:
            proxy.close()
            forge.close()
    console.print(_table(campaign.outcomes, failures, options))
    if not in_the_end.is_good:
        console.print(f"BAD in the end: {in_the_end}", markup=False)
    judged = [*campaign.outcomes, in_the_end]
    return int(bool(failures) or not all(outcome.is_good for outcome in judged))


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description="Kill listeners, cut their connections and restart their server, and count "
        "what is lost, doubled or out of order.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs", type=int, default=200, metavar="N", help="how many (default: 200)"
    )
    parser.add_argument(
        "--kind", action="append", choices=list(faults.KINDS), metavar="KIND", help="only this one"
    )
    parser.add_argument(
        "--statements",
        action="store_true",
        help="in place of --runs: before and after every statement of a listener",
    )
    parser.add_argument(
        "--real-timeouts",
        action="store_true",
        help="wait for dead connections as long as a listener does, up to 50 s each",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all choices")
    parser.add_argument("--postgres", choices=["embedded", "system"], default="embedded")
    return parser


def _plan(campaign, options):
    """The runs, as (kind, what is done)."""
    if options.statements:
        for place in campaign.places():
            yield BY_STATEMENT[0], lambda place=place: campaign.kill_at(place)
            yield BY_STATEMENT[1], lambda place=place: campaign.cut_at("reset", place)
        return
    for kind in islice(cycle(options.kind or faults.KINDS), options.runs):
        yield kind, lambda kind=kind: faults.KINDS[kind](campaign)


def _run(campaign, plan, console):
    """Run them, and return what did not come to an end, as (kind, error)."""
    failures = []
    for number, (kind, do) in enumerate(plan, 1):
        began = time.monotonic()
        try:
            outcome = campaign.outcome(kind, do())
            result = "good" if outcome.is_good else f"BAD {outcome.inside} {outcome.outside}"
        except AssertionError as error:
            failures.append((kind, error))
            result = f"FAILED {error}"
        seconds = time.monotonic() - began
        console.print(
            f"{number:4}/{len(plan)}  {kind}  {seconds:.1f} s  {result}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return failures


def _table(outcomes, failures, options):
    lease, poll = faults.SETTINGS["LEASE"], faults.SETTINGS["POLL_INTERVAL"]
    patience = "as a listener does" if options.real_timeouts else "after about 1 s"
    table = Table(
        title="What listeners survive",
        title_justify="left",
        caption=f"LEASE {lease} s, POLL_INTERVAL {poll} s; dead connections are given up "
        f"{patience}. Doubled: in the database; again: outside it, where that may be. To recover: "
        "seconds from the fault until everything was delivered, p50 / max.",
    )
    headings = "fault,runs,stuck,lost,doubled,out of order,again,to recover,outside"
    for column, heading in enumerate(headings.split(",")):
        table.add_column(heading, justify="right" if column else "left")
    kinds = dict.fromkeys([*(o.kind for o in outcomes), *(kind for kind, _ in failures)])
    for kind in kinds:
        stuck = sum(failed == kind for failed, _ in failures)
        table.add_row(kind, *_cells([o for o in outcomes if o.kind == kind], stuck))
    table.add_section()
    table.add_row("all", *_cells(outcomes, len(failures)))
    return table


def _cells(outcomes, stuck):
    both = [verdict for o in outcomes for verdict in (o.inside, o.outside)]
    return [
        str(len(outcomes) + stuck),
        str(stuck),
        str(sum(len(verdict.lost) for verdict in both)),
        str(sum(len(o.inside.doubled) for o in outcomes)),
        str(sum(len(verdict.swapped) + len(verdict.wrong) for verdict in both)),
        str(sum(len(o.outside.doubled) for o in outcomes)),
        *(_seconds([o.recovered[queue] for o in outcomes]) for queue in faults.QUEUES),
    ]


def _seconds(listed):
    return f"{median(listed):.2f} / {max(listed):.2f}" if listed else "—"


if __name__ == "__main__":
    sys.exit(main())
