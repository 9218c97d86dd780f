"""A Unix socket that hands everything on to another one and keeps a copy of what passed, in both
directions.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Self


class TappedSocket:
    """Listens at `path`; use it in a `with` statement. `heard` is what has passed so far."""

    def __init__(self, path: Path, behind: str) -> None:
        self.path = path
        self._behind = behind
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._open: list[socket.socket] = []
        self._parts: list[bytearray] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A blocked accept() does not notice close() alone.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            one.close()

    @property
    def heard(self) -> list[bytes]:
        """One string of bytes for each direction of each connection."""
        return [bytes(part) for part in self._parts]

    def _accept(self) -> None:
        while True:
            try:
                front, _ = self._listener.accept()
            except OSError:
                return
            back = socket.socket(socket.AF_UNIX)
            back.connect(self._behind)
            self._open += [front, back]
            for source, sink in ((front, back), (back, front)):
                part = bytearray()
                self._parts.append(part)
                threading.Thread(target=_copy, args=(source, sink, part), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket, part: bytearray) -> None:
    try:
        while data := source.recv(1 << 16):
            part += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return
