"""The API server over plain HTTPS, for tests that ask it more often than one can start a
kubectl.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from pathlib import Path
from typing import Any

KEPT_S = 30.0
"""The API server closes a connection on which nothing was asked for 90 s."""


class Api:
    """For any number of threads; each has a connection of its own, which is kept."""

    def __init__(self, port: int, authority: Path, certificate: Path, key: Path) -> None:
        self._port = port
        self._trust = ssl.create_default_context(cafile=str(authority))
        self._trust.load_cert_chain(certificate, key)
        self._of_thread = threading.local()

    def ask(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Status and text of the answer. `body` is bytes, or goes as JSON."""
        if time.monotonic() > getattr(self._of_thread, "good_until", 0.0):
            self._of_thread.connection = http.client.HTTPSConnection(
                "127.0.0.1", self._port, context=self._trust, timeout=60
            )
        connection: http.client.HTTPSConnection = self._of_thread.connection
        self._of_thread.good_until = time.monotonic() + KEPT_S
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, sent, {"Content-Type": content_type})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except BaseException:
            connection.close()  # the next question opens another
            raise
