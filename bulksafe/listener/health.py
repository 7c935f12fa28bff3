"""``/healthz`` for an orchestrator's probes."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulksafe.listener.daemon import Pulse

#: Seconds without a sign of life after which a process is not healthy: a batch may take a while.
SILENCE = 120.0


def report(pulses: Sequence[Pulse], now: float) -> tuple[bool, dict[str, Any]]:
    """Whether all processes are well, and what there is to say about them."""
    processes = [
        {
            "connected": pulse.connected,
            "seconds_since_beat": round(now - pulse.beat, 1),
            "delivered": pulse.delivered,
            "failed": pulse.failed,
        }
        for pulse in pulses
    ]
    well = all(pulse.connected and now - pulse.beat < SILENCE for pulse in pulses)
    return well, {"status": "ok" if well else "not well", "processes": processes}


class Health:
    """A small HTTP server in a thread: 200 while all is well, 503 otherwise.

    Args:
        port: where it listens; 0 takes a free one.
        host: the address; all of the machine's by default, since probes come from outside.
        pulses: returns the state of the processes.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        port: int,
        pulses: Callable[[], Sequence[Pulse]],
        host: str = "0.0.0.0",  # noqa: S104
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] not in ("/healthz", "/healthz/"):
                    self.send_error(404)
                    return
                well, said = report(pulses(), time.time())
                body = json.dumps(said).encode()
                self.send_response(200 if well else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Probes are no news."""

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.port = self.server.server_port
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()
