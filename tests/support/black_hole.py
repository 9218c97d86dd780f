"""A TCP proxy that can turn into a network that swallows everything: nothing arrives, nothing is
refused, nothing ends.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class BlackHole:
    """Forwards from `port` of the loopback to another. `swallow` keeps all bytes back until `heal`,
    as a partition does.
    """

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._open, self._heard = threading.Event(), threading.Event()
        self._open.set()
        self._heard.set()
        self.swallowed = 0
        """Connections that came while it swallowed."""
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        self._open.clear()

    def swallow_answers(self) -> None:
        """As a partition in one direction: what clients send arrives, what servers say does not."""
        self._heard.clear()

    def heal(self) -> None:
        self._open.set()
        self._heard.set()

    def close(self) -> None:
        self.heal()
        for one in [self._listener, *self._connections]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        self.swallowed += not self._open.is_set()
        self._open.wait()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._connections += [client, server]
        for one, other, door in ((client, server, self._open), (server, client, self._heard)):
            threading.Thread(target=self._pass, args=(one, other, door), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, door: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                self._open.wait()
                door.wait()
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
