"""A TCP proxy on loopback whose connections can go silent."""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from threading import Event, Lock, Thread

_SO_ATTACH_FILTER = 26
# Of the classic BPF: return 0, which lets the kernel drop a packet before TCP has seen it.
_DROP_ALL = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
_PROGRAM = struct.pack("HP", 1, ctypes.addressof(_DROP_ALL))


class Proxy:
    """Forwards connections to ``target``, until they are made to die; new ones go through.

    Attributes:
        port: where it listens.
        control: a port that takes ``silence``, ``unplug`` or ``reset`` and answers when that is
            done; ``dead`` and ports of clients, and answers how many of these are silent.
    """

    def __init__(self, target):
        self.target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._controlled = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.control = self._controlled.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._lock = Lock()
        for serve in (self._accept, self._obey):
            Thread(target=serve, daemon=True).start()

    def silence(self):
        """A proxy that hangs: its kernel takes what is sent, and nothing comes out of it."""
        return self._make(_Pair.silence)

    def unplug(self):
        """A cut cable: neither end receives anything from the other, not even a FIN."""
        return self._make(_Pair.unplug)

    def reset(self):
        """A restarted proxy: both ends see the disconnection at once."""
        return self._make(_Pair.close)

    def dead(self, *ports):
        """How many of the clients with these ports get no answer any more."""
        return sum(pair.is_silent and str(pair.port) in ports for pair in self._taken())

    def close(self):
        for server in (self._listening, self._controlled):
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for pair in self._taken():
            pair.close()

    def _make(self, what):
        with self._lock:
            alive = [pair for pair in self._pairs if pair.forwards.is_set()]
            for pair in alive:
                what(pair)
            return len(alive)

    def _taken(self):
        with self._lock:
            return list(self._pairs)

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(self.target)
                    pair = _Pair(client, server)
                except OSError:  # one of them has gone already
                    client.close()
                    continue
                with self._lock:
                    self._pairs = [known for known in self._pairs if not known.closed]
                    self._pairs.append(pair)

    def _obey(self):
        makes = {
            "silence": self.silence,
            "unplug": self.unplug,
            "reset": self.reset,
            "dead": self.dead,
        }
        with suppress(OSError):
            while True:
                asking, _ = self._controlled.accept()
                with asking:
                    what, *ports = asking.recv(100).decode().split()
                    asking.sendall(str(makes[what](*ports)).encode())


class _Pair:
    def __init__(self, client, server):
        self.port = client.getpeername()[1]
        self.ends = {client: server, server: client}
        self.forwards = Event()
        self.forwards.set()
        self.closed = False
        for end in self.ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Thread(target=self._serve, daemon=True).start()

    @property
    def is_silent(self):
        return not (self.forwards.is_set() or self.closed)

    def silence(self):
        self.forwards.clear()

    def unplug(self):
        self.forwards.clear()
        for end in self.ends:
            with suppress(OSError):  # closed at this moment
                end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM)

    def close(self):
        self.closed = True
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self):
        """Until one end closes; then the other is closed, too, as proxies do."""
        with DefaultSelector() as selector:
            for end in self.ends:
                selector.register(end, EVENT_READ)
            with suppress(OSError):
                while all(self._forward(key.fileobj) for key, _ in selector.select()):
                    pass
        self.close()
        for end in self.ends:
            end.close()

    def _forward(self, end):
        data = end.recv(65536)
        if data and self.forwards.is_set():
            self.ends[end].sendall(data)
        return bool(data)
