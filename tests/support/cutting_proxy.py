"""A TCP proxy that cuts a connection at a chosen word: before it is passed on, or after the server
has acted on it.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class CuttingProxy:
    """Listens on a loopback port and forwards to another. `cut_at` arms it for one cut; until then
    it only forwards.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._word = b""
        self._happened = False
        self._swallowed = b""
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut_at(self, word: bytes, *, happened: bool) -> None:
        """Cut when a client says `word`: with `happened` the server hears it and answers, and only
        the answer is lost.
        """
        self._happened = happened
        self._word = word

    def swallow_from(self, word: bytes) -> None:
        """From `word` on, pass nothing on in that connection, and end nothing."""
        self._swallowed = word

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            lost = threading.Event()
            for run, arguments in (
                (self._upwards, (client, server, lost)),
                (self._downwards, (client, server, lost)),
            ):
                thread = threading.Thread(target=run, args=arguments, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _upwards(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                if self._word and self._word in data:
                    self._word = b""
                    self.cuts += 1
                    lost.set()
                    if not self._happened:
                        break
                if self._swallowed and self._swallowed in data:
                    self._swallowed = b""
                    while client.recv(1 << 20):
                        pass
                    break
                # Goes on after the word: the server may answer only what follows it.
                server.sendall(data)
        _shut(client)
        _shut(server)

    def _downwards(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if lost.is_set():
                    break
                client.sendall(data)
        _shut(client)
        _shut(server)

    def close(self) -> None:
        _shut(self._listener)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
