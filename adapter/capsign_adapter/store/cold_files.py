"""Reads leaves that were moved to cold files: the directory of tiles that `sign/retention.py` fills
and `capsign audit` reads too.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from capsign_evidence.archive.interface import Archive, ArchiveError
from capsign_evidence.archive.tile_directory import DirectoryArchive
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.store.cold_reads import ColdReads


class ColdFiles:
    """Every method raises FailureError COLD_FILES_MISSING, where they do not answer in time too.
    Safe for any thread.
    """

    def __init__(self, directory: Path | None, reads: ColdReads | None = None) -> None:
        self._directory = directory
        self._reads = reads or ColdReads()

    def entries(self, size: int, first: int, count: int) -> list[bytes]:
        """Entries from leaf `first`, of `size` that were moved."""
        try:
            return self._reads.run(lambda: list(self._archive(size).entries(first, count)))
        except ArchiveError as error:
            raise _missing(error) from None

    def hashes(self, size: int, first: int, count: int) -> list[bytes]:
        """Their leaf hashes."""
        try:
            found = self._reads.run(lambda: self._archive(size).hashes(0, first, count))
        except ArchiveError as error:
            raise _missing(error) from None
        if len(found) < min(count, size - first):
            raise _absent(f"Tiles of leaves {first} to {first + count - 1} are not there.")
        return found

    def batches(
        self, size: int, first_leaf: int, end_leaf: int, workload: str, limit: int
    ) -> list[tuple[int, str, bytes]]:
        """The agents' batches among these leaves, `limit` at most; of one workload, unless it is
        empty.
        """

        def read() -> list[tuple[int, str, bytes]]:
            every = self._archive(size).batches(first_leaf, end_leaf - first_leaf)
            return list(islice((one for one in every if workload in {"", one[1]}), limit))

        try:
            return self._reads.run(read)
        except ArchiveError as error:
            raise _missing(error) from None

    def _archive(self, size: int) -> Archive:
        if self._directory is None:
            raise _absent(f"The first {size} leaves were moved, and no directory is named.")
        return DirectoryArchive(self._directory, size)


def _missing(error: ArchiveError) -> FailureError:
    return _absent(error.message)


def _absent(text: str) -> FailureError:
    return FailureError(failures_pb2.REASON_COLD_FILES_MISSING, text)
