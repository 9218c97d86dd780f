"""The adapter's side of mTLS: certificates from files, read again when they change, and the options
that bound a connection.

`serving.py` is the other source of a certificate: our own authority.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from capsign_wire import bounds, logs, pem

from capsign_adapter.front.server_certificate import Validity, lasting, servable
from capsign_adapter.sign.clock import now_ms

STREAMS_OF_A_CONNECTION = 256
"""RPCs at once on a connection, far above what an agent has; more wait in their client.
`peer_quota` bounds how many each peer may have.
"""

UNSEEN = 2048
"""RPCs of one method that gRPC has accepted and that have no thread yet. It cancels those above
this bound without a typed failure; with its default it would cancel some at random from 1,000 on.
"""

# What held under HTTP/2 rapid reset in our measurements: bounded streams, metadata, message size
# and handshake time.
SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_concurrent_streams", STREAMS_OF_A_CONNECTION),
    # Off: it counts streams that are not quite gone, and refuses an honest client's calls without a
    # word of ours (decision 22).
    ("grpc.http.overload_protection", 0),
    ("grpc.http2.ping_on_rst_stream_percent", 100),
    ("grpc.server.max_pending_requests", UNSEEN),
    ("grpc.server.max_pending_requests_hard_limit", UNSEEN),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # What nobody has asked for yet stays below 64 KiB for each stream: a window that follows the
    # speed of the peer grows to 64 MiB.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_send_message_length", 20 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),  # pings are answered: decision 80
    # Identity only: a gzip message of 4 KiB may otherwise become 4 MiB before anybody has looked at
    # it.
    ("grpc.compression_enabled_algorithms_bitset", 1),
]

AGAIN_S = 1.0
"""Seconds before files that could not be used are read again although nobody wrote them since: a
certificate may have become valid. Not at every handshake, since strangers cause those.
"""

OLD_IN_USE_S = 0.05
"""How long gRPC waits for a new configuration, seconds; see `dynamic_credentials`."""


def server_options(connections: int, message_bytes: int) -> list[tuple[str, int]]:
    """gRPC options of a listener with at most `connections` at once and requests of at most
    `message_bytes`.

    Connections above the bound are closed before their handshake. None ends because it is idle:
    agents keep theirs open on purpose.
    """
    return [
        *SERVER_OPTIONS,
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_receive_message_length", bounds.taken_bytes(message_bytes)),
    ]


class CertificateFiles:
    """Certificate, key and CA from files, read again when they change. If the new files cannot be
    used, the last good ones stay in force and an error is logged.
    """

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None) -> None:
        """Without `client_ca`, clients are not asked for a certificate."""
        self._certificate = certificate
        self._private_key = private_key
        self._client_ca = client_ca
        self._lock = threading.Lock()
        self.validity = Validity(0, 0)
        """Of the certificate that is served."""
        self._seen = self._stamp()
        self._bad: tuple[tuple[int, int, int], ...] | None = None
        """The stamp of files that could not be used; empty: they could not be found."""
        self._again = 0.0

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        paths = (self._certificate, self._private_key, self._client_ca)
        return tuple(stamp(path) for path in paths if path is not None)

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read the files and check that they belong together: gRPC would otherwise fail every
        handshake without saying why. Raises OSError.
        """
        certificate, private_key = read(self._certificate), pem.lines(read(self._private_key))
        try:
            certificate = pem.written(pem.certificates(certificate))
            _demand_pair(certificate, private_key)
        except (ssl.SSLError, ValueError):
            raise OSError(
                f"The certificate {self._certificate} and the private key "
                f"{self._private_key} do not belong together, or one is "
                "not PEM without a passphrase. Write both anew."
            ) from None
        roots = read_authorities(self._client_ca) if self._client_ca is not None else None
        self.validity = servable(self._certificate, certificate, now_ms())
        return grpc.ssl_server_certificate_configuration(
            [(private_key, certificate)], root_certificates=roots
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake. Returns a new configuration, or None if nothing
        changed.
        """
        with self._lock:
            fresh, error = self._reload()
        if error is not None:
            logs.error("tls.reload_failed", errno=error.errno or 0)
        if fresh is not None:
            logs.event("tls.reloaded")
        return fresh

    def look(self) -> Validity:
        """Returns the validity of the certificate in the files; of the last good one if these
        cannot be used. For health checks, which hand nothing to gRPC.
        """
        with self._lock:
            self._reload()
        return self.validity

    def _reload(self) -> tuple[grpc.ServerCertificateConfiguration | None, OSError | None]:
        """Returns the new configuration, or the error of files that cannot be used. An error is
        returned once for each state of the files.
        """
        seen: tuple[tuple[int, int, int], ...] = ()
        try:
            seen = self._stamp()
            if seen == self._seen or (seen == self._bad and time.monotonic() < self._again):
                return None, None
            fresh = self.load()
        except OSError as error:
            known, self._bad, self._again = self._bad, seen, time.monotonic() + AGAIN_S
            return None, None if seen == known else error
        self._seen, self._bad = seen, None
        return fresh, None

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files."""
        return dynamic_credentials(
            self.load(), self.changed, demand_certificate=self._client_ca is not None
        )


def _demand_pair(certificate: bytes, private_key: bytes) -> None:
    """Raises ssl.SSLError or ValueError if certificate and key do not belong together. OpenSSL
    reads a pair from a path only, so it is given an anonymous file in memory.
    """
    descriptor = os.memfd_create("pair", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(certificate + private_key)
        file.flush()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            f"/proc/self/fd/{descriptor}", password=b""
        )


def read(path: Path) -> bytes:
    """A file's content. Raises OSError that names the file and the fix."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> OSError:
    why = (error.strerror or type(error).__name__).lower()
    told = OSError(
        f"The file {path} cannot be read ({why}). Correct the path in the section [tls], "
        f"or the file's mode."
    )
    told.errno = error.errno
    return told


def stamp(path: Path) -> tuple[int, int, int]:
    """Returns inode, modification time (ns) and size: they change when a file is replaced or
    written. Raises OSError.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def read_authorities(path: Path, *, demand_lasting: bool = True) -> bytes:
    """Returns the certificates of a file as PEM, without any text around them. Raises OSError that
    names the fix; with `demand_lasting` also if none of them is valid now.
    """
    content = read(path)
    try:
        found = pem.authorities(content)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=b"".join(found))
    except (ssl.SSLError, ValueError):
        raise OSError(f"The CA file {path} is not PEM of certificates. Write it anew.") from None
    content = pem.written(found)
    if demand_lasting:
        lasting(path, content, now_ms())
    return content


def dynamic_credentials(
    first: grpc.ServerCertificateConfiguration,
    changed: Callable[[], grpc.ServerCertificateConfiguration | None],
    *,
    demand_certificate: bool,
) -> grpc.ServerCredentials:
    """Returns credentials that call `changed` before each handshake. It must answer at once: a new
    configuration, or None if nothing changed.

    gRPC calls it under a lock and frees the old configuration there as soon as it has a new one.
    But a handshake takes up the current configuration just after it has released that lock, so one
    that asked a moment ago may use memory that was freed, and the process dies. Hence a new
    configuration is returned after a pause: meanwhile the handshakes that asked before go on, and
    all others wait for the lock.
    """

    def unhurried() -> grpc.ServerCertificateConfiguration | None:
        fresh = changed()
        if fresh is not None:
            time.sleep(OLD_IN_USE_S)
        return fresh

    return grpc.dynamic_ssl_server_credentials(
        first,
        unhurried,  # type: ignore[arg-type] # gRPC takes None as "no change"; the stubs do not say so
        require_client_authentication=demand_certificate,
    )
