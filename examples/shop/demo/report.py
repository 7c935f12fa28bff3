"""Shows the results: each part as it ends, the summary last, and everything as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from examples.shop.demo import delivery_report, refunding_report, rules_report
from examples.shop.demo.layout import Section
from examples.shop.demo.matrix import HELD, Cell, Verdict, count, tried
from examples.shop.demo.paths import WritePath

if TYPE_CHECKING:
    from examples.shop.demo.delivery import Delivery
    from examples.shop.demo.refunding import Refunding

#: Commands that show a refusal.
_BREACH = "UPDATE {} SET discount = amount + 1"
PAST = (
    "INSERT INTO shop_refund (order_id, number, amount, reason, approved, created_at) "
    "SELECT id, '', 1, 'late', false, now() FROM shop_order LIMIT 1"
)


@dataclass(frozen=True)
class Results:
    """The results of the demo.

    Attributes:
        postgresql: the server's version.
        django: Django's version.
        size: the number of rows of each write.
        rows: the number of rows of the shop.
        paths: the write paths that were tried.
        without: the cells of the shop whose rules are in signal receivers.
        with_: the cells of the shop whose rules are invariants.
        delivery: the second part: receivers.
        refunding: the third part: receivers in the writer's transaction.
    """

    postgresql: str
    django: str
    size: int
    rows: int
    paths: Sequence[WritePath]
    without: Sequence[Cell] = ()
    with_: Sequence[Cell] = ()
    delivery: Delivery | None = None
    refunding: Refunding | None = None

    @property
    def problems(self) -> list[str]:
        """Reasons why the demo did not succeed."""
        failed = [
            *(("With bulksafe", cell) for cell in tried(self.with_) if cell.verdict not in HELD),
            *(("Without bulksafe", cell) for cell in self.without if cell.verdict is Verdict.ERROR),
        ]
        return [
            *(f"{half}, {cell.path} on {cell.rule}: {_explained(cell)}" for half, cell in failed),
            *(self.delivery.problems if self.delivery else ()),
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
                "tried": len(tried(self.without)),
                "broke_without": count(self.without, Verdict.BROKE),
                "broke_with": count(self.with_, Verdict.BROKE),
            },
            "receivers": self.delivery and self.delivery.as_json(),
            "transaction": self.refunding and self.refunding.as_json(),
            "problems": self.problems,
        }


def _explained(cell: Cell) -> str:
    return f"{cell.rows:,} rows break the rule." if cell.verdict is Verdict.BROKE else cell.message


#: The steps of the demo: attributes of ``Results``, in order.
STEPS = ("without", "with_", "delivery", "refunding")


def show(results: Results, console: Console) -> None:
    """Print the whole report."""
    for step in STEPS:
        show_step(step, results, console)
    show_result(results, console)


def show_step(step: str, results: Results, console: Console) -> None:
    """Print the results of one step; nothing if it was left out."""
    if not getattr(results, step):
        return
    for title, content in _sections(step, results, console):
        if title:
            console.print(title, style="bold", highlight=False)
        console.print(content)
        console.print()


def show_result(results: Results, console: Console) -> None:
    """Print suggested commands, and then the summary, which stays on the screen."""
    # Commands to copy stay on one line, however narrow the console.
    console.print(_further(), soft_wrap=True)
    for line in (*_summary(results), *_failure(results)):
        console.print(line)


def _sections(step: str, results: Results, console: Console) -> Iterator[Section]:
    match step:
        case "without":
            yield from rules_report.without(
                results.without, results.paths, _heading(results), console
            )
        case "with_":
            yield from rules_report.with_(results.with_, results.paths, console)
        case "delivery" if results.delivery:
            yield from delivery_report.sections(results.delivery)
        case "refunding" if results.refunding:
            yield from refunding_report.sections(results.refunding)


def _heading(results: Results) -> str:
    return (
        f"A shop of {results.rows:,} rows on PostgreSQL {results.postgresql}, Django "
        f"{results.django}. Each cell below is a real write that breaks that column's rule on "
        f"{results.size:,} rows, and then a query that counts the rows which break it."
    )


def _summary(results: Results) -> Iterator[Text]:
    if results.with_:
        yield from rules_report.summary(results.without, results.with_, results.size)
    if results.delivery:
        yield from delivery_report.summary(results.delivery)
    if results.refunding:
        yield from refunding_report.summary(results.refunding)


def _failure(results: Results) -> Iterator[Text]:
    for problem in results.problems:
        yield Text(problem, "bold yellow")
    if results.problems:
        yield Text("See `manage.py bulksafe ls shop` for the state of each rule in the database.")


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
        ("waiting events, failures and listeners", f"{python} manage.py bulksafe status"),
        ("only the receivers, more events", 'make demo ARGS="--part receivers --events 20000"'),
        ("bypass the receivers of refunds, with psql", _psql(python, PAST)),
        ("the rules, and the guide", "examples/shop/models.py  docs/guide.md"),
        ("the receivers, and their guide", "examples/shop/receivers.py  docs/receivers.md"),
        ("the in-transaction receivers", "examples/shop/refunds.py"),
    ):
        text.append(f"  {what}\n", "not bold").append(f"    {command}\n", "not bold cyan")
    return text


def _psql(python: str, statement: str) -> str:
    return f'{python} manage.py dbshell -- -c "{statement}"'


def _python() -> str:
    """The interpreter as one can type it here."""
    python = Path(sys.executable)
    return str(python.relative_to(Path.cwd())) if python.is_relative_to(Path.cwd()) else str(python)
