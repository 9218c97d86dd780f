"""How far an export has come, in a file that is written only after the sink took what is before it.

So each event is exported at least once, whatever ends the export; `metadata.uid` tells a receiver
which it has. The file also holds what makes it wrong to go on: another log, another selection, or a
log that is not the one of last time.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from capsign_cli.failures import REFUSED, USAGE, CliError

FORMAT = "capsign-export-cursor@v1"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Next: the event of leaf `leaf` behind the first `taken` of that leaf. `events`: how many were
    exported in all.

    `last_hash` is the leaf hash (RFC 6962) of the leaf before, empty at the beginning. `purpose`
    says in one line what is exported to where in which form. `since_ms` and `until_ms` are the
    times between which events are exported, as the first run understood them: two hours ago is
    another time after an outage, and what lies between would be lost.
    """

    origin: str
    purpose: str
    leaf: int = 0
    taken: int = 0
    events: int = 0
    last_hash: str = ""
    since_ms: int = 0
    until_ms: int = 1 << 64

    def after(self, leaf: int, taken: int, events: int) -> Cursor:
        """The cursor when so many more events were taken, the last of them of that place."""
        return replace(self, leaf=leaf, taken=taken, events=self.events + events)


class CursorFile:
    """Keeps a cursor; without a path only in memory. Written to disk and then renamed: it is there
    in whole, of before or of after.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self, beginning: Cursor) -> Cursor:
        """The cursor of last time; without one `beginning`, which is kept before anything is
        exported. Raises CliError if the file is another export's.
        """
        if self._path is None or not self._path.exists():
            self.write(beginning)
            return beginning
        try:
            fields = json.loads(self._path.read_text(encoding="utf-8"))
            kind = fields.pop("format")
            found = Cursor(**fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            kind, found = "", Cursor("", "")
        if kind != FORMAT:
            raise self._wrong("is no cursor of an export.")
        if found.origin != beginning.origin:
            raise self._wrong(f"is of the log {found.origin}, and this is {beginning.origin}.")
        if found.purpose != beginning.purpose:
            raise self._wrong(f"is of another export: {found.purpose}.")
        return found

    def _wrong(self, what: str) -> CliError:
        advice = "Give --cursor another file; each export has its own."
        return CliError(USAGE, "OTHER_CURSOR", f"{self._path} {what}", advice)

    def write(self, cursor: Cursor) -> None:
        """Keep it. It survives a crash of the machine when this returns."""
        if self._path is None:
            return
        fields = {"format": FORMAT} | {
            name: getattr(cursor, name) for name in Cursor.__dataclass_fields__
        }
        partial = self._path.with_name(f".{self._path.name}.partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(fields, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        sync_directory(self._path.parent)


def sync_directory(path: Path) -> None:
    """Make what was renamed in a directory survive a crash."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def must_continue(cursor: Cursor, first: int, size: int, last_hash: str) -> None:
    """Raise CliError unless the archive, which holds leaves `first` to `size`, continues what was
    exported. `last_hash` is that of the leaf before the cursor as the archive has it.
    """
    if cursor.leaf > size:
        text = f"{cursor.leaf:,} leaves were exported, and the archive has {size:,}."
        advice = "It is an older copy, or the log was rolled back: see capsign audit verify."
        raise CliError(REFUSED, "ROLLED_BACK", text, advice)
    if cursor.leaf < first:
        text = f"Leaves {cursor.leaf:,} to {first - 1:,} were moved away, and are not exported."
        advice = "Name their directory too: STORE,COLDDIR."
        raise CliError(REFUSED, "MOVED_AWAY", text, advice)
    if cursor.last_hash and last_hash and cursor.last_hash != last_hash:
        text = f"Leaf {cursor.leaf - 1:,} is another entry than the one that was exported."
        advice = "Keep both, and see capsign audit verify: the log has been rewritten."
        raise CliError(REFUSED, "REWRITTEN", text, advice)
