"""HKDF-Expand (RFC 5869 section 2.3) over a pseudo-random function that may live inside a token."""

from __future__ import annotations

from collections.abc import Callable

HASH_LEN = 32
"""Output of one call of the PRF (HMAC-SHA256), bytes."""

MAX_LENGTH = 255 * HASH_LEN
"""RFC 5869 counts blocks in one byte."""

Prf = Callable[[bytes], bytes]
"""HMAC-SHA256 under a key that the caller does not see: message in, 32 bytes out."""


def expand(prf: Prf, info: bytes, length: int) -> bytearray:
    """Returns `length` bytes of output keying material, 1 to 8160. The caller must wipe the result,
    see `wipe`.

    T(n) = PRF(T(n-1) ‖ info ‖ n): one call of the PRF, hence of the token, for every 32 bytes.
    """
    if not 1 <= length <= MAX_LENGTH:
        raise ValueError(f"HKDF-Expand gives 1 to {MAX_LENGTH} bytes")
    okm = bytearray(length)
    block = b""
    for number in range(-(-length // HASH_LEN)):
        block = prf(block + info + bytes((number + 1,)))
        if len(block) != HASH_LEN:
            raise ValueError(f"the pseudo-random function must give {HASH_LEN} bytes")
        start = number * HASH_LEN
        okm[start : start + HASH_LEN] = block[: length - start]
    return okm


def wipe(secret: bytearray) -> None:
    """Overwrite with zeros, in place.

    What the PRF returned is an immutable `bytes`, which Python can only free, not wipe: a subkey of
    class adapter-memory may leave a trace in freed memory of the adapter until the allocator reuses
    it. docs/threat-model.md counts on no more than that.
    """
    secret[:] = bytes(len(secret))
