"""Calls of the transit engine through the proxy's Unix socket."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bench.primitives import MESSAGE

SIGN = "/v1/transit/sign/signing"
INPUT = base64.b64encode(MESSAGE).decode()
TIMEOUT_SECONDS = 10.0


class _OverUnix(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("proxy", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def signs(path: str) -> bool:
    """Whether the proxy at this socket has a message signed. False too where it is not up yet.

    Raises InvalidSignature if what it gives is not a signature of the message.
    """
    try:
        signed = _call(path, "POST", SIGN, {"input": INPUT})["signature"]
        key = _call(path, "GET", "/v1/transit/keys/signing", None)["keys"]["1"]["public_key"]
    except (OSError, http.client.HTTPException):
        return False
    signature = base64.b64decode(signed.rpartition(":")[2])
    Ed25519PublicKey.from_public_bytes(base64.b64decode(key)).verify(signature, MESSAGE)
    return True


def _call(path: str, method: str, url: str, body: dict[str, str] | None) -> dict[str, Any]:
    """The data of the answer. Raises HTTPException if there are none."""
    connection = _OverUnix(path)
    try:
        connection.request(method, url, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise http.client.HTTPException(f"{url}: {answer.status} {text[:300]!r}")
    data: dict[str, Any] = json.loads(text)["data"]
    return data
