"""Moves the oldest leaves from the store to cold files (decision 58).

1 a checkpoint that may be shown covers them, and they are old enough · 2 entries, batches, summary
and hashes of each tile are written, each file whole and on the disk · 3 they are read back, and
their root is the one that the store has · 4 one transaction lets go of them and says so in the log.
A crash before 4 leaves files that are written anew, with the same content; after it the store reads
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from capsign_evidence.archive.copying import copy_tile
from capsign_evidence.archive.interface import ArchiveError, Batch
from capsign_evidence.archive.tile_files import TileFiles
from capsign_evidence.merkle import TILE_WIDTH, TreeDataError, complete_root, leaf_hash
from capsign_evidence.proofs import TreeReader
from capsign_evidence.retired_leaf import Retired
from capsign_evidence.tile_builder import TileBuilder
from capsign_evidence.tiles import TileName, batch_parts, open_bundle, read_tile
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.sign.log_files import batches_between
from capsign_adapter.store.interfaces.cold import ColdLeaves
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import AuditBatches, EvidenceLog
from capsign_adapter.store.interfaces.policies import Policies

TILES = 4
"""Tiles that one step moves: other writers wait for the transaction that lets go of them."""


class RetiringStore(ControlState, EvidenceLog, AuditBatches, ColdLeaves, Policies, Protocol):
    """The parts of the store that leaves are moved from."""


class Retention:
    """Of one replica. Any may do it: who comes second finds it done."""

    def __init__(
        self,
        store: RetiringStore,
        directory: Path,
        keep_ms: int,
        shown: Callable[[], Checkpoint | None],
        policy_digest: Callable[[], bytes],
        clock_ms: Callable[[], int],
        mine: Callable[[], bool] = lambda: True,
    ) -> None:
        """Leaves move `keep_ms` after they were sequenced; 0: none move, and those that have are
        read. `shown` gives the newest checkpoint that may be shown; `mine` says whether it is for
        this replica to do. The store reads `directory` by `use_cold_files`.
        """
        self._store = store
        self._files = TileFiles(directory, durable=True)
        self._keep_ms = keep_ms
        self._shown = shown
        self._policy_digest = policy_digest
        self._clock_ms = clock_ms
        self._mine = mine
        self.moved = store.moved_leaves()
        """Leaves that are in cold files, as this replica saw last."""

    def step(self) -> bool:
        """Move the next leaves, if any are due. Returns whether there are more. Raises what the
        store raises, and FailureError if files cannot be written or are not what the log has.
        """
        before = self.moved = self._store.moved_leaves()
        shown = self._shown()
        if not self._keep_ms or shown is None or not self._mine():
            return False
        end = self._due(before, shown.tree_size)
        if end == before:
            return False
        demand_files(self._store, self._files.directory)
        try:
            self._move(before, end, shown.tree_size)
        except (ArchiveError, TreeDataError) as error:
            damaged = isinstance(error, TreeDataError) or error.damaged
            reason = (
                failures_pb2.REASON_INTERNAL if damaged else failures_pb2.REASON_COLD_FILES_MISSING
            )
            raise FailureError(reason, str(error)[:400]) from error
        return True

    def _due(self, before: int, covered: int) -> int:
        """The end of what may move now: whole tiles that the checkpoint covers, all of them old
        enough.
        """
        end, until_ms = before, self._clock_ms() - self._keep_ms
        for _ in range(TILES):
            after = end + TILE_WIDTH
            if after > covered or self._store.leaf_written_ms(after - 1) > until_ms:
                break
            end = after
        return end

    def _move(self, before: int, end: int, covered: int) -> None:
        builder = TileBuilder(before, lambda tile: read_tile(self._store.hashes, tile))
        for first in range(before, end, TILE_WIDTH):
            tile = TileName(0, first // TILE_WIDTH)
            copy_tile(_Source(self._store), self._files, builder, tile)
            self._demand_written(tile)
        now_ms = self._clock_ms()
        root = TreeReader(self._store.hashes, end).root()
        leaf = Retired(now_ms, self._policy_digest(), before, end, root, covered).encode()
        if self._store.retire(before, end, leaf, now_ms) is not None:
            logs.event("log.retired", first=before, end=end)
        self.moved = self._store.moved_leaves()

    def _demand_written(self, tile: TileName) -> None:
        """Raise TreeDataError unless what can be read back is what the store has."""
        first = tile.index * TILE_WIDTH
        entries = open_bundle(self._files.read(tile.entries_path) or b"")
        hashes = [leaf_hash(entry) for entry in entries]
        if len(hashes) != TILE_WIDTH or b"".join(hashes) != self._files.read(tile.path):
            raise TreeDataError(f"the files of leaves from {first} on are not what was written")
        if [complete_root(hashes)] != list(self._store.hashes(1, tile.index, 1)):
            raise TreeDataError(f"the root of leaves from {first} on is not the store's")
        batches = batch_parts(batches_between(self._store, first, first + TILE_WIDTH))
        same = self._files.holds(tile.batches_path, batches)
        if not same and (same is not None or next(batches, None) is not None):
            raise TreeDataError(f"the batches of leaves from {first} on are not the store's")


def demand_files(store: RetiringStore, directory: Path) -> None:
    """Raise FailureError COLD_FILES_MISSING unless the files of what was moved last are there and
    are this log's: a directory that is not mounted looks like an empty one, and one that another
    replica does not share lacks what that one moved.
    """
    moved = store.moved_leaves()
    if not moved:
        return
    last = TileName(0, moved // TILE_WIDTH - 1)
    try:
        files = TileFiles(directory)
        hashes = [leaf_hash(entry) for entry in open_bundle(files.read(last.entries_path) or b"")]
        whole = len(hashes) == TILE_WIDTH and b"".join(hashes) == files.read(last.path)
        if whole and [complete_root(hashes)] == list(store.hashes(1, last.index, 1)):
            return
    except (ArchiveError, TreeDataError):
        pass  # nothing that can be read is nothing that is there
    raise FailureError(
        failures_pb2.REASON_COLD_FILES_MISSING,
        f"The first {moved} leaves of the log were moved to cold files, and the last 256 of them "
        f"are not in {directory}.",
    )


class _Source:
    """The store, as `copy_tile` reads it."""

    def __init__(self, store: RetiringStore) -> None:
        self._store = store

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        """Entries from leaf `first`."""
        return iter(self._store.entries(first, count))

    def batches(self, first_leaf: int, count: int) -> Iterator[Batch]:
        """The agents' batches among these leaves; whose they are is not asked."""
        for index, batch in batches_between(self._store, first_leaf, first_leaf + count):
            yield index, "", batch

    def policy(self, digest: bytes) -> bytes | None:
        """The document of a version of the policy with this digest."""
        before = 0
        while rows := self._store.policy_versions(before):
            for row in rows:
                if row.digest == digest:
                    return self._store.policy_document(row.version)
            before = rows[-1].version
            if before <= 1:
                break
        return None
