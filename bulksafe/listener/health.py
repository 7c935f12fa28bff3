"""``/livez`` and ``/readyz`` for an orchestrator's probes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from bulksafe import conf

if TYPE_CHECKING:
    from bulksafe.listener.slots import Slot
    from bulksafe.listener.supervisor import Supervisor

#: Seconds without a sign of life after which a process is unhealthy.
SILENCE = 30.0
#: Seconds that the server may take to notice that it must stop.
_STEP = 0.1


@dataclass(frozen=True)
class Answer:
    """The answer to a probe.

    Attributes:
        well: 200 or 503.
        body: details.
    """

    well: bool
    body: dict[str, Any]


def liveness(supervisor: Supervisor) -> Answer:
    """Whether the process works; if not, a restart helps."""
    silent = time.time() - supervisor.beat
    well = silent < SILENCE
    return Answer(
        well, {"status": "ok" if well else f"no sign of life of the supervisor for {silent:.0f} s"}
    )


def readiness(supervisor: Supervisor) -> Answer:
    """Whether events are delivered: all connections are open, and no event is overdue."""
    shared, limit = supervisor.places.shared, conf.get().READY_LAG
    silent = time.time() - shared.looked
    problems = []
    if not shared.is_connected:
        problems.append("the keeper has no connection")
    elif silent > SILENCE:
        problems.append(f"the keeper has not checked for events for {silent:.0f} s")
    if shared.lag > limit:
        problems.append(f"an event has been due for {shared.lag:.0f} s")
    problems += [
        f"a worker of the queue {slot.queue!r} has no connection"
        for slot in supervisor.places.slots
        if not (supervisor.is_alive(slot) and slot.activity.is_connected)
    ]
    body = {
        "status": "ok" if not problems else "; ".join(dict.fromkeys(problems)),
        "longest_due_seconds": round(shared.lag, 1),
        "limit_seconds": limit,
        "workers": [_worker(supervisor, slot) for slot in supervisor.places.slots],
    }
    return Answer(not problems, body)


def _worker(supervisor: Supervisor, slot: Slot) -> dict[str, Any]:
    call = slot.activity.running()
    return {
        "queue": slot.queue,
        "pid": slot.activity.pid,
        "alive": supervisor.is_alive(slot),
        "connected": bool(slot.activity.is_connected),
        "delivered": slot.activity.delivered,
        "failed": slot.activity.failed,
        "receiver": call and call.receiver,
        "key": call and call.key,
        "seconds": call and round(call.seconds, 1),
    }


class Health:
    """A small HTTP server in a thread: 200 while all is well, 503 otherwise.

    ``/livez`` says whether the process works, ``/readyz`` and ``/healthz`` whether events are
    delivered.

    Args:
        port: the port; 0 selects a free one.
        supervisor: the supervisor whose processes it reports on.
        host: the address; all addresses by default, since probes come from other machines.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, port: int, supervisor: Supervisor, host: str = "0.0.0.0") -> None:  # noqa: S104
        probes: dict[str, Callable[[Supervisor], Answer]] = {
            "/livez": liveness,
            "/readyz": readiness,
            "/healthz": readiness,
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                probe = probes.get(self.path.partition("?")[0].removesuffix("/"))
                if probe is None:
                    self.send_error(404)
                    return
                answer = probe(supervisor)
                body = json.dumps(answer.body).encode()
                self.send_response(200 if answer.well else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Do not log probes."""

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.port = self.server.server_port
        self._thread = threading.Thread(
            target=self.server.serve_forever, args=(_STEP,), daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()
