"""A P-256 key from a seed: C2SP det-keygen (c2sp.org/det-keygen), section "ECDSA", for the curve
P-256.

It is HMAC_DRBG with SHA-256 (NIST SP 800-90A) followed by FIPS 186-5 appendix A.2.2, so the result
is uniform in [1, n-1]; reducing 32 bytes modulo n would not be.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from capsign_adapter.algorithms.expand import wipe

MIN_SEED_LEN = 16
PERSONALIZATION = b"det ECDSA key gen P-256"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order n of the group, NIST SP 800-186 section 3.2.1.3."""


def p256_from_seed(
    seed: bytes | bytearray, erase: Callable[[bytearray], None] = wipe
) -> ec.EllipticCurvePrivateKey:
    """Returns the private key of this seed of at least 16 bytes (ours have 32). The caller must
    wipe the seed; what is built around it is wiped by `erase`.

    Raises ValueError for a short seed, and when two candidates in a row are out of range (chance
    below 2**-64).
    """
    if len(seed) < MIN_SEED_LEN:
        raise ValueError(f"a det-keygen seed has at least {MIN_SEED_LEN} bytes")
    key, value = bytes(32), b"\x01" * 32
    for separator in (b"\x00", b"\x01"):  # steps 4 to 7: instantiate
        message = bytearray().join((value, separator, seed, PERSONALIZATION))
        key = hmac.digest(key, message, "sha256")
        erase(message)
        value = hmac.digest(key, value, "sha256")
    value = hmac.digest(key, value, "sha256")  # steps 8 to 10: one block is as long as n
    scalar = int.from_bytes(value, "big")
    if scalar >= ORDER:  # step 11: once in 2**32 seeds; draw again, once
        key = hmac.digest(key, value + b"\x00", "sha256")
        value = hmac.digest(key, value, "sha256")
        value = hmac.digest(key, value, "sha256")
        scalar = int.from_bytes(value, "big")
    if not 0 < scalar < ORDER:  # step 12
        raise ValueError("no scalar in range after two draws: the seed or the HMAC is broken")
    return ec.derive_private_key(scalar, ec.SECP256R1())
