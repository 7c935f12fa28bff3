"""Shows the second part: receivers after the commit, and the listener that is killed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from bulksafe import conf
from examples.shop.demo.delivery import CrashResult, Delivery
from examples.shop.demo.layout import Section, columns, duration, words, wrong

_PATHS = "The receiver keep_history: as Django's @receiver, and as @bulksafe.critical"
_KILLED = "A listener that is killed, twice, and started again"


def sections(delivery: Delivery) -> Iterator[Section]:
    """The titles of the tables, and the tables."""
    yield _PATHS, _paths(delivery)
    yield _KILLED, _course(delivery.crash)
    yield "What became of the calls", _calls(delivery.crash)


def _paths(delivery: Delivery) -> Table:
    table = columns()
    table.add_column("write path", no_wrap=True)
    for title in ("orders", "@receiver", "skipped", "@critical", "skipped", "twice"):
        table.add_column(title, justify="right", no_wrap=True)
    for path in delivery.paths:
        skipped, critical = path.rows - path.plain, path.critical
        table.add_row(
            path.title,
            f"{path.rows:,}",
            f"{path.plain:,}",
            wrong(skipped),
            f"{critical.made:,}",
            wrong(critical.lost),
            wrong(critical.twice),
        )
    return table


def _course(crash: CrashResult) -> Table:
    table = words()
    table.add_row(
        "written", f"{crash.written - crash.while_down:,} events of {crash.orders:,} orders"
    )
    for where, waiting in crash.kills:
        table.add_row("SIGKILL", f"in the middle of {where}; {waiting:,} events wait")
    table.add_row("written", f"{crash.while_down:,} events while no listener runs")
    table.add_row(
        "started",
        f"everything is delivered after {duration(crash.recovery)}, of which the "
        f"rows whose request was on its way wait for {conf.get().LEASE:.0f} s: BULKSAFE['LEASE']",
    )
    return table


def _calls(crash: CrashResult) -> Table:
    table = columns()
    table.add_column("receiver", no_wrap=True)
    table.add_column("effect", overflow="fold")
    for title in ("due", "made", "lost", "twice"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in crash.tallies:
        numbers = f"{one.due:,}", f"{one.made:,}", wrong(one.lost), wrong(one.twice)
        table.add_row(one.receiver, one.effect, *numbers)
    return table


def summary(delivery: Delivery) -> Iterator[Text]:
    crash = delivery.crash
    skipped = sum(path.rows - path.plain for path in delivery.paths)
    missed = sum(path.critical.lost for path in delivery.paths)
    yield Text.assemble(
        ("Without bulksafe: ", "bold"),
        (f"{skipped:,} calls of a receiver were skipped. ", "bold red" if skipped else "green"),
        ("With bulksafe: ", "bold"),
        (f"{missed:,}.", "bold red" if missed else "bold green"),
    )
    history = crash.tallies[0]
    lost = sum(one.lost for one in crash.tallies)
    twice = sum(one.twice for one in crash.tallies)
    yield Text.assemble(
        ("With the listener killed: ", "bold"),
        f"events written {crash.written:,}, delivered {history.made:,}, ",
        (f"lost {lost:,}, ", "bold red" if lost else "bold green"),
        (f"twice in the database {twice:,}. ", "bold red" if twice else "bold green"),
        f"Back in {duration(crash.recovery)}.",
    )
    if crash.again:
        yield Text(
            f"Outside the database {crash.again:,} were repeated: requests in progress at a "
            f"SIGKILL, "
            "with the same event_id, by which the receiving service recognizes them."
        )
