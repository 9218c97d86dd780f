"""Ed25519 (RFC 8032) by libsodium: the same bytes as OpenSSL's, in some 0.6 of the time.

libsodium (`libsodium23` in Debian) is taken by its C interface, because its binding for Python
takes keys as immutable `bytes` only, which cannot be wiped. It is optional: without it, or if it
does not sign RFC 8032's first test as the RFC says, OpenSSL signs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

from capsign_adapter.algorithms.expand import wipe

NAMES = ("libsodium.so.26", "libsodium.so.23")
"""Sonames since 1.0.12; the functions that are used here are the same in both."""

SEED = 32
SECRET = 64
"""The seed, and the public key after it: what libsodium calls a secret key. Bytes."""
PUBLIC = 32
SIGNATURE = 64

_RFC_8032_7_1_TEST_1 = (
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
    bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    ),
)

_Signature = ctypes.c_char * SIGNATURE
_Secret = ctypes.c_char * SECRET
_Seed = ctypes.c_char * SEED


class Sodium:
    """The library. Its functions release Python's lock while they compute."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises OSError if the library cannot be used, AttributeError if it lacks a function."""
        if library.sodium_init() < 0:
            raise OSError("libsodium could not be initialised")
        library.sodium_version_string.restype = ctypes.c_char_p
        self.version: str = library.sodium_version_string().decode()
        self._keypair = library.crypto_sign_ed25519_seed_keypair
        self._keypair.argtypes = [ctypes.c_void_p] * 3
        self._sign = library.crypto_sign_ed25519_detached
        self._sign.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_ulonglong,
            ctypes.c_void_p,
        ]

    def secret(self, seed: bytearray) -> bytearray:
        """Returns the secret key of this seed, 64 bytes; the caller must wipe both. Raises
        ValueError if the seed does not have 32 bytes.
        """
        if len(seed) != SEED:
            raise ValueError(f"An Ed25519 seed has {SEED} bytes.")
        secret, public = bytearray(SECRET), ctypes.create_string_buffer(PUBLIC)
        self._keypair(public, _Secret.from_buffer(secret), _Seed.from_buffer(seed))
        return secret

    def sign(self, secret: ctypes.Array[ctypes.c_char], message: bytes) -> bytes:
        """Returns the signature, 64 bytes, under a secret key that is in this memory."""
        signature = _Signature()
        if self._sign(signature, None, message, len(message), secret):
            raise RuntimeError("libsodium did not sign")
        return signature.raw


class SodiumKey:
    """A private key whose 64 bytes are wiped when its last user lets go."""

    __slots__ = ("_key", "_memory", "_sodium")

    def __init__(self, sodium: Sodium, seed: bytearray) -> None:
        """Raises ValueError if the seed does not have 32 bytes. The caller must wipe it."""
        self._key = bytearray()
        self._key = sodium.secret(seed)
        self._memory = _Secret.from_buffer(self._key)
        self._sodium = sodium

    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return bytes(memoryview(self._key)[SEED:])

    def sign(self, message: bytes) -> bytes:
        """Returns the signature, 64 bytes. May be called from many threads at once."""
        return self._sodium.sign(self._memory, message)

    def __del__(self) -> None:
        # Not when a cache lets go, but when the last user does: a call in flight must never sign
        # with a key of zeros.
        wipe(self._key)


@cache
def installed() -> Sodium | None:
    """The library of this machine; None if there is none that can be used."""
    return next(filter(None, map(usable, NAMES)), None)


def usable(name: str, load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> Sodium | None:
    """The library of this name; None if there is none, or if it does not sign as RFC 8032 says."""
    try:
        sodium = Sodium(load(name))
    except (OSError, AttributeError):
        return None
    seed, signature = _RFC_8032_7_1_TEST_1
    return sodium if SodiumKey(sodium, bytearray(seed)).sign(b"") == signature else None


def ed25519_by() -> str:
    """Which library signs Ed25519, for people: the bytes are the same."""
    sodium = installed()
    return "OpenSSL" if sodium is None else f"libsodium {sodium.version}"
