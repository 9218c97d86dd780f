"""Check values of keys: what tells that a key in the token is the one that was made."""

from __future__ import annotations

import hashlib

from capsign_adapter.token.interface import KeyMissingError, Token

CHECK_DOMAIN = b"capsign1 check"
CHECK_LEN = 8
"""Bytes of a check value. Enough to notice that a token was restored from the wrong backup; it does
not withstand an attacker.
"""


def check_value(spki: bytes) -> bytes:
    """Returns the check value of a key pair, from its SubjectPublicKeyInfo (DER)."""
    return hashlib.sha256(spki).digest()[:CHECK_LEN]


def of_secret(token: Token, label: str) -> bytes:
    """Returns that of a secret. Raises KeyMissingError, TokenError."""
    # No derivation can ask for this value: an HkdfLabel starts with a length of at most 8160, "ca"
    # read as a length is 25441.
    return token.hmac(label, CHECK_DOMAIN)[:CHECK_LEN]


def of_pair(token: Token, label: str) -> bytes:
    """Returns that of a key pair. Raises KeyMissingError, TokenError."""
    return check_value(token.public_key(label))


def of_either(token: Token, label: str, derived: bool) -> bytes | None:
    """Returns that of a secret or of a pair; None if the token has neither, or not whole. Raises
    TokenError.
    """
    try:
        return of_secret(token, label) if derived else of_pair(token, label)
    except KeyMissingError:
        return None
