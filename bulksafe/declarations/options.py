"""The values that options of ``critical`` and ``Emit`` may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

#: How long a failed call waits: a number of seconds that doubles, the seconds of each attempt, or a
#: function of the number of failed attempts.
Backoff: TypeAlias = "float | Sequence[float] | Callable[[int], float] | None"

#: Where a receiver runs.
Run: TypeAlias = Literal["in_transaction", "after_commit"]

#: The effect of a dead letter on later events of its row.
OnDead: TypeAlias = Literal["block", "skip"]

#: How writes from outside this project's Django are handled.
Otherwise: TypeAlias = Literal["refuse", "after_commit", "observe"]

AFTER_COMMIT: Final = "after_commit"
IN_TRANSACTION: Final = "in_transaction"
IN_DATABASE: Final = "in_database"

REFUSE: Final = "refuse"

DEFAULT_QUEUE = "default"
DEFAULT_MAX_ATTEMPTS = 10

#: A queue's name, and whether its receivers run in a transaction. Receivers with ``atomic=False``
#: advance independently.
Lane: TypeAlias = tuple[str, bool]

#: The queue that is served even if no receiver names it.
DEFAULT_LANE: Lane = (DEFAULT_QUEUE, True)
