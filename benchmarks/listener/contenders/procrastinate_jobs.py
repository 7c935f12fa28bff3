"""procrastinate: a job for each event, with a ``lock`` for each row, its way to keep order."""

from __future__ import annotations

import asyncio
import logging

from procrastinate.contrib.django import app

from benchmarks.listener import database
from benchmarks.listener.contenders.base import Contender, Load, image
from benchmarks.listener.models import Seen
from benchmarks.listener.receivers import NOTHING, WRITE, calls

#: Jobs of one process at a time: more were slower, fewer too.
CONCURRENCY = {NOTHING: 4, WRITE: 4}
CHUNK = 5_000


@app.task(name=NOTHING)
async def do_nothing(**event):
    calls.note()


@app.task(name=WRITE)
async def write(new, **event):
    calls.note()
    await Seen.objects.acreate(order=new["id"], step=new["step"])


TASKS = {NOTHING: do_nothing, WRITE: write}


class Procrastinate(Contender):
    label = "procrastinate"
    note = f"lock per row, concurrency {CONCURRENCY[NOTHING]}, finished jobs deleted"
    most_processes = 4
    is_rival = True

    def fill(self, load: Load, receiver: str) -> None:
        database.empty(Seen)
        database.truncate("procrastinate_jobs CASCADE")
        jobs = [
            TASKS[receiver]
            .configure(lock=f"order-{row}", queue=receiver)
            .make_new_job(new=image(row, step))
            for row, step in load.changes()
        ]
        for start in range(0, len(jobs), CHUNK):
            app.connector.get_sync_connector()
            app.job_manager.batch_defer_jobs(jobs[start : start + CHUNK])
        database.analyze("procrastinate_jobs")

    def prepare(self, receiver: str) -> None:
        logging.getLogger("procrastinate").setLevel(logging.WARNING)

    def drain(self, receiver: str) -> None:
        asyncio.run(self._drain(receiver))

    async def _drain(self, receiver: str) -> None:
        worker = app.with_connector(app.connector.get_worker_connector())
        async with worker.open_async():
            await worker.run_worker_async(
                queues=[receiver],
                wait=False,
                concurrency=CONCURRENCY[receiver],
                delete_jobs="successful",
                install_signal_handlers=False,
            )
