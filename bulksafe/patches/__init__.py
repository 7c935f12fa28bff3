"""All patches of Django and pgtrigger, with their reasons.

Each module lists its patches; ``PATCHES`` has all of them. Two tests guard it:
tests/unit/test_patches_in_one_place.py fails on a patch that is not listed,
tests/integration/test_patches.py if a new release moves a patched attribute.

Writes into single objects are in ``bulksafe.object_state``.
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
#: of a model as soon as it is prepared, and must wrap the patched ones.
EARLY = (*declaring.EARLY, *computed.EARLY, *writes.EARLY, *signals.EARLY)

#: In place when the apps are ready.
LATE = (*computed.LATE, *connections.LATE, *cursors.LATE, *migrating.LATE, *commands.LATE)

PATCHES = (*EARLY, *LATE)


def apply_early() -> None:
    """Apply the patches that must precede model loading; a second call changes nothing."""
    for patch in EARLY:
        patch.apply()


def apply() -> None:
    """Apply the other patches; a second call changes nothing."""
    for patch in LATE:
        patch.apply()
    computed.forget_returning_fields()
    connections.extend_connections()
