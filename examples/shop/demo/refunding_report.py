"""Shows the third part: receivers in the writer's transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from examples.shop.demo.layout import Section, columns, words, wrong
from examples.shop.demo.refunding import Attempt, Refunding, Tried, Verdict

_CALLS = "Receivers of refunds: with Signal.connect(), and the same with @bulksafe.critical"
_MISTAKES = "One refund that the receivers refuse, among those of a write"
_REFUSED = "What the refusals said"

_STYLES = {Verdict.STORED: "bold red", Verdict.REFUSED: "green", Verdict.ERROR: "bold yellow"}

_EXPLANATION = (
    "The receivers, examples/shop/refunds.py, run in the writer's transaction. Due is what they "
    "leave behind: the number of each new refund, a line in the history of each, and the total of "
    "each customer. A query counts what is there."
)
_ELSEWHERE = (
    " {} cannot run receivers: if they are critical, the database refuses to commit its writes."
)
_ONE_BY_ONE = (
    " Each number depends on the one before it, so critical receivers make bulk_create() store the "
    "refunds one by one."
)

#: The two lines that say what is refused and why, after what psql puts before them.
_SAID = re.compile(r"^(?:psql:<stdin>:\d+: )?((?:ERROR|DETAIL):.*)", re.MULTILINE)


def sections(refunding: Refunding) -> Iterator[Section]:
    """The titles of the tables, and the tables."""
    if refunding.tried:
        yield _CALLS, Group(_calls(refunding), Text(), _explanation(refunding))
        yield _MISTAKES, _mistakes(refunding)
        yield _REFUSED, _messages(refunding)


def summary(refunding: Refunding) -> Iterator[Text]:
    if not refunding.tried:
        return
    plain, critical = _skipped_and_stored(refunding)
    yield Text.assemble(
        ("Without bulksafe: ", "bold"),
        (f"{plain[0]:,} calls in the writer's transaction were skipped, ", _style(plain[0])),
        (f"and {plain[1]} of {len(refunding.tried)} wrong writes stored. ", _style(plain[1])),
        ("With bulksafe: ", "bold"),
        (f"{critical[0]:,} ", _style(critical[0])),
        (f"and {critical[1]}.", _style(critical[1])),
    )


def _style(number: int) -> str:
    return "bold red" if number else "bold green"


def _skipped_and_stored(refunding: Refunding) -> list[tuple[int, int]]:
    """How many calls were skipped and how many mistakes stored; without bulksafe, and with it."""
    return [
        (
            sum(side.right.skipped for side in sides),
            sum(side.wrong.verdict is Verdict.STORED for side in sides),
        )
        for sides in (
            [one.plain for one in refunding.tried],
            [one.critical for one in refunding.tried],
        )
    ]


def _explanation(refunding: Refunding) -> Text:
    elsewhere = [_ELSEWHERE.format(one.title) for one in refunding.tried if one.elsewhere]
    is_created = any(one.path == "bulk_create" for one in refunding.tried)
    return Text("".join([_EXPLANATION, _ONE_BY_ONE * is_created, *elsewhere]))


def _calls(refunding: Refunding) -> Table:
    table = columns()
    table.add_column("write path", no_wrap=True)
    titles = ("refunds", "due", "connect()", "skipped", "@critical", "skipped", "twice")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for one in refunding.tried:
        plain, critical = one.plain.right, one.critical.right
        made = Text("refused", "green" if one.elsewhere else "bold red")
        table.add_row(
            one.title,
            f"{one.rows:,}",
            f"{plain.due:,}",
            f"{plain.made:,}",
            wrong(plain.skipped),
            made if critical.refusal else f"{critical.made:,}",
            wrong(critical.skipped),
            wrong(critical.twice),
        )
    return table


def _mistakes(refunding: Refunding) -> Table:
    table = columns()
    for title in ("write path", "what is wrong", "connect()", "@critical"):
        table.add_column(title, no_wrap=True)
    for one in refunding.tried:
        table.add_row(
            one.title,
            one.mistake,
            _verdict(one.plain.wrong),
            _verdict(one.critical.wrong),
        )
    return table


def _verdict(attempt: Attempt) -> Text:
    return Text(str(attempt.verdict), _STYLES[attempt.verdict])


def _messages(refunding: Refunding) -> Table:
    table = words()
    said: dict[str, list[Tried]] = {}
    for one in refunding.tried:
        if one.critical.wrong.verdict is Verdict.REFUSED:
            said.setdefault(one.critical.wrong.message, []).append(one)
    for message, those in said.items():
        if those[0].elsewhere:
            table.add_row(those[0].title, Text("\n".join(_SAID.findall(message)) or message))
        else:
            where = ", ".join(one.title for one in those)
            table.add_row("Django", Text.assemble(message, (f"\nValidationError, {where}", "dim")))
    return table
