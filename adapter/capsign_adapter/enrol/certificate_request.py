"""Reads a certificate request (PKCS#10, RFC 2986): a P-256 key that signed it, and no name but a
SPIFFE ID.

Only the key goes into the certificate. A request for more (a subject, another kind of name, the
rights of a certificate authority) is refused and not ignored: it is a mistake or an attack.
"""

from __future__ import annotations

from dataclasses import dataclass

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_BYTES = 4096
"""Longest request, bytes; a plain one for P-256 has about 190."""

_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for bytes that are not a request; not all of it is a ValueError."""

_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")  # RFC 2985 5.4.2


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A well-formed request, signed by its own key. `spki` is DER; `names` are its URIs."""

    spki: bytes
    names: tuple[str, ...]


def read(der: bytes) -> CertificateRequest:
    """Returns the request. Raises FailureError CERTIFICATE_REQUEST_REFUSED, whose sentence repeats
    nothing of it.
    """
    if not 0 < len(der) <= MAX_BYTES:
        raise _refused(f"It has 1 to {MAX_BYTES} bytes.")
    try:
        request = x509.load_der_x509_csr(der)
        # DER: a string of whole bytes has no unused bits (X.690, 8.6.2)
        if not der.endswith(b"\x00" + request.signature):
            raise _refused("Its signature is not spelt as DER.")
        return _checked(request)
    except _UNREADABLE:
        raise _refused("It is not a PKCS#10 request in DER.") from None


def _checked(request: x509.CertificateSigningRequest) -> CertificateRequest:
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("Its key is not one for P-256.")
    if (
        not isinstance(request.signature_hash_algorithm, hashes.SHA256)
        or not request.is_signature_valid
    ):
        raise _refused("It is not signed by its own key with SHA-256.")
    if request.subject.rdns:
        raise _refused("It has a subject; leave that empty.")
    attributes = list(request.attributes)
    if len(attributes) > 1 or any(attribute.oid != _EXTENSION_REQUEST for attribute in attributes):
        raise _refused("It has attributes besides one extension request.")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CertificateRequest(
        spki, tuple(name for extension in request.extensions for name in _uris(extension))
    )


def _uris(extension: x509.Extension[x509.ExtensionType]) -> list[str]:
    names = extension.value
    if not isinstance(names, x509.SubjectAlternativeName):
        raise _refused("It asks for an extension other than subjectAltName.")
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if len(uris) != len(list(names)):
        raise _refused("It asks for a name that is no URI.")
    if len(uris) > 1:
        raise _refused("It asks for several URIs; an X.509-SVID has one.")
    return uris


def _refused(what: str) -> FailureError:
    return FailureError(
        failures_pb2.REASON_CERTIFICATE_REQUEST_REFUSED,
        f"The certificate request cannot be taken. {what}",
        field="certificate_request",
    )
