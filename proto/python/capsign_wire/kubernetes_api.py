"""A client of the Kubernetes API with the token of this pod, shared by adapter and injector.

The token is sent only to a server with a certificate of the cluster's authority, over TLS 1.3,
directly: no proxy of the environment is used and no redirect is followed. The kubelet replaces
token and authority files, so each request reads them. An answer has a bound on its
size, and on its time however its bytes trickle (decision 35).

A connection is kept for the next request. Sending a request twice must do no harm: one that finds
its connection closed is sent again on a new one.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

from capsign_wire import addresses, pem, tls_trust

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""Largest answer accepted, bytes; no object in etcd is larger."""

MAX_TOKEN_BYTES = 16 * 1024

KEPT_CONNECTIONS = 8

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 2.1


class NoAnswerError(Exception):
    """There is no answer. The text is a short fixed name of the cause, and repeats nothing that was
    sent or received.
    """


class CredentialError(NoAnswerError):
    """No request was made: token or authority cannot be read from the file at `path`."""

    def __init__(self, what: str, path: Path) -> None:
        self.path = path
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, the body, and the server's clock as it wrote it (RFC 9110 6.6.1; empty:
    it did not).
    """

    status: int
    body: bytes
    date: str


class KubernetesApi:
    """Sends requests to the API server. Safe for any thread."""

    def __init__(
        self,
        server: str,
        token_file: Path,
        ca_file: Path,
        *,
        user_agent: str,
        seconds: float = 5.0,
    ) -> None:
        """`seconds` bounds connecting, and then the rest of a request. Raises ValueError, the end
        of a sentence, for what is no https address.
        """
        self._server = addresses.https(server)
        self._token_file = token_file
        self._ca_file = ca_file
        self._user_agent = user_agent
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: deque[HTTPSConnection] = deque()
        self._context: ssl.SSLContext | None = None
        self._ca_stamp: tuple[int, int, int] | None = None

    def read_credentials(self) -> None:
        """Read the files that a request would use, and make none. Raises CredentialError."""
        self._token()
        self.trusting()

    def trusting(self) -> ssl.SSLContext:
        """Returns the TLS context for the authorities in the file now. If the file has changed,
        kept connections are not used again. Raises CredentialError.
        """
        try:
            stat = self._ca_file.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            with self._lock:
                if self._context is not None and stamp == self._ca_stamp:
                    return self._context
            context = tls_trust.context(b"".join(pem.authorities(self._ca_file.read_bytes())))
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            raise CredentialError("authority file", self._ca_file) from None
        context.sslsocket_class = _TimedSocket
        self.close()
        with self._lock:
            self._context, self._ca_stamp = context, stamp
        return context

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Returns the server's answer, with any status. Raises NoAnswerError; a requested change
        may have been made or not then.
        """
        headers = {
            "Authorization": f"Bearer {self._token()}",
            "Accept": "application/json",
            "User-Agent": self._user_agent,
        }
        if body is not None:
            headers["Content-Type"] = content_type
        context = self.trusting()
        try:
            return self._send(context, method, path, body, headers)
        except TimeoutError:
            raise NoAnswerError("no answer in time") from None
        except (OSError, HTTPException, ValueError) as error:
            raise NoAnswerError(type(error).__name__) from None

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            kept, self._kept = self._kept, deque()
        for connection in kept:
            connection.close()

    def _send(
        self,
        context: ssl.SSLContext,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        with self._lock:
            connection = self._kept.pop() if self._kept else None
        if connection is not None:
            try:
                return self._exchange(connection, method, path, body, headers)
            except (ConnectionError, HTTPException, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                pass  # the server had closed it
        fresh = HTTPSConnection(
            self._server.host, self._server.port, timeout=self._seconds, context=context
        )
        return self._exchange(fresh, method, path, body, headers)

    def _exchange(
        self,
        connection: HTTPSConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        try:
            if connection.sock is None:
                connection.connect()
            assert isinstance(connection.sock, _TimedSocket)
            connection.sock.deadline = time.monotonic() + self._seconds
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, _bounded(response), response.getheader("Date", ""))
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if connection.sock is not None and len(self._kept) < KEPT_CONNECTIONS:
                self._kept.append(connection)
                return answer
        connection.close()
        return answer

    def _token(self) -> str:
        try:
            with self._token_file.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).strip()
        except OSError:
            raise CredentialError("token file", self._token_file) from None
        if len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
            raise CredentialError("token file", self._token_file)
        return token.decode("ascii")


class _TimedSocket(ssl.SSLSocket):
    """A socket with a deadline for all sends and reads together: the timeout of a plain socket
    restarts with every byte.
    """

    deadline = float("inf")

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self._bound()
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        self._bound()
        return super().send(data, flags)

    def _bound(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)


def _bounded(response: HTTPResponse) -> bytes:
    body = response.read(MAX_ANSWER_BYTES + 1)
    if len(body) > MAX_ANSWER_BYTES:
        raise NoAnswerError("answer too large")
    return body
