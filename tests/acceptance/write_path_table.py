"""The table of ``docs/write-paths.md``, made from the list that the tests go through.

``python -m tests.acceptance.write_path_table`` writes the page again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance import data_changes, write_paths

PAGE = Path(__file__).parents[2] / "docs" / "write-paths.md"

TEXT = """\
# Every write path

Each row is a way to write to a table, each column a kind of invariant.
**refused** means that a batch with one bad row among good ones is refused as a whole, and that
nothing of it is stored. **computed** means that the column gets its value, also if the write
brings a different one. A dash means that this operation cannot break this kind of invariant.

`tests/acceptance/test_write_paths.py` tries every cell with a change that keeps the rule and with
one that breaks it. It compares end state and refusals with a twin table whose rules are signal
receivers, written row by row with `save()` and `delete()`. The same list generates this table.

{table}

Through Django a refusal is a `bulksafe.InvariantViolation`, a `django.db.IntegrityError` that names
the invariant. Other clients see SQLSTATE 23514 with the names of the table and of the invariant.
`COPY` through psycopg is such a client, also on Django's own connection: write
`with connection.wrap_database_errors:` around it to get Django's error class.

A deferred check refuses at the commit, every other kind at the statement.

## Moves between partitions

PostgreSQL executes an `UPDATE` that moves a row to a different partition as a `DELETE` and an
`INSERT`. All rules hold, and two refuse more than a row-by-row `save()` would, which only updates:
`initial=` of a `Transition` judges the arriving row as a new one, and a rule for deletion the
leaving row as a deleted one. Mute the rule for such a move.
"""


def page() -> str:
    return TEXT.format(table=table())


def table() -> str:
    from tests.acceptance.data_changes import KINDS
    from tests.acceptance.write_paths import PATHS

    rows = [
        ["Write path", "Operations", *(kind.title for kind in KINDS)],
        ["---"] * (len(KINDS) + 2),
        *(
            [path.title, ", ".join(path.operations), *(cell(path, kind) for kind in KINDS)]
            for path in PATHS
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(path: write_paths.Path, kind: data_changes.Kind) -> str:
    """What the path does when the change would break the invariant."""
    tried = [change for change in path.changes() if change.kind is kind and change.illegal]
    if not tried:
        return "—"
    return "refused" if any(change.refused for change in tried) else "computed"


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
