"""The agent's certificate, its key and the authorities it trusts."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

import grpc
from capsign_wire import pem, svid

from capsign_agent.identity import own_certificate


class CredentialsError(Exception):
    """The files do not belong together or are not what they should be. `part` says which of them,
    `why` is a sentence where there is more to say. It quotes nothing of their content.
    """

    def __init__(self, part: str, why: str = "") -> None:
        self.part = part
        self.why = why
        super().__init__(f"the {part} cannot be used. {why}".removesuffix(" ").removesuffix("."))


@dataclass(frozen=True, slots=True)
class Credentials:
    """Certificate, key and authorities as PEM; made by `checked`. The certificate names `spiffe_id`
    and is valid from `begins` to `ends`, seconds since 1970.
    """

    ca: bytes
    certificate: bytes
    key: bytes
    ends: float
    begins: float = 0.0
    spiffe_id: str = ""
    key_hash: bytes = b""
    """SHA-256 of the certificate's SubjectPublicKeyInfo, as entries about signatures name it."""

    def __repr__(self) -> str:
        return "Credentials(...)"

    def channel(self) -> grpc.ChannelCredentials:
        """As gRPC's channel credentials."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def checked(ca: bytes, certificate: bytes, key: bytes) -> Credentials:
    """Check that certificate, key and authorities are well formed and belong together; gRPC would
    only report that nothing can be reached. Raises CredentialsError. Whether the certificate is
    valid now is not checked, because the adapter's clock decides that.
    """
    try:
        certificate, key = pem.written(pem.certificates(certificate)), pem.lines(key)
    except ValueError:
        raise CredentialsError("certificate") from None
    _pair(certificate, key)
    ca = check_authorities(ca)
    try:
        own = own_certificate.read(certificate)
    except svid.NotAnSvidError as error:
        raise CredentialsError("certificate", f"It is no X.509-SVID. {error}") from None
    except ValueError:
        raise CredentialsError("certificate") from None
    if not own.key:
        raise CredentialsError(
            "certificate",
            f"Its key is of a kind that gRPC does not show. Issue one {svid.KEYS_SHOWN}.",
        )
    return Credentials(ca, certificate, key, own.ends, own.begins, own.spiffe_id, own.key_hash)


def check_authorities(ca: bytes) -> bytes:
    """The certificates in this PEM, without the text around them. Raises CredentialsError."""
    try:
        found = pem.authorities(ca)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(found))
    except (OSError, ValueError):
        raise CredentialsError("authorities") from None
    return pem.written(found)


def _pair(certificate: bytes, key: bytes) -> None:
    """Check that key and certificate fit. OpenSSL loads a pair from a path only; this path is an
    anonymous file in memory that no other process can open.
    """
    descriptor = os.memfd_create("credentials", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(certificate + b"\n" + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
    except (OSError, ValueError):
        raise CredentialsError("certificate and private key") from None
    finally:
        os.close(descriptor)
