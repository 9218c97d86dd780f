"""HTTPS to the Kubernetes API: TLS 1.3 and the server's certificate verified, and a bound on time
and size of every answer.

Each request carries the token that is in the file now: the kubelet replaces it, and the authority's
file, while we run. A connection is kept for the next request. Requests are such that sending one
twice does no harm, so one that finds its kept connection closed is sent again on a new one.
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

from capsign_wire import addresses, logs, pem, tls_trust
from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter import __version__

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""Largest answer taken; no object in etcd is larger."""

MAX_TOKEN_BYTES = 16 * 1024

KEPT_CONNECTIONS = 8

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 2.1


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and its body."""

    status: int
    body: bytes


class Api:
    """Asks the API server. Any thread may call `ask`."""

    def __init__(self, server: str, token_file: Path, ca_file: Path, seconds: float = 5.0) -> None:
        """`seconds` bounds connecting, and then the rest of a request. Raises SettingsError for
        what is no https address.
        """
        self._host, self._port = _host_and_port(server)
        self._token_file = token_file
        self._ca_file = ca_file
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: deque[HTTPSConnection] = deque()
        self._context: ssl.SSLContext | None = None
        self._ca_stamp: tuple[int, int, int] | None = None
        self._failing = ""

    def demand_files(self) -> None:
        """Read what a request would be made with, and ask nobody. Raises SettingsError."""
        for key, path, read in (
            ("token_file", self._token_file, self._token),
            ("ca_file", self._ca_file, self._trusting),
        ):
            try:
                read()
            except (OSError, ValueError, _UnusableError):
                sentence = (
                    f"The file {path} of `identity.kubernetes.{key}` cannot be used. See that "
                    f"it is mounted."
                )
                raise SettingsError(sentence, key=f"identity.kubernetes.{key}") from None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """The server's answer, whatever its status. Raises FailureError CLUSTER_UNAVAILABLE; its
        text has nothing of the request.

        No redirect is followed: the request holds our token, and maybe somebody else's.
        """
        try:
            answer = self._ask(method, path, body, content_type)
        except (OSError, HTTPException, ValueError) as error:
            raise self._unavailable(_cause(error)) from None
        if answer.status >= 500 or answer.status in {401, 429}:
            raise self._unavailable(f"status {answer.status}")
        self._well()
        return answer

    def garbled(self, what: str) -> FailureError:
        """The failure for an answer that is not what the API documents."""
        return self._unavailable(what)

    def close(self) -> None:
        """Close the connections that wait for another request."""
        with self._lock:
            kept, self._kept = self._kept, deque()
        for connection in kept:
            connection.close()

    def _ask(self, method: str, path: str, body: bytes | None, content_type: str) -> Answer:
        headers = {
            "Authorization": f"Bearer {self._token()}",
            "Accept": "application/json",
            "User-Agent": f"capsign-adapter/{__version__}",
        }
        if body is not None:
            headers["Content-Type"] = content_type
        context = self._trusting()
        with self._lock:
            connection = self._kept.pop() if self._kept else None
        if connection is not None:
            try:
                return self._exchange(connection, method, path, body, headers)
            except (ConnectionError, HTTPException, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                pass  # the server had closed it
        connection = HTTPSConnection(self._host, self._port, timeout=self._seconds, context=context)
        return self._exchange(connection, method, path, body, headers)

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
            connection.sock.settimeout(self._seconds)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, _bounded(response))
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
        with self._token_file.open("rb") as file:
            token = file.read(MAX_TOKEN_BYTES + 1).strip()
        if len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
            raise _UnusableError("token file")
        return token.decode("ascii")

    def _trusting(self) -> ssl.SSLContext:
        """The context for the authorities in the file now. Another file means that kept connections
        are of no use.
        """
        stat = self._ca_file.stat()
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if self._context is not None and stamp == self._ca_stamp:
                return self._context
        context = tls_trust.context(b"".join(pem.authorities(self._ca_file.read_bytes())))
        context.sslsocket_class = _TimedSocket
        self.close()
        with self._lock:
            self._context, self._ca_stamp = context, stamp
        return context

    def _unavailable(self, cause: str) -> FailureError:
        if cause != self._failing:  # once for each cause, not once for each caller
            self._failing = cause
            logs.error("cluster.failing", reason=cause)
        return FailureError(
            failures_pb2.REASON_CLUSTER_UNAVAILABLE,
            "The adapter cannot ask the Kubernetes API now.",
            retry_after_ms=1000,
        )

    def _well(self) -> None:
        if self._failing:
            self._failing = ""
            logs.event("cluster.answers")


class _UnusableError(ValueError):
    """Something that is needed for a request cannot be used; its text is a fixed name."""


class _TimedSocket(ssl.SSLSocket):
    """Reads until a deadline, however the bytes trickle: the timeout of a socket alone begins anew
    with each of them.
    """

    deadline = float("inf")

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(buffer, nbytes, flags)


def _bounded(response: HTTPResponse) -> bytes:
    body = response.read(MAX_ANSWER_BYTES + 1)
    if len(body) > MAX_ANSWER_BYTES:
        raise _UnusableError("answer too large")
    return body


def _host_and_port(server: str) -> tuple[str, int]:
    try:
        found = addresses.https(server)
    except ValueError as error:
        key = "identity.kubernetes.api_server"
        raise SettingsError(f"The key `{key}` {error}.", key=key) from None
    return found.host, found.port


def _cause(error: Exception) -> str:
    """A short name for what went wrong, never its text: that may quote what was sent or
    received.
    """
    if isinstance(error, _UnusableError):
        return str(error)
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
