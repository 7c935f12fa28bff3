"""The result as a readable report."""

from rich.table import Table
from rich.text import Text

_LINES_OF_DETAIL = 12


def as_table(rows, before, after, title="Django's tests"):
    """The numbers.

    Args:
        rows: one for each part of the suite, then one for all of them.
        before: the name of one run.
        after: that of the other.
        title: whose tests they are.
    """
    table = Table(title=title, title_justify="left")
    passing = [f"pass {before}", f"pass {after}"]
    for heading in ("label", "tests", *passing, "skipped", "fail in both", "differ", "explained"):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for row in rows:
        if row.label == "all":
            table.add_section()
        wrong = row.differing - row.explained
        table.add_row(
            row.label,
            *(str(n) for n in (row.tests, row.ok_before, row.ok_after, row.skipped)),
            str(row.bad_in_both),
            Text(str(row.differing), style="red" if wrong else ""),
            str(row.explained),
        )
    return table


def describe(difference):
    """A difference in a few lines: the two outcomes, and what the worse of them says."""
    before, after = difference.before, difference.after
    lines = [difference.test, f"  {before.word} → {after.word}"]
    if difference.reason:
        return "\n".join([*lines, f"  explained: {difference.reason}"])
    detail = (before if after.is_good else after).detail.strip().splitlines()
    return "\n".join([*lines, *(f"    {line}" for line in detail[-_LINES_OF_DETAIL:])])


def report(found, count, console):
    """Print the differences; return the exit status."""
    for difference in found:
        console.print(describe(difference), markup=False)
    wrong = sum(not difference.reason for difference in found)
    if wrong:
        console.print(f"{wrong} of {count} tests do not have the same outcome.", style="red")
        return 1
    explained = f", but for {len(found)} with a reason" if found else ""
    console.print(f"All {count} tests have the same outcome{explained}.", style="green")
    return 0
