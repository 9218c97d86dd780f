"""The adapter's side of mTLS: certificates from files, read again when they change, and the options that bound a connection."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import grpc
from capsign_wire import logs
from capsign_wire.bounds import MAX_MESSAGE_BYTES

from capsign_adapter.config import Tls

# What held under HTTP/2 rapid reset in our measurements: bounded streams, metadata, message size and handshake time.
SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_concurrent_streams", 100),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", 20 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
]


class CertificateFiles:
    """Watches the three files. A set that cannot be read leaves the last good one in force, and says so."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._seen = self._stamp()

    def _paths(self) -> tuple[Path, Path, Path]:
        return self._tls.certificate, self._tls.private_key, self._tls.client_ca

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        stats = [path.stat() for path in self._paths()]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read the files and see that they belong together: gRPC would serve nobody and not say why. Raises OSError."""
        certificate, private_key, client_ca = (path.read_bytes() for path in self._paths())
        self._check(client_ca)
        return grpc.ssl_server_certificate_configuration([(private_key, certificate)], root_certificates=client_ca)

    def _check(self, client_ca: bytes) -> None:
        tls, context = self._tls, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(tls.certificate, tls.private_key, password=b"")
        except (ssl.SSLError, ValueError):
            raise OSError(
                f"The certificate {tls.certificate} and the private key {tls.private_key} do not belong together, or one is not "
                "PEM without a passphrase. Write both anew."
            ) from None
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise OSError(f"The CA file {tls.client_ca} is not PEM of certificates. Write it anew.") from None

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks before each handshake: a new configuration, or None for "as before"."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp == self._seen:
                    return None
                fresh = self.load()
            except OSError as error:
                logs.error("tls.reload_failed", errno=error.errno or 0)
                return None
            self._seen = stamp
            logs.event("tls.reloaded")
            return fresh


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate and follow the files."""
    files = CertificateFiles(tls)
    return grpc.dynamic_ssl_server_credentials(
        files.load(),
        files.changed,  # type: ignore[arg-type] # gRPC takes None as "no change"; the stubs do not say so
        require_client_authentication=True,
    )
