"""Looks for needles in everything that a living process can read: its memory, environment, command
line and open files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

NEEDLE_LEN = 16
"""Bytes. Longer forms are looked for in pieces: half a key is a find too."""

CHUNK = 4 << 20
"""Bytes looked at in one go; chunks overlap by what a needle could straddle."""


@dataclass(frozen=True, slots=True)
class Find:
    """A needle and where it was."""

    name: str
    where: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found, and how much was looked at: a scan of nothing finds nothing."""

    finds: tuple[Find, ...]
    scanned: int

    def names(self) -> set[str]:
        return {find.name for find in self.finds}


class Needles:
    """Sixteen-byte strings by name; equal ones are looked for once."""

    def __init__(self, named: Mapping[str, bytes]) -> None:
        self._names: dict[bytes, list[str]] = {}
        for name, needle in named.items():
            if len(needle) != NEEDLE_LEN or not any(needle):
                raise ValueError(f"{name} is no {NEEDLE_LEN} bytes that mean something")
            self._names.setdefault(needle, []).append(name)

    def __len__(self) -> int:
        return len(self._names)

    def within(self, data: bytes) -> Iterator[tuple[str, int]]:
        """Names and offsets; the first place of each."""
        for needle, names in self._names.items():
            at = data.find(needle)
            if at >= 0:
                yield from ((name, at) for name in names)


def scan_process(pid: int, needles: Needles) -> Scan:
    """Everything of a process. Needs to be root where the process has made itself unreadable, as
    the agent has.
    """
    memory = scan_memory(pid, needles)
    finds, scanned = list(memory.finds), memory.scanned
    for name in ("environ", "cmdline"):
        data = Path(f"/proc/{pid}/{name}").read_bytes()
        scanned += len(data)
        finds += [Find(needle, name) for needle, _ in needles.within(data)]
    files = scan_files(
        {path.resolve() for path in Path(f"/proc/{pid}/fd").iterdir() if path.resolve().is_file()},
        needles,
    )
    return Scan((*finds, *files.finds), scanned + files.scanned)


def scan_memory(pid: int, needles: Needles) -> Scan:
    """All readable mappings, file-backed ones too."""
    finds: list[Find] = []
    scanned = 0
    with (
        Path(f"/proc/{pid}/maps").open() as maps,
        Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory,
    ):
        regions = [line.split(maxsplit=5) for line in maps]
        for span, mode, *rest in regions:
            name = rest[3].strip() if len(rest) > 3 else "anonymous"
            if not mode.startswith("r") or name in {"[vvar]", "[vvar_vclock]", "[vsyscall]"}:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            for at, data in _chunks(memory, start, end):
                scanned += len(data)
                finds += [
                    Find(needle, f"{name} at {at + offset:#x}")
                    for needle, offset in needles.within(data)
                ]
    return Scan(tuple(finds), scanned)


def scan_files(paths: Iterable[Path], needles: Needles) -> Scan:
    """The whole content of files."""
    finds: list[Find] = []
    scanned = 0
    for path in paths:
        data = path.read_bytes()
        scanned += len(data)
        finds += [Find(needle, str(path)) for needle, _ in needles.within(data)]
    return Scan(tuple(finds), scanned)


def _chunks(memory: RawIOBase, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    at = start
    while at < end:
        memory.seek(at)
        try:
            data = memory.read(min(CHUNK, end - at))
        # a hole that the mapping promises and the kernel does not give, such as beyond the end of a
        # file
        except OSError:
            at += 4096
            continue
        if not data:
            return
        # Untouched pages read as zeros; a needle is never all zeros.
        if data.count(0) != len(data):
            yield at, data
        if at + len(data) >= end:
            return
        at += len(data) - NEEDLE_LEN + 1
