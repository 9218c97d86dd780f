"""Makes TLS contexts of clients that trust the given certificates and no others, or those that the
system trusts, with any version of Python.

`ssl.create_default_context` must not be used: from Python 3.13 on it refuses authorities and
servers without certain extensions (key usage, authority key identifier), which are common and which
gRPC accepts. It also writes the secrets of every connection into a file that SSLKEYLOGFILE names. A
test checks that no other module makes such a context.
"""

from __future__ import annotations

import ssl

_OUT_OF_TIME = frozenset({9, 10})
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def context(
    authorities: bytes | str, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """Returns a context that verifies the server and its name. `authorities` are DER in bytes, or
    PEM in text. Raises ssl.SSLError, ValueError.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = minimum
    made.load_verify_locations(cadata=authorities)
    return made


def of_the_system() -> ssl.SSLContext:
    """Returns a context that verifies the server and its name by the authorities that the system
    trusts, for servers of others: TLS 1.2 or later.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_default_certs()
    return made


def out_of_time(error: ssl.SSLCertVerificationError) -> bool:
    """Whether the only fault of the server's certificate is that it is not valid by this machine's
    clock.
    """
    return error.verify_code in _OUT_OF_TIME
