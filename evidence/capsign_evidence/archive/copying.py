"""Copies a log into a directory of files (C2SP tlog-tiles), with the agents' batches, the summaries
and the policies' documents beside them. It can be ended and begun again at any file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import chain
from typing import Protocol

from capsign_evidence.archive.interface import ArchiveError, Batch
from capsign_evidence.archive.summary import summarise
from capsign_evidence.archive.tile_files import LogFiles, TileFiles
from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.leaf_fields import LeafError
from capsign_evidence.leaf_reader import AgentBatch, decode
from capsign_evidence.merkle import HASH_LEN, TILE_WIDTH, leaf_hash
from capsign_evidence.note import parse_note
from capsign_evidence.proofs import TreeReader
from capsign_evidence.tile_builder import TileBuilder
from capsign_evidence.tiles import TileName, batch_parts, bundle, open_bundle

CHECKPOINT = "checkpoint"
SUMMARIES = "capsign/summaries"
POLICIES = "capsign/policies"

DIGEST = slice(10, 10 + HASH_LEN)
"""Where every entry has the digest of the policy in force (docs/formats.md, "Log entry")."""


class Source(Protocol):
    """What a log is copied from."""

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        """Entries from leaf `first`."""

    def batches(self, first_leaf: int, count: int) -> Iterator[Batch]:
        """The agents' batches among these leaves, ascending."""

    def policy(self, digest: bytes) -> bytes | None:
        """The policy's document with this SHA-256, if it is held."""


def copied_size(files: LogFiles) -> int:
    """Leaves of the tree that the directory's checkpoint is of, 0 without one. It was written last,
    so all of them are there.
    """
    note = files.read(CHECKPOINT)
    return TreeHead.parse(parse_note(note).text).size if note is not None else 0


def copy_log(
    source: Source,
    files: TileFiles,
    checkpoint: bytes,
    tell: Callable[[int, int], None] = lambda done, size: None,
) -> int:
    """Copy the tree of this checkpoint, and the checkpoint last; how many leaves are new. Its
    signature is for the caller to verify.

    Hashes are computed from the entries, and their root must be the checkpoint's: raises
    ArchiveError, damaged, if it is not. `tell` is told leaves that are done, and all.
    """
    head = TreeHead.parse(parse_note(checkpoint).text)
    before = copied_size(files)
    if before > head.size:
        raise ArchiveError(
            f"The directory has {before} leaves, and the log that is to be copied {head.size}.",
            "A log never shrinks: this is an incident, or another log's directory.",
            damaged=True,
        )
    start = before // TILE_WIDTH * TILE_WIDTH
    builder = TileBuilder(start, lambda tile: files.read(tile.path) or b"")
    for first in range(start, head.size, TILE_WIDTH):
        width = min(TILE_WIDTH, head.size - first)
        copy_tile(source, files, builder, TileName(0, first // TILE_WIDTH, width))
        tell(first + width, head.size)
    for tile, data in builder.partial():
        files.write(tile.path, data)
    if TreeReader(lambda *where: read_hashes(files, head.size, *where), head.size).root() != (
        head.root
    ):
        raise ArchiveError(
            f"The root of the {head.size} entries is not the root that was signed.",
            "This is an incident: keep the directory, the log and the checkpoint as they are.",
            damaged=True,
        )
    files.replace(CHECKPOINT, checkpoint)
    return head.size - before


def copy_tile(source: Source, files: TileFiles, builder: TileBuilder, tile: TileName) -> None:
    """Copy entries, batches, summary and hashes of one tile of level 0, in this order, and the
    tiles that it completes. Entries that are there are not fetched again. Of batches a few
    are in memory at a time.
    """
    first = tile.index * TILE_WIDTH
    held = files.read(tile.entries_path)
    entries = list(source.entries(first, tile.width)) if held is None else open_bundle(held)
    if len(entries) != tile.width:
        raise ArchiveError(
            f"Of leaves {first} to {first + tile.width - 1} there are {len(entries)}.",
            "Copy from a whole store.",
            damaged=True,
        )
    if held is None:  # what comes before the entries is there if they are
        found = source.batches(first, tile.width)
        parts = batch_parts((index, batch) for index, _, batch in found)
        head = next(parts, None)
        if head is not None:
            files.write_parts(tile.batches_path, chain([head], parts))
        if tile.width == TILE_WIDTH:
            batches = (
                (index, workload_of(entries[index - first]), batch)
                for index, batch in files.batches(tile.batches_path)
            )
            files.replace(summary_path(tile), summarise(first, entries, batches).encode())
        files.write(tile.entries_path, bundle(entries))
    else:
        for path in (tile.batches_path, summary_path(tile), tile.entries_path):
            if files.has(path):
                files.settle(path)
    _copy_policies(source, files, entries)
    for made, data in builder.add([leaf_hash(entry) for entry in entries]):
        files.write(made.path, data)


def _copy_policies(source: Source, files: TileFiles, entries: Iterable[bytes]) -> None:
    """Copy the documents that these entries name, as far as the source has them: agents' records
    name a grant, and a document says whose key that is for.
    """
    for digest in {entry[DIGEST] for entry in entries}:
        path = policy_path(digest)
        if len(digest) != HASH_LEN or files.has(path):
            continue
        document = source.policy(digest)
        if document is not None and sha256(document).digest() == digest:
            files.write(path, document)


def policy_path(digest: bytes) -> str:
    """Where the document of a policy is."""
    return f"{POLICIES}/{digest.hex()}"


def summary_path(tile: TileName) -> str:
    """Where the summary of a full tile is."""
    return f"{SUMMARIES}{tile.entries_path.removeprefix('tile/entries')}"


def workload_of(entry: bytes) -> str:
    """Whose batch the entry is of; empty if it is of none."""
    try:
        decoded = decode(entry)
    except LeafError:
        return ""
    return decoded.workload if isinstance(decoded, AgentBatch) else ""


def read_hashes(files: LogFiles, size: int, level: int, first: int, count: int) -> list[bytes]:
    """Hashes of a tile level as far as the directory has them, of a tree of `size` leaves."""
    hashes: list[bytes] = []
    last = min(first + count, size >> (8 * level))
    while first < last:
        index = first // TILE_WIDTH
        held = (size >> (8 * level)) - index * TILE_WIDTH
        tile = TileName(level, index, min(TILE_WIDTH, held))
        data, width = files.read(tile.path), tile.width
        if data is None and tile.width < TILE_WIDTH:
            data, width = files.read(TileName(level, index).path), TILE_WIDTH
        if data is None or len(data) > width * HASH_LEN:  # no tile has more
            break
        start = (first - index * TILE_WIDTH) * HASH_LEN
        end = min(last - index * TILE_WIDTH, tile.width) * HASH_LEN
        hashes.extend(data[at : at + HASH_LEN] for at in range(start, end, HASH_LEN))
        if len(data) < end:
            break
        first = (index + 1) * TILE_WIDTH
    return hashes
