"""How JOSE writes things: base64url, and ECDSA signatures as the fixed-length R || S of RFC 7518
section 3.4, made from DER (X9.62 ECDSA-Sig-Value).
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode

COORDINATE_BYTES = {"ES256": 32, "ES384": 48}
"""Length of R and of S, bytes."""


def octets(text: str) -> bytes:
    """The bytes of base64url without padding (RFC 7515 section 2). Raises ValueError."""
    if not isinstance(text, str) or not text.isascii() or set(text) & set("+/= \r\n\t"):
        raise ValueError("this is not base64url")
    try:
        found = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("this is not base64url") from None
    return found


def raw_ecdsa(der: bytes, size: int) -> bytes:
    """R || S, `size` bytes each. Raises ValueError if `der` is not a DER ECDSA-Sig-Value of that
    size.
    """
    if len(der) < 2 or der[0] != 0x30 or der[1] != len(der) - 2:
        raise ValueError("this is not a DER ECDSA signature")
    r, position = _integer(der, 2, size)
    s, position = _integer(der, position, size)
    if position != len(der):
        raise ValueError("this DER ECDSA signature has bytes left over")
    return r + s


def _integer(der: bytes, position: int, size: int) -> tuple[bytes, int]:
    # Both curves keep every length below 128, so one length byte is all there can be.
    if position + 2 > len(der) or der[position] != 0x02:
        raise ValueError("this is not a DER ECDSA signature")
    start, end = position + 2, position + 2 + der[position + 1]
    if end > len(der) or start == end or der[start] & 0x80:
        raise ValueError("this is not a DER ECDSA signature")
    value = der[start:end].lstrip(b"\0")
    if len(value) > size:
        raise ValueError(f"an integer of this DER ECDSA signature is longer than {size} bytes")
    return value.rjust(size, b"\0"), end
