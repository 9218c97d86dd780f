"""Splits DER into its elements (X.690 section 8.1) without loading a cryptography library (8 MiB).

It reads the agent's own certificates only, which came from a file or over an authenticated
connection: to split a chain, and to see when a certificate ends. No decision about a peer depends
on it.
"""

from __future__ import annotations

SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
BOOLEAN, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER, EXTENSIONS = 0x01, 0x03, 0x04, 0x06, 0xA3


def content(data: bytes, at: int, tag: int | None) -> tuple[bytes, int]:
    """The content of the element at `at`, which must have this tag, and the offset of the next
    element. Raises ValueError.
    """
    start, end = _bounds(data, at, tag)
    return data[start:end], end


def whole(data: bytes, at: int, tag: int | None) -> tuple[bytes, int]:
    """As `content`, but with the element's tag and length."""
    _, end = _bounds(data, at, tag)
    return data[at:end], end


def certificates(data: bytes, most: int) -> list[bytes]:
    """Split certificates that are concatenated, as the SPIFFE Workload API sends them. Raises
    ValueError.
    """
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if len(found) == most:
            raise ValueError(f"more than {most} certificates")
        one, at = whole(data, at, SEQUENCE)
        found.append(one)
    return found


def after_issuer(certificate: bytes) -> tuple[bytes, int]:
    """The content of the TBSCertificate, and the offset in it at which the validity begins. Raises
    ValueError.
    """
    to_be_signed = content(content(certificate, 0, SEQUENCE)[0], 0, SEQUENCE)[0]
    at = 0
    if to_be_signed[:1] == bytes([VERSION]):
        at = content(to_be_signed, at, VERSION)[1]
    for _ in ("serialNumber", "signature", "issuer"):
        at = content(to_be_signed, at, None)[1]
    return to_be_signed, at


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element in the content of another. Raises ValueError."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        tag = data[at]
        inner, at = content(data, at, None)
        found.append((tag, inner))
    return found


def _bounds(data: bytes, at: int, tag: int | None) -> tuple[int, int]:
    if at + 2 > len(data) or (tag is not None and data[at] != tag):
        raise ValueError("not the element that a certificate has here")
    size, start = data[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[at + 2 : start], "big")
    if start + size > len(data):
        raise ValueError("an element that ends beyond the certificate")
    return start, start + size


def sequence(content: bytes) -> bytes:
    """A SEQUENCE with this content, in DER: the inverse of `content`."""
    length = len(content)
    if length < 128:
        return bytes((SEQUENCE, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((SEQUENCE, 0x80 | len(size))) + size + content
