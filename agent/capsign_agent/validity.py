"""When the agent's own certificate ends, read from its DER without loading a cryptography library (8 MiB).

Only our own file is read here, only to say in an error why adapters refuse it; no decision rests on it.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def not_after(certificate_pem: bytes) -> float:
    """Seconds since 1970, RFC 5280 section 4.1.2.5. Raises ValueError if the first PEM block is no certificate."""
    text = certificate_pem.decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    block = begin + text.partition(begin)[2].partition(end)[0] + end
    der = ssl.PEM_cert_to_DER_cert(block + "\n")
    certificate = _content(der, 0, _SEQUENCE)[0]
    to_be_signed = _content(certificate, 0, _SEQUENCE)[0]
    at = 0
    if to_be_signed[:1] == bytes([_VERSION]):
        at = _content(to_be_signed, at, _VERSION)[1]
    for _ in ("serialNumber", "signature", "issuer"):
        at = _content(to_be_signed, at, None)[1]
    validity = _content(to_be_signed, at, _SEQUENCE)[0]
    at = _content(validity, 0, None)[1]
    tag = validity[at]
    stamp = _content(validity, at, None)[0].decode("ascii", "replace")
    # RFC 5280: two-digit years from 50 on are of the last century; strptime's own pivot is 69.
    if tag == _UTC_TIME:
        stamp = ("19" if stamp[:2] >= "50" else "20") + stamp
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time where a certificate has its end")
    return datetime.strptime(stamp, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _content(data: bytes, at: int, tag: int | None) -> tuple[bytes, int]:
    """The content of the DER element at `at` and where the next one begins. Raises ValueError."""
    if at + 2 > len(data) or (tag is not None and data[at] != tag):
        raise ValueError("not the element that a certificate has here")
    size, start = data[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[at + 2 : start], "big")
    if start + size > len(data):
        raise ValueError("an element that ends beyond the certificate")
    return data[start : start + size], start + size
