"""The evidence log in tables: a segment row for each commit, the hashes of full tiles, and the
frontier in the control row.

A segment holds the leaves of one transaction: their hashes one after another, and their entries in
the encoding of a C2SP tlog-tiles entry bundle (16-bit big-endian length, then the bytes). One row
for a commit of a hundred leaves instead of a hundred is what keeps the log cheap
(docs/decisions/0003-log-segments.md). A row of `log_nodes` is the root of 256**level leaves.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from capsign_evidence.merkle import HASH_LEN, Frontier, leaf_hash

from capsign_adapter.store.faults import StoreDamagedError
from capsign_adapter.store.transaction import Head, Reader, Row, Table, Transaction

MAX_ENTRY = 0xFFFF
"""Longest entry in bytes: what the length field of an entry bundle can say."""

_LENGTH = struct.Struct(">H")

_NODES = Table("log_nodes", (("tile_level", "int"), ("node_index", "int"), ("hash", "blob")))

_COVERING = (
    "FROM log_segments WHERE first_index >= (SELECT COALESCE(MAX(first_index), 0) FROM "
    "log_segments WHERE first_index <= ?)"
    " AND first_index < ? ORDER BY first_index"
)


class MovedError(Exception):
    """Leaves that are asked for are in cold files: the store holds them from `held` on, and the
    files have the first `size`.
    """

    def __init__(self, held: int, size: int) -> None:
        self.held = held
        self.size = size
        super().__init__(f"the store holds leaves from {held} on")


def sequence(
    tx: Transaction,
    head: Head,
    leaves: Sequence[bytes],
    now_ms: int,
    hashes: Sequence[bytes] | None = None,
) -> int:
    """Append entries to the log in this transaction. Returns the index of the first. `hashes` are
    their leaf hashes, if known.
    """
    first = head.tree_size
    if not leaves:
        return first
    if max(map(len, leaves)) > MAX_ENTRY:
        raise ValueError(f"a log entry is longer than {MAX_ENTRY} bytes")
    rows = [leaf_hash(leaf) for leaf in leaves] if hashes is None else hashes
    frontier = _frontier(head.frontier)
    if frontier.size != first:
        raise StoreDamagedError(
            f"The control row says {first} leaves and its frontier {frontier.size}. Stop "
            f"every replica."
        )
    grown, completed = frontier.append(rows)
    pack = _LENGTH.pack
    entries = b"".join([part for leaf in leaves for part in (pack(len(leaf)), leaf)])
    tx.send(
        "INSERT INTO log_segments (first_index, leaf_count, hashes, entries, written_ms) "
        "VALUES (?, ?, ?, ?, ?)",
        first,
        len(leaves),
        b"".join(rows),
        entries,
        now_ms,
    )
    if completed:
        # Absent for certain: their leaves are new. A row that is there all the same is damage, not
        # a duplicate.
        nodes: list[Row] = [(node.level, node.index, node.hash) for node in completed]
        if tx.insert(_NODES, nodes) != len(nodes):
            raise StoreDamagedError(
                "The log holds hashes beyond its end. Stop every replica; restore a backup."
            )
    head.tree_size = grown.size
    head.frontier = grown.encode()
    return first


def _frontier(data: bytes) -> Frontier:
    """Returns the frontier of the control row. Raises StoreDamagedError."""
    try:
        return Frontier.decode(data)
    except ValueError as error:
        raise StoreDamagedError(
            f"The log's frontier cannot be read ({error}). Stop every replica; restore a backup."
        ) from None


def read_hashes(tx: Reader, level: int, first: int, count: int) -> list[bytes]:
    """Returns hashes of a tile level from index `first`: complete subtrees only."""
    if count <= 0:
        return []
    if level > 0:
        rows = tx.all(
            "SELECT hash FROM log_nodes WHERE tile_level = ? AND node_index >= ? AND "
            "node_index < ? ORDER BY node_index",
            level,
            first,
            first + count,
        )
        return [bytes(row[0]) for row in rows]
    hashes: list[bytes] = []
    rows = tx.all(f"SELECT first_index, leaf_count, hashes {_COVERING}", first, first + count)
    _demand_held(tx, rows, first)
    for start, leaf_count, blob in rows:
        low, high = max(first - start, 0), min(first + count - start, leaf_count)
        hashes.extend(
            bytes(blob[at : at + HASH_LEN])
            for at in range(low * HASH_LEN, high * HASH_LEN, HASH_LEN)
        )
    return hashes


def read_entries(tx: Reader, first: int, count: int) -> list[bytes]:
    """Returns entries from leaf `first`."""
    entries: list[bytes] = []
    if count <= 0:
        return entries
    rows = tx.all(f"SELECT first_index, leaf_count, entries {_COVERING}", first, first + count)
    _demand_held(tx, rows, first)
    for start, leaf_count, blob in rows:
        low, high = max(first - start, 0), min(first + count - start, leaf_count)
        entries.extend(_unbundled(bytes(blob), leaf_count, low, high))
    return entries


def _unbundled(data: bytes, count: int, low: int, high: int) -> list[bytes]:
    """Returns the entries from `low` to `high` of a bundle of so many. Those of one batch mostly
    have one length, which is seen at once.
    """
    width, length = len(data) // max(count, 1), data[:2]
    if (
        len(data) == width * count
        and int.from_bytes(length, "big") == width - 2
        and data[::width] == length[:1] * count
        and data[1::width] == length[1:] * count
    ):
        return [data[at + 2 : at + width] for at in range(low * width, high * width, width)]
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < high:
        end = at + 2 + _LENGTH.unpack_from(data, at)[0]
        entries.append(data[at + 2 : end])
        at = end
    return entries[low:]


def _demand_held(tx: Reader, rows: Sequence[Row], first: int) -> None:
    """Raise MovedError if leaf `first` is in cold files. In a log that has it nothing more is read,
    unless it ends before.
    """
    if rows and rows[0][0] <= first:
        return
    held = tx.one("SELECT MIN(first_index) FROM log_segments")
    if held is None or held[0] is None or first >= held[0]:
        return
    moved = tx.one("SELECT size FROM log_cold WHERE id = 1")
    if moved is None or not moved[0]:
        raise StoreDamagedError(
            f"Leaf {first} is missing from the log. Stop every replica; restore a backup."
        )
    raise MovedError(int(held[0]), int(moved[0]))


def check_tail(tx: Reader, head: Head) -> None:
    """A cheap check at opening that control row, frontier and last segment agree. Raises
    StoreDamagedError.
    """
    last = tx.one(
        "SELECT first_index + leaf_count FROM log_segments ORDER BY first_index DESC LIMIT 1"
    )
    size = int(last[0]) if last else 0
    frontier = _frontier(head.frontier)
    if not size == head.tree_size == frontier.size:
        raise StoreDamagedError(
            f"The log ends at {size}, its frontier at {frontier.size} and the control row "
            f"says {head.tree_size}. "
            "Stop every replica; restore a backup."
        )
