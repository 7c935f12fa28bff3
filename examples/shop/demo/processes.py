"""The listener as a process of its own, the warehouse as a service, and waiting for both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from django.db import connection

from examples import server
from examples.shop.demo.errors import DemoError

#: Seconds after which waiting is given up.
DEADLINE = 120.0
_BETWEEN_LOOKS = 0.02

_ROOT = Path(__file__).resolve().parents[3]


class Warehouse:
    """The other side of ``examples.shop.warehouse``: takes requests, and can leave one unanswered.

    Attributes:
        requests: the order and the idempotency key of each request.
        holds: whether a request is being left unanswered.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.holds = False
        self._hold_at = 0
        self._goes_on = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/picking"

    def hold(self, number: int) -> None:
        """Leave the request unanswered that comes as the ``number``-th from now on."""
        self._goes_on.clear()
        self.holds = False
        self._hold_at = len(self.requests) + number

    def go_on(self) -> None:
        self._hold_at = 0
        self.holds = False
        self._goes_on.set()

    @contextmanager
    def running(self) -> Iterator[Warehouse]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.go_on()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _take(self, order: str, key: str) -> bool:
        """Note a request; whether it is to be answered."""
        with self._lock:
            self.requests.append((order, key))
            if len(self.requests) != self._hold_at:
                return True
            self.holds = True
        self._goes_on.wait()
        return False

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if take(json.loads(body)["order"], self.headers["Idempotency-Key"]):
                    self.send_response(202)
                    self.end_headers()

            def log_message(self, *args: Any) -> None:
                """The demo has its own report."""

        return Handler


def _children(parent: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = (line.split() for line in listed.splitlines())
    return [int(pid) for pid, ppid in pairs if int(ppid) == parent]


class Listener:
    """``manage.py bulksafe listen``; a killed one can be started again.

    Args:
        warehouse: where its receivers find the warehouse.
        log: the file that it logs to.
        command: what Python is to run.
    """

    #: Seconds that a listener may take to end when it is asked to.
    patience = 10.0

    def __init__(
        self,
        warehouse: str,
        log: Path,
        command: Sequence[str] = ("manage.py", "bulksafe", "listen"),
    ) -> None:
        self.log = log
        self.command = command
        self.environment = {
            **os.environ,
            "DATABASE_URL": server.database_url(connection.settings_dict),
            "DJANGO_SETTINGS_MODULE": "examples.shop.settings",
            "WAREHOUSE_URL": warehouse,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.command],
                cwd=_ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the listener
            )

    def kill(self) -> None:
        """SIGKILL to the listener and its processes, as when the machine loses its power."""
        if self._process is None:
            return
        children = _children(self._process.pid)
        self._process.kill()
        for pid in children:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, as an orchestrator does it, and SIGKILL if that does not help."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.kill()

    @contextmanager
    def running(self) -> Iterator[Listener]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def wait_until(self, is_so: Callable[[], bool], what: str, deadline: float = DEADLINE) -> float:
        """Wait for what the listener is to bring about; the seconds that it took.

        Raises:
            DemoError: it ended, or the deadline passed.
        """
        started = time.monotonic()
        while not is_so():
            if not self.is_running:
                raise DemoError(f"The listener ended before {what}.\n{self._last_words()}")
            if time.monotonic() - started > deadline:
                raise DemoError(
                    f"After {deadline:.0f} s the listener still has not come so far that {what}.\n"
                    f"{self._last_words()}"
                )
            time.sleep(_BETWEEN_LOOKS)
        return time.monotonic() - started

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(["The end of its log:", *lines[-15:]])
