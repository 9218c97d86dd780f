"""The agent's certificate, key and CA: read from files, read again when they change."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
from capsign_wire import settings

from capsign_agent.config import Upstream
from capsign_agent.validity import not_after


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one generation of connections is made with. PEM."""

    ca: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Credentials(...)"

    def channel(self) -> grpc.ChannelCredentials:
        """For one channel."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def read(config: Upstream) -> Credentials:
    """The files as they are now. Raises settings.SettingsError that names the file and the fix."""
    key = settings.read_secret(config.key_file)
    ca, certificate = (_read_pem(path) for path in (config.ca_file, config.cert_file))
    _check(config, ca)
    return Credentials(ca, certificate, key)


def stamp(config: Upstream) -> tuple[object, ...]:
    """Changes when one of the files does. A projected volume swaps a link, so links are followed."""
    marks: list[object] = []
    for path in (config.ca_file, config.cert_file, config.key_file):
        try:
            state = path.stat()
            marks.append((state.st_ino, state.st_mtime_ns, state.st_size))
        except OSError:
            marks.append(None)
    return tuple(marks)


def expired(credentials: Credentials, now: float) -> bool:
    """Whether the certificate is past its notAfter. Asked only after a failure: gRPC says UNAVAILABLE and no more."""
    with contextlib.suppress(ValueError):
        return not_after(credentials.certificate) <= now
    return False


def _check(config: Upstream, ca: bytes) -> None:
    """See that they are what they seem and belong together: gRPC would only ever say that nothing can be reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(config.cert_file, config.key_file, password=b"")
    except (OSError, ValueError):
        raise settings.SettingsError(
            f"The certificate {config.cert_file} and the private key {config.key_file} do not belong together, or one is not PEM "
            "without a passphrase. Write both anew."
        ) from None
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except (OSError, ValueError):
        raise settings.SettingsError(f"The CA file {config.ca_file} is not PEM of certificates. Write it anew.") from None


def _read_pem(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise settings.SettingsError(f"The certificate file {path} cannot be read ({error.strerror}).") from None
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise settings.SettingsError(f"The file {path} holds no PEM certificate.")
    return data
