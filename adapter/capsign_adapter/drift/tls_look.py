"""Looks at a TLS listener from outside, by two handshakes: one that offers TLS 1.2 and older, and
one that takes what is newest.

No request is sent and no certificate shown; what the listener proves is not verified, since only
its parameters are of interest.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from cryptography import x509

TIMEOUT_S = 2.0
"""Longest wait for each step, seconds."""

QUIET_S = 0.5
"""How long a listener has to say that it wants a certificate, seconds: in TLS 1.3 it does so after
the handshake.
"""

NAMES = {"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to look. `wanted`: "demanded" where clients must show a certificate, else "none"."""

    name: str
    host: str
    port: int
    wanted: str


@dataclass(frozen=True, slots=True)
class TlsView:
    """What was negotiated, as `decide.drift.of_tls` takes it, and the life of the certificate,
    milliseconds.
    """

    facts: dict[str, str]
    life_ms: int


def reached(host: str) -> str:
    """The host by which a listener of this process is reached: `host` is what it was bound to."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound to


def look(at: Listener) -> TlsView | None:
    """Returns what was seen; None if the listener could not be reached: then nothing is known."""
    try:
        newest = _newest(at)
        oldest = _oldest(at) if newest is not None else None
    except (OSError, ValueError):
        return None
    if newest is None or oldest is None:
        return None
    return TlsView({**newest.facts, "oldest": oldest, "wanted": at.wanted}, newest.life_ms)


def _newest(at: Listener) -> TlsView | None:
    with (
        socket.create_connection((at.host, at.port), TIMEOUT_S) as plain,
        _context().wrap_socket(plain) as tls,
    ):
        version, cipher = NAMES.get(tls.version() or "", ""), tls.cipher()
        der = tls.getpeercert(binary_form=True)
        if not version or cipher is None or not der:
            return None
        facts = {
            "newest": version,
            "cipher": cipher[0],
            "client-certificate": _asks(tls),
        }
    certificate = x509.load_der_x509_certificate(der)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return TlsView(facts, int(life.total_seconds() * 1000))


def _asks(tls: ssl.SSLSocket) -> str:
    """Whether the listener ends the connection of whoever shows no certificate: with an alert, or,
    as gRPC does, by hanging up.
    """
    tls.settimeout(QUIET_S)
    try:
        return "none" if tls.recv(1) else "demanded"
    except TimeoutError:
        return "none"
    except ssl.SSLError as error:
        return "demanded" if "CERTIFICATE" in (error.reason or "") else "none"
    except OSError:
        return "demanded"


def _oldest(at: Listener) -> str | None:
    """The version that is spoken with who has none newer than TLS 1.2 and no certificate; "1.3":
    none. gRPC hangs up on that one too; who shows a certificate over TLS 1.2 is refused call by
    call (TLS_TOO_OLD).
    """
    context = _context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((at.host, at.port), TIMEOUT_S) as plain:
        try:
            with context.wrap_socket(plain) as tls:
                return NAMES.get(tls.version() or "", "1.2")
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError, ConnectionError):
            return "1.3"  # hung up on; the handshake before this one went well
        except ssl.SSLError as error:
            # Any other alert comes after the version was agreed on.
            return "1.3" if "PROTOCOL_VERSION" in (error.reason or "") else "1.2"
        except TimeoutError:
            return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
