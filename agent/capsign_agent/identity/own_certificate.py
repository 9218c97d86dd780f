"""Reads the agent's own certificate from its DER: whom it names, when it is valid, what kind of key
it has.

It is read so that a person hears what is wrong with it and so that it is renewed in time. Whether
it is accepted, the adapter decides; which names a certificate may have is decided in
`capsign_wire.svid`.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from capsign_wire import svid

from capsign_agent.identity import der

_ALTERNATIVE_NAME, _BASIC_CONSTRAINTS, _KEY_USAGE = (
    b"\x55\x1d\x11",
    b"\x55\x1d\x13",
    b"\x55\x1d\x0f",
)  # RFC 5280, 4.2.1
_URI = 0x86  # GeneralName, uniformResourceIdentifier [6]
_USAGES = {0: "digitalSignature", 5: "keyCertSign", 6: "cRLSign"}
"""Bits of KeyUsage, counted from the most significant one."""

_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
_CURVES = {bytes.fromhex("2a8648ce3d030107"): "P-256", bytes.fromhex("2b81040022"): "P-384"}


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The leaf certificate. Times are seconds since 1970."""

    spiffe_id: str
    begins: float
    ends: float
    key: str
    """P-256, P-384 or RSA; empty for a kind that gRPC's TLS cannot use."""
    key_hash: bytes
    """SHA-256 of its SubjectPublicKeyInfo."""


def read(certificate_pem: bytes) -> OwnCertificate:
    """What the first certificate says. Raises ValueError if it is malformed, svid.NotAnSvidError if
    it names no workload.
    """
    to_be_signed, at = der.after_issuer(_leaf(certificate_pem))
    # validity, subject, subjectPublicKeyInfo, then what is optional
    fields = der.elements(to_be_signed[at:])
    try:
        begins, ends = (_moment(*each) for each in _two(der.elements(fields[0][1])))
        uris, authority, usages = _said(fields)
        kind = _kind(fields[2][1])
        key_hash = hashlib.sha256(der.sequence(fields[2][1])).digest()
    except IndexError:
        raise ValueError("a certificate that ends before its key does") from None
    name = svid.judged(uris, authority=authority, usages=usages)
    return OwnCertificate(name, begins, ends, kind, key_hash)


def not_after(certificate_pem: bytes) -> float:
    """When the certificate ends, seconds since 1970; RFC 5280 section 4.1.2.5. Raises ValueError if
    the first PEM block is no certificate.
    """
    to_be_signed, at = der.after_issuer(_leaf(certificate_pem))
    return _moment(*_two(der.elements(der.content(to_be_signed, at, der.SEQUENCE)[0]))[1])


def _leaf(certificate_pem: bytes) -> bytes:
    text = certificate_pem.decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(begin + text.partition(begin)[2].partition(end)[0] + end + "\n")


def _two(times: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    if len(times) != 2:
        raise ValueError("no time where a certificate has its end")
    return times


def _moment(tag: int, content: bytes) -> float:
    stamp = content.decode("ascii", "replace")
    # RFC 5280: two-digit years from 50 on are of the last century; strptime's own pivot is 69.
    if tag == der.UTC_TIME:
        stamp = ("19" if stamp[:2] >= "50" else "20") + stamp
    elif tag != der.GENERALIZED_TIME:
        raise ValueError("no time where a certificate has its end")
    return datetime.strptime(stamp, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _kind(key_info: bytes) -> str:
    algorithm = der.elements(der.content(key_info, 0, der.SEQUENCE)[0])
    name, parameters = algorithm[0][1], algorithm[1][1] if len(algorithm) > 1 else b""
    if name == _RSA:
        return "RSA"
    return _CURVES.get(parameters, "") if name == _EC else ""


def _said(fields: list[tuple[int, bytes]]) -> tuple[list[bytes], bool, frozenset[str] | None]:
    """URI names, whether it is a CA, and the key usages if it has that extension."""
    uris: list[bytes] = []
    authority, usages = False, None
    for name, value in _extensions(fields):
        inner = der.elements(value)[0][1]
        if name == _ALTERNATIVE_NAME:
            uris += [one for tag, one in der.elements(inner) if tag == _URI]
        elif name == _BASIC_CONSTRAINTS:
            authority = any(
                tag == der.BOOLEAN and one != b"\x00" for tag, one in der.elements(inner)
            )
        elif name == _KEY_USAGE:
            bits = inner[1:2]
            usages = frozenset(
                word for bit, word in _USAGES.items() if bits and bits[0] & (0x80 >> bit)
            )
    return uris, authority, usages


def _extensions(fields: list[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Object identifier and value of each."""
    for tag, content in fields[3:]:
        if tag == der.EXTENSIONS:
            for _, extension in der.elements(der.content(content, 0, der.SEQUENCE)[0]):
                parts = der.elements(extension)
                if (
                    len(parts) < 2
                    or parts[0][0] != der.OBJECT_IDENTIFIER
                    or parts[-1][0] != der.OCTET_STRING
                ):
                    raise ValueError("an extension that is none")
                yield parts[0][1], parts[-1][1]
