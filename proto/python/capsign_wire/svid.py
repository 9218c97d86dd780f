"""Reads the SPIFFE ID of an X.509-SVID, or says why the certificate identifies nobody.

Every process uses this to read an identity from a certificate (SPIFFE-ID, sections 2.1 to
2.4; X509-SVID, sections 2, 4 and 5.2): adapter and agent must not take the same certificate for two
workloads. Identities are compared as text, so only the canonical form is accepted: no other scheme,
case, port, query, escape, empty or relative segment, and no byte after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509

MAX_BYTES = 255
"""Longest SPIFFE ID, bytes: what an entry of the evidence log can name. The SPIFFE specification
allows 2048.
"""

SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+", re.ASCII)
"""The SPIFFE ID of a workload, with a path. Use `fullmatch`: the `$` of a pattern accepts a line
end after it.
"""


KEYS_SHOWN = "for a P-256, P-384 or RSA key"
"""The kinds of keys that gRPC's TLS library supports; Ed25519, Ed448, P-521, secp256k1 and ML-DSA
are refused in the handshake.
"""


class NotAnSvidError(ValueError):
    """The certificate or text identifies no workload. The message says why, and quotes nothing of
    it.
    """


def check_id(text: str) -> str:
    """Returns the SPIFFE ID, if it is one of a workload. Raises NotAnSvidError."""
    if len(text) > MAX_BYTES:
        raise NotAnSvidError(f"A SPIFFE ID has at most {MAX_BYTES} bytes here.")
    if not SPIFFE_ID.fullmatch(text):
        raise NotAnSvidError(
            "Its URI is not a SPIFFE ID: spiffe://<trust domain>/<path>, in the one "
            "spelling that is allowed."
        )
    return text


def judged(uris: Sequence[bytes], *, authority: bool, usages: frozenset[str] | None) -> str:
    """Returns the SPIFFE ID of a leaf certificate from its properties. Raises NotAnSvidError.

    `uris` are its URI names as they stand in it, `authority` is cA of its basic constraints,
    `usages` what its key may be used for, in RFC 5280's words; None: it does not say.
    """
    if len(uris) != 1:
        raise NotAnSvidError(
            f"An X.509-SVID has exactly one URI name, and this certificate has {len(uris)}."
        )
    try:
        text = uris[0].decode("ascii")
    except UnicodeDecodeError:
        raise NotAnSvidError("Its URI is not ASCII, and so no SPIFFE ID.") from None
    if authority:
        raise NotAnSvidError(
            "It is a certificate of an authority (CA:TRUE), which is nobody's identity."
        )
    if usages is not None and usages & {"keyCertSign", "cRLSign"}:
        raise NotAnSvidError(
            "Its key may sign certificates or revocation lists (key usage), so it is "
            "nobody's identity."
        )
    if usages is not None and "digitalSignature" not in usages:
        raise NotAnSvidError("Its key may not sign (key usage without digitalSignature).")
    return check_id(text)


def identity_of(certificate: x509.Certificate) -> str:
    """Returns the SPIFFE ID of a leaf certificate whose chain was verified before. Raises
    NotAnSvidError.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        names = _value(certificate, x509.SubjectAlternativeName) or ()
        constraints = _value(certificate, x509.BasicConstraints)
        usage = _value(certificate, x509.KeyUsage)
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        raise NotAnSvidError(
            "Its extensions cannot be read, or one of its names is not ASCII."
        ) from None
    return judged(
        [
            name.value.encode("ascii", "backslashreplace")
            for name in names
            if isinstance(name, x509.UniformResourceIdentifier)
        ],
        authority=constraints is not None and constraints.ca,
        usages=_usages(usage) if usage is not None else None,
    )


def _value(certificate: x509.Certificate, kind: Any) -> Any:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _usages(usage: x509.KeyUsage) -> frozenset[str]:
    bits = {
        "digitalSignature": usage.digital_signature,
        "keyCertSign": usage.key_cert_sign,
        "cRLSign": usage.crl_sign,
    }
    return frozenset(name for name, set_ in bits.items() if set_)
