"""The log that an adapter's listener serves over HTTPS (C2SP tlog-tiles), as an archive, for
whoever has a certificate that may read entries. Nothing is kept on a disk, no database is asked.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from capsign_evidence.archive.copying import CHECKPOINT, workload_of
from capsign_evidence.archive.interface import ALL, ArchiveError, Batch
from capsign_evidence.archive.tile_directory import FilesArchive
from capsign_evidence.merkle import TILE_WIDTH
from capsign_evidence.tiles import open_batch_file
from capsign_wire import tls_trust
from capsign_wire.shown_url import without_secrets

TIMEOUT_S = 30.0
"""Longest wait for a part of an answer, seconds."""

MOST_BYTES = 32 << 20
"""Most bytes of an answer: a bundle of 256 entries has 16 MiB at most."""


@dataclass(frozen=True, slots=True)
class Reader:
    """PEM files: whom to trust, and who we are. Read anew for each connection, so that they may be
    renewed while the log is followed.
    """

    ca: Path
    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """A TLS context of these files. Raises ArchiveError."""
        try:
            made = tls_trust.context(self.ca.read_text("ascii"))
            made.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None)
            which = getattr(error, "filename", None) or f"{self.ca}, {self.cert} and {self.key}"
            raise ArchiveError(
                f"{which} cannot be used ({why or 'no PEM'}).",
                "Give the adapter's CA, and certificate and key of one reader.",
            ) from None
        return made


class ServedFiles:
    """The files below a URL, one request at a time on one connection, the last answer kept."""

    def __init__(self, url: str, reader: Reader) -> None:
        """Raises ArchiveError if it is no URL of a listener."""
        split = urlsplit(url)
        if not split.hostname or "@" in split.netloc or split.query or split.fragment:
            raise ArchiveError(
                f"{without_secrets(url)} is no address of a served log.",
                "Give https://HOST[:PORT][/PREFIX], and files for who reads.",
            )
        self._host, self._prefix = split.netloc, split.path.rstrip("/")
        self._reader = reader
        self._connection: http.client.HTTPSConnection | None = None
        self._last: tuple[str, bytes | None] = ("", None)

    def read(self, path: str) -> bytes | None:
        if path == CHECKPOINT:
            return self._get(path)
        if self._last[0] != path:
            data = self._get(path)
            if data is None and path.startswith("tile/"):
                raise _not_there(path)
            self._last = path, data
        return self._last[1]

    def has(self, path: str) -> bool:
        return self.read(path) is not None

    def names(self, folder: str) -> list[str]:
        """None: a listener lists nothing."""
        return []

    def batches(self, path: str) -> Iterator[tuple[int, bytes]]:
        yield from open_batch_file(self.read(path) or b"")

    def _get(self, path: str) -> bytes | None:
        used = self._connection is not None
        try:
            status, data = self._ask(path)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A listener gives each connection a short life (`CONNECTION_SECONDS` of ours): one
            # that was good before is made anew. To ask once more changes nothing (RFC 9110, 9.2.2).
            if used and not isinstance(error, TimeoutError):
                return self._get(path)
            said = getattr(error, "verify_message", "") or str(error) or type(error).__name__
            raise self._failed(path, said) from None
        if status == 404:
            return None
        if status != 200 or len(data) > MOST_BYTES:
            self.close()  # the next one is made with the certificate that is there then
            raise self._failed(path, f"HTTP {status}, {len(data)} bytes")
        return data

    def _ask(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer. Raises ArchiveError, OSError or HTTPException."""
        if self._connection is None:
            context = self._reader.context()
            self._connection = http.client.HTTPSConnection(
                self._host, timeout=TIMEOUT_S, context=context
            )
        self._connection.request("GET", f"{self._prefix}/{path}")
        answer = self._connection.getresponse()
        return answer.status, answer.read(MOST_BYTES + 1)

    def _failed(self, path: str, why: str) -> ArchiveError:
        return ArchiveError(
            f"https://{self._host}{self._prefix}/{path} cannot be read ({why}).",
            "See that the listener serves entries to readers (log.public), and that the "
            "certificate has the role auditor, responder or operator.",
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class ServedLog(FilesArchive):
    """A served log up to the checkpoint that was seen when its size was last asked: what is read
    does not run ahead of what was asked for. One replica may be a checkpoint behind another, so a
    file that is not there yet is no sign of damage.
    """

    def __init__(self, url: str, reader: Reader) -> None:
        self._served = ServedFiles(url, reader)
        super().__init__(self._served)
        self._seen = 0

    @property
    def size(self) -> int:
        self._seen = super().size
        return self._seen

    def _extent(self) -> int:
        return self._seen or self.size

    def batches(self, first_leaf: int, count: int = ALL) -> Iterator[Batch]:
        end = min(first_leaf + count, self._extent())
        while first_leaf < end:
            upto = min((first_leaf // TILE_WIDTH + 1) * TILE_WIDTH, end)
            found = list(super().batches(first_leaf, upto - first_leaf))
            if not found and any(map(workload_of, self.entries(first_leaf, upto - first_leaf))):
                raise _not_there(f"batches of leaves {first_leaf} to {upto - 1}")
            yield from found
            first_leaf = upto

    def close(self) -> None:
        self._served.close()


def _not_there(what: str) -> ArchiveError:
    return ArchiveError(
        f"The listener does not have {what}.",
        "Another replica may be further: try again. If it stays so, compare its checkpoints.",
    )
