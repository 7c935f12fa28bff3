"""File descriptors: enough of them, and waiting for them."""

from __future__ import annotations

import resource
import select
from collections.abc import Collection


def allow(number: int) -> None:
    """Let this process and its children open so many files, as far as the hard limit permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def readable(numbers: Collection[int], seconds: float) -> set[int]:
    """Wait until one of the descriptors is readable, or closed at the other end.

    Not by ``select()``, which refuses descriptors from 1024 on.

    Args:
        seconds: how long to wait at most.

    Returns:
        those that are.
    """
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    return {number for number, _ in poll.poll(max(seconds, 0.0) * 1000)}
