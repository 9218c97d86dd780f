"""The trust bundle: the authorities that this pod trusts, and their sequence, kept across restarts
of the container.

The bundle that the pod was created with (the injected bundle) has no sequence. It is trusted until
an adapter names another one over a connection that the current bundle authenticates. From then on
only a bundle with a higher sequence replaces it, and never the injected one, whose authorities may
be retired by then.

The file is PEM after one line, `capsign trust bundle <sequence> sha256 <hex digest of what
follows>`. It is written beside, synced and renamed, mode 0600, so a crash leaves the old file or
the new one. Only the agent mounts the volume; the digest detects damage, not tampering.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from capsign_wire import logs, settings
from capsign_wire.adapter.v1 import identity_pb2
from capsign_wire.pem import written as pem_of

from capsign_agent.config import MAX_BUNDLE_CHARS
from capsign_agent.identity.credentials import CredentialsError, check_authorities

FILE_NAME = "trust-bundle.pem"

_HEAD = re.compile(rb"capsign trust bundle (\d{1,20}) sha256 ([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class Trust:
    """What is trusted now. `sequence` is 0 for the bundle that the pod was created with."""

    sequence: int
    pem: bytes


def encode(trust: Trust) -> bytes:
    """The file's bytes."""
    digest = hashlib.sha256(trust.pem).hexdigest()
    return f"capsign trust bundle {trust.sequence} sha256 {digest}\n".encode() + trust.pem


def decode(data: bytes) -> Trust:
    """Read the file's bytes. Raises ValueError if they are damaged."""
    head = _HEAD.match(data)
    if head is None:
        raise ValueError("no head line")
    pem = data[head.end() :]
    if hashlib.sha256(pem).hexdigest() != head[2].decode():
        raise ValueError("not what was written")
    return Trust(int(head[1]), _checked(pem))


def injected(pem: str) -> Trust:
    """The bundle that the pod was created with. Raises SettingsError if it is malformed."""
    try:
        return Trust(0, _checked(pem.encode()))
    except ValueError:
        raise settings.SettingsError(
            "The key `identity.kubernetes.bundle` is not PEM of certificates. Write the "
            "adapter's trust bundle there.",
            key="identity.kubernetes.bundle",
        ) from None


class TrustStore:
    """The current bundle and its file. For one event loop, and one process at a time: the journal's
    lock keeps others out.
    """

    def __init__(self, directory: Path, pem: str) -> None:
        """Reads the bundle that was kept, or else the injected one. Raises SettingsError if that is
        malformed or the directory cannot be made.
        """
        self.now = injected(pem)
        self._file = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise settings.SettingsError(
                f"The directory {directory} cannot be made ({error.strerror}). Set "
                f"identity.kubernetes.state_dir to a place on a "
                "volume of the agent's own.",
                key="identity.kubernetes.state_dir",
            ) from None
        self._recall()

    def offer(self, bundle: identity_pb2.TrustBundle) -> bool:
        """Take a bundle that an adapter named, if it is newer; returns whether it was. It is
        durable when this returns.

        If the disk refuses it, it is used all the same; a restart would then begin with the older
        one. Raises ValueError if the bundle is malformed.
        """
        if bundle.sequence <= self.now.sequence:
            if bundle.sequence < self.now.sequence:
                logs.warning(
                    "identity.bundle_older", offered=bundle.sequence, held=self.now.sequence
                )
            return False
        self.now = Trust(bundle.sequence, _checked(pem_of(bundle.authorities)))
        try:
            self._keep()
        except OSError as error:
            logs.error("identity.bundle_not_kept", error)
        logs.event(
            "identity.bundle_changed", sequence=bundle.sequence, authorities=len(bundle.authorities)
        )
        return True

    def _recall(self) -> None:
        try:
            descriptor = os.open(
                self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return
        except OSError as error:
            logs.error("identity.bundle_unreadable", error)
            return
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(2 * MAX_BUNDLE_CHARS)
        try:
            self.now = decode(data)
        except ValueError as error:
            logs.error("identity.bundle_damaged", error)

    def _keep(self) -> None:
        beside = self._file.with_suffix(".new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(self.now))
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._file)
        directory = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _checked(pem: bytes) -> bytes:
    """Raises ValueError."""
    try:
        return check_authorities(pem)
    except CredentialsError as error:
        raise ValueError(str(error)) from None
