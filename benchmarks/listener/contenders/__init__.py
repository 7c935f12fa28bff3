"""Who delivers events to Python: bulksafe, the floor beneath it, and libraries from PyPI."""

from __future__ import annotations

from importlib import import_module

from benchmarks.listener.contenders.base import Contender, Load
from benchmarks.listener.contenders.outbox import Bulksafe, ByHand, Floor, FloorAgain

__all__ = ["Bulksafe", "ByHand", "Contender", "Floor", "FloorAgain", "Load", "rivals"]

#: By distribution: the module here, and what it has.
_RIVALS = {
    "procrastinate": ("procrastinate_jobs", ["Procrastinate"]),
    "pgqueuer": ("pgqueuer_jobs", ["Pgqueuer", "PgqueuerUnordered"]),
    "django-pgpubsub": ("pgpubsub_listener", ["Pgpubsub"]),
}


def rivals() -> tuple[list[Contender], dict[str, str]]:
    """The libraries that can be measured here, and why the others cannot."""
    found: list[Contender] = []
    skipped: dict[str, str] = {}
    for distribution, (name, classes) in _RIVALS.items():
        try:
            module = import_module(f"{__name__}.{name}")
            contenders: list[Contender] = [getattr(module, one)() for one in classes]
            contenders[0].install()
        except ModuleNotFoundError as error:
            skipped[distribution] = f"{error}: pip install 'bulksafe[bench]'"
        except Exception as error:  # whatever a library says to this Python or Django
            skipped[distribution] = f"{type(error).__name__}: {error}"
        else:
            found += contenders
    return found, skipped
