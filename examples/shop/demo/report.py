"""Shows what came of it all: as tables, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bulksafe import conf
from examples.shop.demo import refunding_report
from examples.shop.demo.breaches import BREACHES, Breach
from examples.shop.demo.layout import columns, duration, words, wrong
from examples.shop.demo.matrix import HELD, Cell, Verdict
from examples.shop.demo.paths import WritePath

if TYPE_CHECKING:
    from examples.shop.demo.refunding import Refunding
    from examples.shop.demo.telling import Crash, Telling

_DASH = "\N{EN DASH}"

_STYLES = {
    Verdict.BROKE: "bold red",
    Verdict.REFUSED: "green",
    Verdict.COMPUTED: "green",
    Verdict.ERROR: "bold yellow",
    Verdict.IMPOSSIBLE: "dim",
}

_WITHOUT = "WITHOUT bulksafe: the rules are in signal receivers (examples/shop_signals)"
_WITH = "WITH bulksafe: the same rules are in Meta.triggers (examples/shop)"
_TOLD = "The receiver keep_history: as Django's @receiver, and as @bulksafe.critical"
_KILLED = "A listener that is killed, twice, and started again"
_REFUSALS = "What the refusals said (bulksafe.InvariantViolation, an IntegrityError)"

#: What one can type to see a refusal.
_BREACH = "UPDATE {} SET discount = amount + 1"
PAST = (
    "INSERT INTO shop_refund (order_id, number, amount, reason, approved, created_at) "
    "SELECT id, '', 1, 'late', false, now() FROM shop_order LIMIT 1"
)


@dataclass(frozen=True)
class Results:
    """What the demo has found out.

    Attributes:
        postgresql: the server's version.
        django: Django's version.
        size: how many rows each write wrote.
        rows: how many rows the shop has.
        paths: the write paths that were tried.
        without: the cells of the shop whose rules are in signal receivers.
        with_: the cells of the shop whose rules are invariants.
        telling: the second part: receivers.
        refunding: the third part: receivers in the writer's transaction.
    """

    postgresql: str
    django: str
    size: int
    rows: int
    paths: Sequence[WritePath]
    without: Sequence[Cell]
    with_: Sequence[Cell]
    telling: Telling | None = None
    refunding: Refunding | None = None

    @property
    def problems(self) -> list[str]:
        """What keeps the demo from having shown what it is to show."""
        failed = [
            *(("With bulksafe", cell) for cell in _tried(self.with_) if cell.verdict not in HELD),
            *(("Without bulksafe", cell) for cell in self.without if cell.verdict is Verdict.ERROR),
        ]
        return [
            *(f"{half}, {cell.path} on {cell.rule}: {_explained(cell)}" for half, cell in failed),
            *(self.telling.problems if self.telling else ()),
            *(self.refunding.problems if self.refunding else ()),
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "postgresql": self.postgresql,
            "django": self.django,
            "rows": self.rows,
            "rows_per_write": self.size,
            "without": [asdict(cell) for cell in self.without],
            "with": [asdict(cell) for cell in self.with_],
            "summary": {
                "tried": len(_tried(self.without)),
                "broke_without": _count(self.without, Verdict.BROKE),
                "broke_with": _count(self.with_, Verdict.BROKE),
            },
            "receivers": self.telling and self.telling.as_json(),
            "transaction": self.refunding and self.refunding.as_json(),
            "problems": self.problems,
        }


def _tried(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.verdict is not Verdict.IMPOSSIBLE]


def _count(cells: Sequence[Cell], verdict: Verdict) -> int:
    return sum(cell.verdict is verdict for cell in cells)


def _explained(cell: Cell) -> str:
    return f"{cell.rows:,} rows break the rule." if cell.verdict is Verdict.BROKE else cell.message


def show(results: Results, console: Console) -> None:
    """Print the whole report."""
    for title, content in _sections(results, console):
        if title:
            console.print(title, style="bold", highlight=False)
        console.print(content)
        console.print()
    # What is to be copied is one line, however narrow the console.
    console.print(_further(), soft_wrap=True)


def _sections(results: Results, console: Console) -> Iterator[tuple[str, RenderableType]]:
    if results.with_:
        yield "", _heading(results)
        yield "The rules", _rules()
        yield _WITHOUT, _matrix(results.without, results.paths, console)
        yield _WITH, _matrix(results.with_, results.paths, console)
        yield "How to read it", _legend(results)
        yield _REFUSALS, _messages(results.with_)
    if results.telling:
        yield _TOLD, _who_is_told(results.telling)
        yield _KILLED, _course(results.telling.crash)
        yield "What became of the calls", _calls(results.telling.crash)
    if results.refunding:
        yield from refunding_report.sections(results.refunding)
    yield "", _summary(results)


def _heading(results: Results) -> Text:
    return Text(
        f"A shop of {results.rows:,} rows on PostgreSQL {results.postgresql}, Django "
        f"{results.django}. Each cell below is a real write that breaks that column's rule on "
        f"{results.size:,} rows, and then a query that counts the rows which break it.",
    )


def _rules() -> Table:
    table = words()
    for breach in BREACHES:
        table.add_row(breach.kind, breach.rule)
    return table


def _matrix(cells: Sequence[Cell], paths: Sequence[WritePath], console: Console) -> Table:
    """The table with each cell on one line, or on two where one is too long for the console."""
    table = _matrix_with(" ", cells, paths)
    endless = console.options.update_width(10_000)
    if console.measure(table, options=endless).maximum <= console.width:
        return table
    return _matrix_with("\n", cells, paths)


def _matrix_with(separator: str, cells: Sequence[Cell], paths: Sequence[WritePath]) -> Table:
    table = columns()
    table.add_column("write path", no_wrap=True)
    for breach in BREACHES:
        table.add_column(breach.kind, no_wrap=True)
    found = {(cell.path, cell.rule): cell for cell in cells}
    for path in paths:
        row = [_cell(found[path.name, breach.label], separator) for breach in BREACHES]
        table.add_row(path.title, *row)
    return table


def _cell(cell: Cell, separator: str) -> Text:
    if cell.verdict is Verdict.IMPOSSIBLE:
        return Text(_DASH, _STYLES[cell.verdict])
    word = f"{cell.verdict} {cell.rows:,}" if cell.verdict is Verdict.BROKE else str(cell.verdict)
    return Text.assemble((word, _STYLES[cell.verdict]), (separator + duration(cell.seconds), "dim"))


def _legend(results: Results) -> Table:
    table = words()
    found = {cell.verdict for cell in (*results.without, *results.with_)}
    for verdict, word, meaning in (
        (
            Verdict.BROKE,
            f"broke {results.size:,}",
            "the write passed, and so many rows break the rule",
        ),
        (Verdict.REFUSED, "refused", "the write raised an exception, and nothing of it is stored"),
        (Verdict.COMPUTED, "computed", "the write passed, and every row has the right value"),
        (Verdict.ERROR, "error", "something else went wrong, and the cell shows nothing"),
        (Verdict.IMPOSSIBLE, _DASH, _impossible(results)),
    ):
        if verdict in found:
            table.add_row(Text(word, _STYLES[verdict]), meaning)
    table.add_row(
        Text("ms", "dim"),
        "the write alone, once. A refusal may come at the first row; the Compute column has the "
        "time of the whole write in both tables. psql's includes the start of the program.",
    )
    return table


def _impossible(results: Results) -> str:
    text = (
        "this path cannot break this rule: an INSERT changes no row that was there, and only a "
        "deletion breaks a rule on deletion"
    )
    major = int(results.postgresql.partition(".")[0])
    absent = [
        f"{path.title} came with {path.since}" for path in results.paths if path.since > major
    ]
    return "; ".join([text, *absent])


def _messages(cells: Sequence[Cell]) -> Table:
    table = words()
    for breach in BREACHES:
        for message in _refusals(cells, breach):
            table.add_row(breach.kind, Text.assemble(f"{message}\n", (breach.label, "dim")))
    return table


def _refusals(cells: Sequence[Cell], breach: Breach) -> list[str]:
    return sorted(
        {c.message for c in cells if c.rule == breach.label and c.verdict is Verdict.REFUSED}
    )


def _who_is_told(telling: Telling) -> Table:
    table = columns()
    table.add_column("write path", no_wrap=True)
    for title in ("orders", "@receiver", "skipped", "@critical", "skipped", "twice"):
        table.add_column(title, justify="right", no_wrap=True)
    for told in telling.told:
        skipped, critical = told.rows - told.plain, told.critical
        table.add_row(
            told.title,
            f"{told.rows:,}",
            f"{told.plain:,}",
            wrong(skipped),
            f"{critical.made:,}",
            wrong(critical.lost),
            wrong(critical.twice),
        )
    return table


def _course(crash: Crash) -> Table:
    table = words()
    table.add_row("written", f"{crash.written - crash.unheard:,} events of {crash.orders:,} orders")
    for where, waiting in crash.kills:
        table.add_row("SIGKILL", f"in the middle of {where}; {waiting:,} events wait")
    table.add_row("written", f"{crash.unheard:,} events while nobody listens")
    table.add_row(
        "started",
        f"everything is delivered after {duration(crash.recovery)}, of which the "
        f"rows whose request was on its way wait for {conf.get().LEASE:.0f} s: BULKSAFE['LEASE']",
    )
    return table


def _calls(crash: Crash) -> Table:
    table = columns()
    table.add_column("receiver", no_wrap=True)
    table.add_column("effect", overflow="fold")
    for title in ("due", "made", "lost", "twice"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in crash.tallies:
        numbers = f"{one.due:,}", f"{one.made:,}", wrong(one.lost), wrong(one.twice)
        table.add_row(one.receiver, one.effect, *numbers)
    return table


def _summary(results: Results) -> RenderableType:
    lines: list[Text] = []
    if results.with_:
        lines += [_of_rules(results), *_comparison(results)]
    if results.telling:
        lines += _of_receivers(results.telling)
    if results.refunding:
        lines += refunding_report.summary(results.refunding)
    return Group(*lines, *_failure(results))


def _of_rules(results: Results) -> Text:
    tried = len(_tried(results.without))
    without = _count(results.without, Verdict.BROKE)
    with_ = _count(results.with_, Verdict.BROKE)
    return Text.assemble(
        ("Without bulksafe: ", "bold"),
        (f"{without} of {tried} writes broke a rule. ", "bold red" if without else "green"),
        ("With bulksafe: ", "bold"),
        (f"{with_} of {tried}.", "bold red" if with_ else "bold green"),
    )


def _of_receivers(telling: Telling) -> Iterator[Text]:
    crash = telling.crash
    skipped = sum(told.rows - told.plain for told in telling.told)
    missed = sum(told.critical.lost for told in telling.told)
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
            f"Outside the database {crash.again:,} came again: what was on its way at a SIGKILL, "
            "with the same event_id, by which the receiving service knows it."
        )


def _failure(results: Results) -> Iterator[Text]:
    for problem in results.problems:
        yield Text(problem, "bold yellow")
    if results.problems:
        yield Text("See `manage.py bulksafe ls shop` for the state of each rule in the database.")


def _comparison(results: Results) -> Iterator[Text]:
    """The per-row way and the bulk way to write rows whose net has to be right."""
    rule = next(breach.label for breach in BREACHES if breach.kind == "Compute")
    slow = _seconds(results.without, "save", rule)
    fast = _seconds(results.with_, "bulk_update", rule), _seconds(results.with_, "update", rule)
    if slow and all(fast):
        yield Text(
            f"{results.size:,} orders with the right net: {duration(slow)} by save() with "
            f"receivers; with bulksafe {duration(fast[0])} by bulk_update(), "
            f"{duration(fast[1])} by update()."
        )


def _seconds(cells: Sequence[Cell], path: str, rule: str) -> float:
    return next(
        (
            cell.seconds
            for cell in cells
            if (cell.path, cell.rule, cell.verdict) == (path, rule, Verdict.COMPUTED)
        ),
        0.0,
    )


def _further() -> Text:
    python = _python()
    text = Text("Look further\n", "bold")
    for what, command in (
        ("every rule, and its state in the database", f"{python} manage.py bulksafe ls shop"),
        ("break a rule yourself, with psql", _psql(python, _BREACH.format("shop_order"))),
        ("the same without bulksafe", _psql(python, _BREACH.format("shop_signals_order"))),
        ("or with the ORM", f"{python} manage.py shell"),
        ("one write path, more rows", 'make demo ARGS="--only copy --rows 5000 --orders 50000"'),
        ("run the receivers, and stop with Ctrl-C", f"{python} manage.py bulksafe listen"),
        ("what waits, what failed, who listens", f"{python} manage.py bulksafe status"),
        ("only the receivers, more events", 'make demo ARGS="--part receivers --events 20000"'),
        ("go past the receivers of refunds, with psql", _psql(python, PAST)),
        ("the rules, and the guide", "examples/shop/models.py  docs/guide.md"),
        ("the receivers, and their guide", "examples/shop/receivers.py  docs/receivers.md"),
        ("those in the writer's transaction", "examples/shop/refunds.py"),
    ):
        text.append(f"  {what}\n", "not bold").append(f"    {command}\n", "not bold cyan")
    return text


def _psql(python: str, statement: str) -> str:
    return f'{python} manage.py dbshell -- -c "{statement}"'


def _python() -> str:
    """The interpreter as one can type it here."""
    python = Path(sys.executable)
    return str(python.relative_to(Path.cwd())) if python.is_relative_to(Path.cwd()) else str(python)
