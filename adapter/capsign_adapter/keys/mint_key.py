"""The key of the handle mint. Biscuit signs in software, so its Ed25519 seed is derived from a
secret in the token.
"""

from __future__ import annotations

from capsign_adapter.algorithms.expand import expand
from capsign_adapter.decide.context import hkdf_info
from capsign_adapter.keys import labels
from capsign_adapter.token.interface import Token

SEED_LEN = 32


def mint_seed(token: Token) -> bytearray:
    """Returns the RFC 8032 seed of the mint, 32 bytes: HKDF-Expand with the HkdfLabel "capsign1
    mint" and an empty context.

    Every replica on this token gets the same. The caller must wipe it once the mint has the key.
    Raises TokenError.
    """
    return expand(
        lambda data: token.hmac(labels.MINT, data), hkdf_info("mint", b"", SEED_LEN), SEED_LEN
    )
