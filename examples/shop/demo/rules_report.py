"""Shows the first part: rules, first as signal receivers, then as invariants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from examples.shop.demo.breaches import BREACHES, Breach
from examples.shop.demo.layout import Section, columns, duration, words
from examples.shop.demo.matrix import Cell, Verdict, count, tried
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

#: Refusals have no time: a loop stops at its first row, and a statement looks at all of them.
_TIMED = "Compute"


def without(
    cells: Sequence[Cell], paths: Sequence[WritePath], heading: str, console: Console
) -> Iterator[Section]:
    """The rules, and what came of them where they are signal receivers."""
    yield "", Text(heading)
    yield "The rules", _rules()
    yield _WITHOUT, _matrix(cells, paths, console)
    yield "How to read it", _legend(cells, paths)


def with_(cells: Sequence[Cell], paths: Sequence[WritePath], console: Console) -> Iterator[Section]:
    """What came of the rules where they are invariants."""
    yield _WITH, _matrix(cells, paths, console)
    yield _REFUSALS, _messages(cells)


def _rules() -> Table:
    table = words()
    for breach in BREACHES:
        table.add_row(breach.kind, breach.rule)
    return table


def _matrix(cells: Sequence[Cell], paths: Sequence[WritePath], console: Console) -> RenderableType:
    """The table with each cell on one line, or on two where one is too long for the console."""
    table = _matrix_with(" ", 2, cells, paths)
    endless = console.options.update_width(10_000)
    if console.measure(table, options=endless).maximum <= console.width:
        return table
    return _matrix_with("\n", 1, cells, paths)


def _matrix_with(
    separator: str, gap: int, cells: Sequence[Cell], paths: Sequence[WritePath]
) -> Table:
    table = columns(gap)
    table.add_column("write path", no_wrap=True)
    for breach in BREACHES:
        table.add_column(breach.kind, no_wrap=True)
    found = {(cell.path, cell.rule): cell for cell in cells}
    for path in paths:
        row = [_cell(found[path.name, one.label], one.kind, separator) for one in BREACHES]
        table.add_row(path.title, *row)
    return table


def _cell(cell: Cell, kind: str, separator: str) -> Text:
    if cell.verdict is Verdict.IMPOSSIBLE:
        return Text(_DASH, _STYLES[cell.verdict])
    word = f"{cell.verdict} {cell.rows:,}" if cell.verdict is Verdict.BROKE else str(cell.verdict)
    text = Text(word, _STYLES[cell.verdict])
    if kind == _TIMED and cell.verdict in {Verdict.BROKE, Verdict.COMPUTED}:
        text.append(separator + duration(cell.seconds), "not bold dim")
    return text


def _legend(cells: Sequence[Cell], paths: Sequence[WritePath]) -> Table:
    table = words()
    found = {Verdict.REFUSED, *(cell.verdict for cell in cells)}
    for verdict, word, meaning in (
        (Verdict.BROKE, "broke", "the write passed, and so many rows break the rule"),
        (Verdict.REFUSED, "refused", "the write raised an exception, and nothing of it is stored"),
        (Verdict.COMPUTED, "computed", "the write passed, and every row has the right value"),
        (Verdict.ERROR, "error", "something else went wrong, and the cell shows nothing"),
        (Verdict.IMPOSSIBLE, _DASH, _impossible(cells, paths)),
    ):
        if verdict in found:
            table.add_row(Text(word, _STYLES[verdict]), meaning)
    table.add_row(Text("ms", "dim"), "how long the whole write took")
    return table


def _impossible(cells: Sequence[Cell], paths: Sequence[WritePath]) -> str:
    text = (
        "this path cannot break this rule: an INSERT changes no stored row, and only a deletion "
        "breaks a rule on deletion"
    )
    able = {cell.path for cell in tried(cells)}
    absent = [f"{path.title} came with {path.since}" for path in paths if path.name not in able]
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


def summary(without: Sequence[Cell], with_: Sequence[Cell], size: int) -> Iterator[Text]:
    """How many writes broke a rule, and what the right value costs per row and in bulk."""
    number = len(tried(without))
    broke, still = count(without, Verdict.BROKE), count(with_, Verdict.BROKE)
    yield Text.assemble(
        ("Without bulksafe: ", "bold"),
        (f"{broke} of {number} writes broke a rule. ", "bold red" if broke else "green"),
        ("With bulksafe: ", "bold"),
        (f"{still} of {number}.", "bold red" if still else "bold green"),
    )
    rule = next(breach.label for breach in BREACHES if breach.kind == _TIMED)
    slow = _seconds(without, "save", rule)
    fast = _seconds(with_, "bulk_update", rule), _seconds(with_, "update", rule)
    if slow and all(fast):
        yield Text(
            f"{size:,} orders with the right net: {duration(slow)} by save() with receivers; "
            f"with bulksafe {duration(fast[0])} by bulk_update(), {duration(fast[1])} by update()."
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
