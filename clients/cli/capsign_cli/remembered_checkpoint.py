"""The last checkpoint that an auditor saw, kept in a file. The log must extend it the next time."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from capsign_cli import transparency
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError


class RememberedCheckpoint:
    """The checkpoint in `file`, verified. `head` is None if the file does not exist yet.

    A crash or a full disk leaves the checkpoint that was there. Raises CliError and OSError.
    """

    def __init__(self, file: Path, log_key: str) -> None:
        self._file = file.resolve()
        # Seen now, and not after an hour of hashing.
        if not os.access(self._file.parent, os.W_OK):
            text = f"{self._file.parent} is no directory that we may write to."
            raise CliError(USAGE, "FILE", text, "Give --remember another file.")
        self._note = self._read()
        self.head: transparency.Head | None = None
        if self._note is None:
            return
        try:
            self.head = transparency.open_checkpoint(self._note, log_key)
        except CliError as error:
            advice = (
                "It is another log's, or damaged: look at it, and at your backup, before you "
                "go on without it."
            )
            text = f"What {file} remembers does not hold. {error.told.message}"
            raise CliError(error.told.exit_code, error.told.reason, text, advice) from None

    def replace(self, note: bytes) -> None:
        """Store this checkpoint, which extends the one that is there. It is durable when this
        returns.
        """
        if self._read() != self._note:
            # That run may have seen a larger tree, or another one: what was compared here is not
            # what would be overwritten.
            text = f"Another run has written {self._file} meanwhile."
            raise CliError(UNAVAILABLE, "REMEMBERED_BY_ANOTHER", text, "Run it again.")
        _write(self._file, note)

    def keep_beside(self, note: bytes) -> str:
        """Store a checkpoint that contradicts the remembered one, or its own log, in another file;
        returns a sentence that says where.
        """
        beside = self._file.with_name(
            f"{self._file.name}.refused-{hashlib.sha256(note).hexdigest()[:8]}"
        )
        try:
            _write(beside, note)
        except OSError as error:
            return f"What the log showed could not be kept: {error.strerror}."
        return f"What the log showed is in {beside}."

    def _read(self) -> bytes | None:
        try:
            return self._file.read_bytes()
        except FileNotFoundError:
            return None


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
