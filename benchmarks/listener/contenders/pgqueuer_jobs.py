"""pgqueuer: a job for each event.

It has no order within a row. An entrypoint with ``concurrency_limit=1`` is worked off in order, by
all processes together; so the rows are spread over as many of these as a batch has jobs.
"""

from __future__ import annotations

import asyncio
import json
import logging

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from benchmarks.listener import database
from benchmarks.listener.contenders.base import Contender, Load, image
from benchmarks.listener.models import Seen
from benchmarks.listener.receivers import NOTHING, WRITE, calls

CHUNK = 5_000


async def do_nothing(job):
    calls.note()


async def write(job):
    calls.note()
    new = json.loads(job.payload)
    await Seen.objects.acreate(order=new["id"], step=new["step"])


RECEIVERS = {NOTHING: do_nothing, WRITE: write}


class Pgqueuer(Contender):
    """In order within each row."""

    lanes = 100
    limit = 1
    label = "pgqueuer"
    note = f"{lanes} entrypoints with concurrency_limit=1, batch_size {lanes}, asyncpg"
    most_processes = 4
    is_rival = True

    def install(self) -> None:
        asyncio.run(self._install())

    async def _install(self) -> None:
        connection = await asyncpg.connect(database.url())
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    def fill(self, load: Load, receiver: str) -> None:
        database.empty(Seen)
        database.truncate("pgqueuer, pgqueuer_log, pgqueuer_statistics")
        asyncio.run(self._fill(load, receiver))
        database.analyze("pgqueuer")

    async def _fill(self, load: Load, receiver: str) -> None:
        connection = await asyncpg.connect(database.url())
        queries = Queries(AsyncpgDriver(connection))
        changes = list(load.changes())
        for start in range(0, len(changes), CHUNK):
            chunk = changes[start : start + CHUNK]
            await queries.enqueue(
                [self._entrypoint(receiver, row) for row, _ in chunk],
                [json.dumps(image(row, step)).encode() for row, step in chunk],
                [0] * len(chunk),
            )
        await connection.close()

    def _entrypoint(self, receiver: str, row: int) -> str:
        return f"{receiver}_{row % self.lanes}"

    def prepare(self, receiver: str) -> None:
        logging.getLogger("pgqueuer").setLevel(logging.WARNING)

    def drain(self, receiver: str) -> None:
        asyncio.run(self._drain(receiver))

    async def _drain(self, receiver: str) -> None:
        connection = await asyncpg.connect(database.url())
        queuer = PgQueuer(AsyncpgDriver(connection))
        for lane in range(self.lanes):
            queuer.entrypoint(f"{receiver}_{lane}", concurrency_limit=self.limit)(
                RECEIVERS[receiver]
            )
        await queuer.qm.run(batch_size=100, mode=QueueExecutionMode.drain)


class PgqueuerUnordered(Pgqueuer):
    """For comparison: what it does when order does not matter."""

    lanes = 1
    limit = 0
    label = "pgqueuer, in no order"
    note = "one entrypoint without a limit, batch_size 100, asyncpg"
    is_rival = False
    in_order = False
