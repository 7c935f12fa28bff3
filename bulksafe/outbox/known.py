"""The receivers and tables of a process, which limit the calls that it takes from the outbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bulksafe.declarations.options import Lane


@dataclass(frozen=True)
class Known:
    """The calls that this code can make; other calls are left to listeners with the right code.

    Attributes:
        pairs: the names of its receivers, each with the oid of one of its tables.
        lanes: the lanes that it serves, each with the oids of the tables of its receivers.
    """

    pairs: Sequence[tuple[str, int]] = ()
    lanes: Mapping[Lane, Collection[int]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "receivers": [receiver for receiver, _ in self.pairs],
            "sources": [source for _, source in self.pairs],
        }

    @property
    def lane_parameters(self) -> dict[str, Any]:
        return {
            "lane_queues": [queue for queue, _ in self.lanes],
            "lane_atomics": [atomic for _, atomic in self.lanes],
            "lane_sources": [f"{{{','.join(map(str, oids))}}}" for oids in self.lanes.values()],
        }
