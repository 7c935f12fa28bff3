"""Shows what came of the attempts: as tables, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from examples.shop.demo.breaches import BREACHES, Breach
from examples.shop.demo.matrix import HELD, Cell, Verdict
from examples.shop.demo.paths import WritePath

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
_REFUSALS = "What the refusals said (bulksafe.InvariantViolation, an IntegrityError)"


@dataclass(frozen=True)
class Results:
    """Both halves of the demo.

    Attributes:
        postgresql: the server's version.
        django: Django's version.
        size: how many rows each write wrote.
        rows: how many rows the shop has.
        paths: the write paths that were tried.
        without: the cells of the shop whose rules are in signal receivers.
        with_: the cells of the shop whose rules are invariants.
    """

    postgresql: str
    django: str
    size: int
    rows: int
    paths: Sequence[WritePath]
    without: Sequence[Cell]
    with_: Sequence[Cell]

    @property
    def problems(self) -> list[str]:
        """What keeps the demo from having shown that every rule holds on every write path."""
        wrong = [
            *(("With bulksafe", cell) for cell in _tried(self.with_) if cell.verdict not in HELD),
            *(("Without bulksafe", cell) for cell in self.without if cell.verdict is Verdict.ERROR),
        ]
        return [f"{half}, {cell.path} on {cell.rule}: {_explained(cell)}" for half, cell in wrong]

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
    console.print(_heading(results), end="\n\n")
    for title, table in (
        ("The rules", _rules()),
        (_WITHOUT, _matrix(results.without, results.paths, console)),
        (_WITH, _matrix(results.with_, results.paths, console)),
        ("How to read it", _legend(results)),
        (_REFUSALS, _messages(results.with_)),
    ):
        console.print(title, style="bold", highlight=False)
        console.print(table)
        console.print()
    console.print(_summary(results))
    console.print()
    # What is to be copied is one line, however narrow the console.
    console.print(_further(), soft_wrap=True)


def _heading(results: Results) -> Text:
    return Text(
        f"A shop of {results.rows:,} rows on PostgreSQL {results.postgresql}, Django "
        f"{results.django}. Each cell below is a real write that breaks that column's rule on "
        f"{results.size:,} rows, and then a query that counts the rows which break it.",
    )


def _rules() -> Table:
    table = _list()
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
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="underline")
    table.add_column("write path", no_wrap=True)
    for breach in BREACHES:
        table.add_column(breach.kind, no_wrap=True)
    found = {(cell.path, cell.rule): cell for cell in cells}
    for path in paths:
        row = [_cell(found[path.name, breach.label], separator) for breach in BREACHES]
        table.add_row(path.title, *row)
    return table


def _list() -> Table:
    """A table of words and what there is to say of them."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _cell(cell: Cell, separator: str) -> Text:
    if cell.verdict is Verdict.IMPOSSIBLE:
        return Text(_DASH, _STYLES[cell.verdict])
    word = f"{cell.verdict} {cell.rows:,}" if cell.verdict is Verdict.BROKE else str(cell.verdict)
    return Text.assemble((word, _STYLES[cell.verdict]), (separator + _time(cell.seconds), "dim"))


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _legend(results: Results) -> Table:
    table = _list()
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
    table = _list()
    for breach in BREACHES:
        for message in _refusals(cells, breach):
            table.add_row(breach.kind, Text.assemble(f"{message}\n", (breach.label, "dim")))
    return table


def _refusals(cells: Sequence[Cell], breach: Breach) -> list[str]:
    return sorted(
        {c.message for c in cells if c.rule == breach.label and c.verdict is Verdict.REFUSED}
    )


def _summary(results: Results) -> RenderableType:
    tried = len(_tried(results.without))
    without = _count(results.without, Verdict.BROKE)
    with_ = _count(results.with_, Verdict.BROKE)
    lines = [
        Text.assemble(
            ("Without bulksafe: ", "bold"),
            (f"{without} of {tried} writes broke a rule. ", "bold red" if without else "green"),
            ("With bulksafe: ", "bold"),
            (f"{with_} of {tried}.", "bold red" if with_ else "bold green"),
        ),
        *_comparison(results),
        *_failure(results),
    ]
    return Group(*lines)


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
            f"{results.size:,} orders with the right net: {_time(slow)} by save() with receivers; "
            f"with bulksafe {_time(fast[0])} by bulk_update(), {_time(fast[1])} by update()."
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
        ("break a rule yourself, with psql", _psql(python, "shop_order")),
        ("the same without bulksafe", _psql(python, "shop_signals_order")),
        ("or with the ORM", f"{python} manage.py shell"),
        ("one write path, more rows", 'make demo ARGS="--only copy --rows 5000 --orders 50000"'),
        ("the rules, and the guide", "examples/shop/models.py  docs/guide.md"),
    ):
        text.append(f"  {what}\n", "not bold").append(f"    {command}\n", "not bold cyan")
    return text


def _psql(python: str, table: str) -> str:
    return f'{python} manage.py dbshell -- -c "UPDATE {table} SET discount = amount + 1"'


def _python() -> str:
    """The interpreter as one can type it here."""
    python = Path(sys.executable)
    return str(python.relative_to(Path.cwd())) if python.is_relative_to(Path.cwd()) else str(python)
