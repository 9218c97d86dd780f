"""The raw primitives: what the machine could do if there were nothing but the signature."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MESSAGE = b"x" * 100


def per_second(action: Callable[[], object], seconds: float) -> float:
    """How often a second, on one thread."""
    count, start = 0, time.perf_counter()
    end = start + seconds
    while time.perf_counter() < end:
        for _ in range(50):
            action()
        count += 50
    return count / (time.perf_counter() - start)


def ed25519_per_second(seconds: float) -> float:
    """1 E is the inverse of this."""
    key = Ed25519PrivateKey.generate()
    return per_second(lambda: key.sign(MESSAGE), seconds)


def es256_per_second(seconds: float) -> float:
    """ECDSA on P-256 over a digest."""
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashlib.sha256(MESSAGE).digest()
    algorithm = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    return per_second(lambda: key.sign(digest, algorithm), seconds)


def hs256_per_second(seconds: float) -> float:
    """HMAC-SHA256."""
    return per_second(lambda: hmac.digest(b"k" * 32, MESSAGE, "sha256"), seconds)
