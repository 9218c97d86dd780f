"""Certificate, key and authorities in files that somebody else renews, for example cert-manager's
CSI driver. They are read again when they change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

from capsign_wire import settings

from capsign_agent.config import Files
from capsign_agent.identity.credentials import Credentials, CredentialsError, checked
from capsign_agent.identity.events import IdentityEvents
from capsign_agent.identity.source import IdentityError
from capsign_agent.timing import Timing


class FilesIdentity:
    """See `IdentitySource`."""

    def __init__(self, config: Files, events: IdentityEvents, timing: Timing) -> None:
        """Reads the files. Raises SettingsError."""
        self._config = config
        self._events = events
        self._look_every_s = timing.look_at_files_s
        self._seen = _stamp(config)
        self._first = read(config)

    async def changes(self) -> AsyncGenerator[Credentials, None]:
        self._events.issued("files", self._first)
        yield self._first
        while True:
            await asyncio.sleep(self._look_every_s)
            now = _stamp(self._config)
            if now == self._seen:
                continue
            try:
                fresh = read(self._config)
            except settings.SettingsError as error:
                # Half replaced perhaps: those in use stay in use.
                self._events.hindered(IdentityError("CREDENTIALS_UNUSABLE", str(error)))
                continue
            self._seen = now
            self._events.renewed("files", fresh)
            yield fresh

    def authorities_changed(self, sequence: int) -> None:
        """Does nothing: whoever writes the certificate writes the authorities too."""


def read(config: Files) -> Credentials:
    """The files as they are now. Raises settings.SettingsError with the name of the file and the
    fix.
    """
    key = settings.read_secret(config.key_file)
    ca, certificate = (_read_pem(path) for path in (config.ca_file, config.cert_file))
    try:
        return checked(ca, certificate, key)
    except CredentialsError as error:
        if error.part == "authorities":
            raise settings.SettingsError(
                f"The CA file {config.ca_file} is not PEM of certificates. Write it anew."
            ) from None
        if error.part == "certificate":
            why = error.why or "It is none that can be read."
            raise settings.SettingsError(
                f"The certificate {config.cert_file} cannot be used. {why}"
            ) from None
        raise settings.SettingsError(
            f"The certificate {config.cert_file} and the private key {config.key_file} do "
            f"not belong together, or one is not PEM "
            "without a passphrase. Write both anew."
        ) from None


def demand_valid(config: Files, held: Credentials, now: float) -> None:
    """Raises SettingsError if the certificate is not valid by this clock. For `--check-config`
    only: a running agent waits for another file, and the adapter's clock decides.
    """
    for wrong, what, when in (
        (now < held.begins, "begins", held.begins),
        (now >= held.ends, "ended", held.ends),
    ):
        if wrong:
            raise settings.SettingsError(
                f"The certificate {config.cert_file} is not valid: it {what} at "
                f"{_moment(when)}, and this machine's clock says "
                f"{_moment(now)}. Have another issued, or set the clock."
            )


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _stamp(config: Files) -> tuple[object, ...]:
    """A value that changes when one of the files does. Links are followed, because a projected
    volume is updated by replacing a link.
    """
    marks: list[object] = []
    for path in (config.ca_file, config.cert_file, config.key_file):
        try:
            state = path.stat()
            marks.append((state.st_ino, state.st_mtime_ns, state.st_size))
        except OSError:
            marks.append(None)
    return tuple(marks)


def _read_pem(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise settings.SettingsError(
            f"The certificate file {path} cannot be read ({error.strerror})."
        ) from None
    if b"CERTIFICATE-----" not in data:
        raise settings.SettingsError(f"The file {path} holds no PEM certificate.")
    return data
