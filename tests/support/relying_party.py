"""Who verifies, and is not ours: fetches a JWK Set by HTTPS and keeps it for as long as it was told
to, not shorter and not longer. A `kid` that is not in it fails, without a second look.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa


def key_of(jwk: dict[str, Any]) -> Any:
    """The public key of a JWK, also of kind AKP (RFC 9964), which PyJWT passes over."""
    if jwk["kty"] == "AKP":
        raw = jwk["pub"] + "=" * (-len(jwk["pub"]) % 4)
        return mldsa.MLDSA65PublicKey.from_public_bytes(urlsafe_b64decode(raw))
    return jwt.PyJWK(jwk).key


def is_good(key: Any, message: bytes, signature: bytes) -> bool:
    """Whether it verifies; ECDSA in DER."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


@dataclass
class RelyingParty:
    """Of one workload's signatures. `addresses` are those of listeners for verifiers; the next one
    is asked where one does not answer.
    """

    addresses: Sequence[str]
    path: str
    tls: ssl.SSLContext
    forgets: bool = True
    """A broken one never asks again."""
    knows_ml_dsa: bool = True
    keys: dict[str, Any] = field(default_factory=dict)
    etag: str = ""
    stale_at: float = 0.0
    fetched: int = 0
    unchanged: int = 0

    @property
    def is_stale(self) -> bool:
        """Whether the set may not be used any more."""
        return time.monotonic() >= self.stale_at and (self.forgets or not self.keys)

    def verifies(self, kid: str, message: bytes, signature: bytes) -> bool:
        """Whether it does under a key of the set at hand."""
        key = self.keys.get(kid)
        if key is None or (isinstance(key, mldsa.MLDSA65PublicKey) and not self.knows_ml_dsa):
            return False
        return is_good(key, message, signature)

    def fetch(self) -> None:
        """Ask for the set. Where nobody answers, what is there stays: refusals and outages are no
        reason to forget keys.
        """
        asked_at = time.monotonic()
        for address in self.addresses:
            try:
                response, body = self._ask(address)
            except (OSError, http.client.HTTPException):
                continue
            if response.status == 304:
                self.unchanged += 1
            elif response.status == 200:
                self.keys = {jwk["kid"]: key_of(jwk) for jwk in json.loads(body)["keys"]}
                self.etag = response.headers["ETag"]
                self.fetched += 1
            else:
                continue
            (age,) = re.findall(r"max-age=(\d+)", response.headers["Cache-Control"])
            self.stale_at = asked_at + int(age)
            return

    def _ask(self, address: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPSConnection(address, context=self.tls, timeout=5)
        try:
            headers = {"If-None-Match": self.etag} if self.etag else {}
            connection.request("GET", self.path, headers=headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()
