"""Every place where Django or pgtrigger is changed: what, and why.

Each module says what it patches; ``PATCHES`` is the table of all. Two tests guard it:
tests/unit/test_patches_in_one_place.py fails on a patch that is in no table,
tests/integration/test_patches.py where a new release moves what is patched.

What bulksafe writes into single objects of theirs is in ``bulksafe.object_state``.
"""

from __future__ import annotations

from bulksafe.patches import (
    commands,
    computed,
    connections,
    cursors,
    declaring,
    migrating,
    signals,
    writes,
)

#: In place before models are loaded, and before pgtrigger's ``ready()``: some packages wrap methods
#: of a model as soon as it is prepared, and have to find these.
EARLY = (*declaring.EARLY, *computed.EARLY, *writes.EARLY, *signals.EARLY)

#: In place when the apps are ready.
LATE = (*computed.LATE, *connections.LATE, *cursors.LATE, *migrating.LATE, *commands.LATE)

PATCHES = (*EARLY, *LATE)


def apply_early() -> None:
    """Apply what must be in place before models are loaded; a second call changes nothing."""
    for patch in EARLY:
        patch.apply()


def apply() -> None:
    """Apply the rest; a second call changes nothing."""
    for patch in LATE:
        patch.apply()
    computed.forget_returning_fields()
    connections.extend_connections()
