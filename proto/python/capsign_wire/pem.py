"""Reads certificates in PEM as OpenSSL does: blocks that begin and end at a line, with any text
around them. Pure.

`openssl x509 -text` puts a description before a block, bundles have comments in any alphabet,
editors leave a byte order mark, and Windows has other line ends. Libraries that read PEM differ in
what they accept of this, so the certificates are written anew for them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

_BLOCK = re.compile(
    rb"^-----BEGIN (?P<label>(?:X509 |TRUSTED )?CERTIFICATE)-----[ "
    rb"\t]*$(?P<body>.*?)^-----END (?P=label)-----[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_BEGIN = re.compile(rb"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", re.MULTILINE)
_MARK = b"\xef\xbb\xbf"


def certificates(data: bytes) -> list[bytes]:
    """The certificates in a file, DER, in their order. Raises ValueError if one is damaged; there
    may be none.

    A TRUSTED CERTIFICATE is the certificate in it; what OpenSSL adds about its use is OpenSSL's
    own.
    """
    return [_whole(label, der) for label, der in _blocks(data)]


def unverified(data: bytes) -> list[bytes]:
    """As `certificates`, but the blocks are not checked: for callers that only pass them on."""
    return [der for _, der in _blocks(data)]


def _blocks(data: bytes) -> list[tuple[bytes, bytes]]:
    text = lines(data)
    found = [(match["label"], _decoded(match["body"])) for match in _BLOCK.finditer(text)]
    if len(found) != len(_BEGIN.findall(text)):
        raise ValueError("a certificate begins and does not end")
    return found


def authorities(data: bytes) -> list[bytes]:
    """As `certificates`, each once, and at least one. Raises ValueError."""
    found = list(dict.fromkeys(certificates(data)))
    if not found:
        raise ValueError("no certificate")
    return found


def written(ders: Iterable[bytes]) -> bytes:
    """PEM of certificates in DER, one after the other."""
    parts = []
    for one in ders:
        text = base64.b64encode(one).decode()
        body = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        parts.append(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    return "".join(parts).encode()


def lines(data: bytes) -> bytes:
    """Returns the text without byte order marks and with Unix line ends. For private keys too."""
    return (
        data.replace(_MARK + b"-----BEGIN", b"-----BEGIN")
        .removeprefix(_MARK)
        .replace(b"\r\n", b"\n")
        .replace(b"\r", b"\n")
    )


def _decoded(body: bytes) -> bytes:
    headers, blank, rest = body.strip(b"\n").partition(b"\n\n")
    if blank and b":" in headers:  # RFC 1421 had headers
        body = rest
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise ValueError("a certificate is not base64") from None


def _whole(label: bytes, der: bytes) -> bytes:
    size = _size(der)
    if size > len(der) or (size < len(der) and label != b"TRUSTED CERTIFICATE"):
        raise ValueError("a certificate is cut off, or something follows it")
    return der[:size]


def _size(der: bytes) -> int:
    """How many bytes the SEQUENCE at the beginning has. Raises ValueError."""
    if len(der) < 2 or der[0] != 0x30:
        raise ValueError("a certificate is none")
    if der[1] < 0x80:
        return 2 + der[1]
    count = der[1] & 0x7F
    if not 1 <= count <= 4 or len(der) < 2 + count:
        raise ValueError("a certificate is none")
    return 2 + count + int.from_bytes(der[2 : 2 + count], "big")
