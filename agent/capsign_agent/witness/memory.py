"""What an agent remembers of the log over a restart of its container, in a directory beside its
journal: the log's key, the last checkpoint, and each split view.

Every file is written whole under another name, made durable, and renamed: a crash leaves the old
one or the new one. Nothing here is deleted by the agent: a person does that (decision 61).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from capsign_evidence.note import NoteError, VerifierKey
from capsign_evidence.split_view import MAX_FILE_LEN, SplitView
from capsign_wire import logs

from capsign_agent.journal.directory import JournalError
from capsign_agent.witness.log_view import LogView, SplitViewError

FOLDER = "witness"
"""Name of the directory, in that of the journal."""


class WitnessMemory:
    """For one process: the journal's lock covers it."""

    def __init__(self, journal: Path, log_key: str = "", adapters: Collection[str] = ()) -> None:
        """`log_key`: the log's key as configured, in text form; empty: the one that was learned.
        `adapters`: the addresses that are configured.
        """
        self._folder = journal / FOLDER
        self._configured = log_key
        self._adapters = adapters

    def view(self) -> LogView:
        """What was seen before. Raises JournalError if it cannot be read, or is of another log."""
        key = self._key()
        note = self._read("checkpoint")
        if note is None:
            return LogView(key)
        if key is None:
            raise self._unusable("checkpoint", "there is no log-key beside it")
        try:
            return LogView(key, LogView(key).read(note, ""))
        except SplitViewError as error:
            raise self._unusable("checkpoint", str(error)) from None

    def split_views(self) -> list[SplitView]:
        """Those that were found and not taken away by a person. A file that cannot be read is
        logged and left out.
        """
        found = []
        for path in sorted(self._folder.glob("split-view-*.json")):
            try:
                with path.open("rb") as file:
                    found.append(SplitView.parse(file.read(MAX_FILE_LEN + 1)))
            except (OSError, ValueError, RecursionError) as error:
                logs.error("witness.unreadable", file=path.name, why=str(error))
        return found

    def distrusted(self) -> set[str]:
        """The addresses that are not used any more: those that split views name, and each
        configured one whose file is there, whatever is in it.
        """
        named = {one.adapter for one in self.split_views()}
        return named | {one for one in self._adapters if os.path.lexists(self._split_view(one))}

    def remember(self, view: LogView) -> None:
        """Keep what was seen last. It is durable when this returns. A disk that takes nothing is
        logged: it is remembered as long as the process lives.
        """
        assert view.key is not None
        assert view.seen is not None
        self._write("log-key", f"{view.key.text()}\n".encode())
        self._write("checkpoint", view.seen.note)

    def keep(self, split: SplitView) -> str:
        """Keep a split view, one for each address; returns the path of its file."""
        path = self._split_view(split.adapter)
        if not os.path.lexists(path):
            self._write(path.name, split.encode())
        return str(path)

    def _split_view(self, adapter: str) -> Path:
        name = hashlib.sha256(adapter.encode()).hexdigest()[:16]
        return self._folder / f"split-view-{name}.json"

    def _key(self) -> VerifierKey | None:
        learned = self._read("log-key")
        try:
            if self._configured:
                return VerifierKey.parse(self._configured)
            return VerifierKey.parse(learned.decode().strip()) if learned is not None else None
        except (NoteError, UnicodeDecodeError) as error:
            raise self._unusable("log-key", str(error)) from None

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(name, error.strerror or "") from None

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if not _holds(path, data):
                _put_in_place(path, data)
        except OSError as error:
            logs.warning("witness.not_kept", file=name, error=error.strerror or "")

    def _unusable(self, name: str, why: str) -> JournalError:
        return JournalError(
            f"What this agent has seen of the log cannot be used: {self._folder / name} ({why}). "
            f"Keep the directory for a responder, and move it away."
        )


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file has these bytes already. One that cannot be read has not."""
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _put_in_place(path: Path, data: bytes) -> None:
    """Put these bytes in the place of a file, durably. Raises OSError."""
    scratch = path.with_name(f".{path.name}.new")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
