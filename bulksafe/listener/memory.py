"""The memory of a different process."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

_PAGE = resource.getpagesize()


def resident_bytes(pid: int | None) -> int:
    """The memory that a process holds, in bytes; 0 if it has ended."""
    statm = Path(f"/proc/{pid}/statm")
    try:
        return int(statm.read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/statm").exists():
            return 0
    # Not Linux.
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
    return int(said.strip() or 0) * 1024
