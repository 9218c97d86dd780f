"""Seals signatures that the ledger keeps, under a key of their tenant: once the tenant's pepper is
destroyed nobody reads them, in the database or in a copy of it.

XAES-256-GCM (c2sp.org/XAES-256-GCM): a nonce of 24 bytes, drawn at random, is safe for more
messages than are ever signed. Its first half gives an AES-256-GCM key. A seal draws one nonce and
counts on in its second half, so that each further signature costs one AES-256-GCM and no more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import count

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

HALF = 12
"""Bytes of either half of a nonce."""


class SealBrokenError(Exception):
    """It was sealed under another key or for another place, or was changed since."""


class ResultSeal:
    """Seals and opens under one key of 32 bytes. As secret as that key. Safe for any thread."""

    __slots__ = ("_cipher", "_key", "_numbers", "_prefix")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._prefix = os.urandom(HALF)
        # begins in the lower half of its numbers, so that it never overflows
        self._numbers = count(int.from_bytes(os.urandom(HALF), "big") >> 1)
        self._cipher = AESGCM(_derived(key, self._prefix))

    def seal(self, value: bytes, place: bytes) -> bytes:
        """Returns nonce and ciphertext with its tag, 40 bytes longer than the value; it opens for
        the same `place` only.
        """
        return self.seal_each([value], [place])[0]

    def seal_each(self, values: Iterable[bytes], places: Iterable[bytes]) -> list[bytes]:
        """Seals many values, each for its place."""
        prefix, numbers, encrypt = self._prefix, self._numbers, self._cipher.encrypt
        sealed = []
        for value, place in zip(values, places, strict=True):
            rest = next(numbers).to_bytes(HALF, "big")
            sealed.append(prefix + rest + encrypt(rest, value, place))
        return sealed

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Returns what was sealed under this key, by whichever seal. Raises SealBrokenError."""
        prefix, rest, body = sealed[:HALF], sealed[HALF : 2 * HALF], sealed[2 * HALF :]
        if len(rest) < HALF:
            raise SealBrokenError("a sealed value is longer than its nonce")
        cipher = self._cipher if prefix == self._prefix else AESGCM(_derived(self._key, prefix))
        try:
            return cipher.decrypt(rest, body, place)
        except InvalidTag:
            raise SealBrokenError("a sealed value does not open") from None


def _derived(key: bytes, prefix: bytes) -> bytes:
    """Returns the AES-256-GCM key of a nonce's first half: the KDF in counter mode of NIST SP
    800-108r1 with CMAC, two blocks, as the specification has it.
    """
    return _block(key, 1, prefix) + _block(key, 2, prefix)


def _block(key: bytes, number: int, prefix: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(bytes((0, number)) + b"X\x00" + prefix)
    return mac.finalize()
