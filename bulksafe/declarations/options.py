"""The values that options of ``critical`` and ``Emit`` may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

#: How long a failed call waits: a number of seconds that doubles, the seconds of each attempt, or a
#: function of the number of failed attempts.
Backoff: TypeAlias = "float | Sequence[float] | Callable[[int], float] | None"

#: Where a receiver runs.
Run: TypeAlias = Literal["in_transaction", "after_commit"]

#: What a dead letter means for later events of its row.
OnDead: TypeAlias = Literal["block", "skip"]

#: What becomes of a write that no Django of this project has made.
Otherwise: TypeAlias = Literal["refuse", "after_commit"]

AFTER_COMMIT: Final = "after_commit"
IN_TRANSACTION: Final = "in_transaction"
IN_DATABASE: Final = "in_database"

REFUSE: Final = "refuse"

DEFAULT_QUEUE = "default"
DEFAULT_MAX_ATTEMPTS = 10

#: A queue's name, and whether its receivers run in a transaction: those that do not go on at a pace
#: of their own.
Lane: TypeAlias = tuple[str, bool]

#: The one that is served also where no receiver names it.
DEFAULT_LANE: Lane = (DEFAULT_QUEUE, True)
