"""The log of a running adapter as an archive, for someone with a role that may read entries."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from capsign_cli.failures import REFUSED, CliError

if TYPE_CHECKING:
    import grpc

TILE = 256
"""Leaves of a tile, C2SP tlog-tiles."""

HASH_LEN = 32
SECONDS = 30
FRESH_MS = 1000
"""How old the checkpoint may be that says how far the log goes."""

MAX_POLICY = 16 * 1024 * 1024
"""Longest document of a policy, bytes."""

_AGAIN = "Fetch it again; if it stays so, this is an incident."


class AdapterArchive:
    """Its size is that of a checkpoint: of the tree as it is when first asked, and then of one that
    is not older than FRESH_MS. Methods as in
    `capsign_evidence.archive.interface`; they raise CliError for answers that contradict
    themselves, and grpc.RpcError.
    """

    first = 0
    """The adapter reads cold files itself."""

    def __init__(self, channel: grpc.Channel) -> None:
        from capsign_wire.adapter.v1 import evidence_pb2_grpc, policy_pb2_grpc

        self._evidence = evidence_pb2_grpc.EvidenceServiceStub(channel)
        self._policy = policy_pb2_grpc.PolicyServiceStub(channel)
        self._covered = 0
        self._tile: tuple[int, list[bytes]] = (-1, [])
        """The full tile of entries that was read last, by its index."""
        self._versions: dict[bytes, int] | None = None

    @property
    def origin(self) -> str:
        return self._note().partition(b"\n")[0].decode(errors="replace")

    @property
    def size(self) -> int:
        from capsign_evidence.checkpoint import TreeHead
        from capsign_evidence.note import NoteError, parse_note

        try:
            note = self._note(FRESH_MS if self._covered else 0)
            self._covered = TreeHead.parse(parse_note(note).text).size
        except NoteError as error:
            raise _contradicts(f"The adapter's checkpoint is malformed: {error}.") from None
        return self._covered

    def newest(self) -> bytes:
        """A checkpoint of the tree as it is now."""
        return self._note(0)

    def checkpoint(self) -> bytes | None:
        return self._note()

    def notes(self) -> list[bytes]:
        return [self._note()]

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        last = min(first + count, self._reach(first + count))
        while first < last:
            start = first // TILE * TILE
            found = self._bundle(start // TILE, min(TILE, last - start))
            yield from found[first - start : last - start]
            first = start + TILE

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        from capsign_wire.adapter.v1 import evidence_pb2

        held = self._reach(ALL) >> (8 * level)
        last, hashes = min(first + count, held), list[bytes]()
        while first < last:
            index = first // TILE
            width = min(TILE, held - index * TILE)
            request = evidence_pb2.GetTileRequest(level=level, index=index, width=width % TILE)
            data = self._evidence.GetTile(request, timeout=SECONDS).tile
            if len(data) != width * HASH_LEN:
                raise _contradicts("The adapter's answer is not as long as it was asked for.")
            each = [data[at : at + HASH_LEN] for at in range(0, len(data), HASH_LEN)]
            hashes += each[first - index * TILE : last - index * TILE]
            first = (index + 1) * TILE
        return hashes

    def batches(self, first_leaf: int, count: int = 1 << 62) -> Iterator[tuple[int, str, bytes]]:
        from capsign_evidence.archive.copying import workload_of
        from capsign_evidence.merkle import TreeDataError
        from capsign_evidence.tiles import open_batch_file
        from capsign_wire.adapter.v1 import evidence_pb2

        end = min(first_leaf + count, self._reach(first_leaf + count))
        while first_leaf < end:
            request = evidence_pb2.GetBatchesRequest(first_leaf=first_leaf, end_leaf=end)
            answer = self._evidence.GetBatches(request, timeout=SECONDS)
            try:
                found = open_batch_file(answer.batches)
            except TreeDataError as error:
                raise _contradicts(f"The adapter's answer is malformed: {error}.") from None
            for index, batch in found:
                entry = next(self.entries(index, 1), b"")
                yield index, workload_of(entry), batch
            if answer.next_leaf <= first_leaf:
                raise _contradicts("The adapter's answer does not go on.")
            first_leaf = answer.next_leaf

    def summaries(self, first_tile: int) -> Iterator[tuple[int, bytes]]:
        """Those that the adapter gives; none of one of an earlier release, whose log is read."""
        import grpc
        from capsign_wire.adapter.v1 import evidence_pb2

        while True:
            request = evidence_pb2.GetSummariesRequest(first_tile=first_tile)
            try:
                answer = self._evidence.GetSummaries(request, timeout=SECONDS)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return
                raise
            for one in answer.summaries:
                if one.tile < first_tile:
                    raise _contradicts("The adapter's answer goes back.")
                yield one.tile, one.summary
                first_tile = one.tile + 1
            if not answer.next_tile:
                return
            if answer.next_tile < first_tile or not answer.summaries:
                raise _contradicts("The adapter's answer does not go on.")
            first_tile = answer.next_tile

    def policies(self) -> Iterator[bytes]:
        for version in self._known_versions().values():
            yield self._document(version)

    def policy(self, digest: bytes) -> bytes | None:
        version = self._known_versions().get(digest)
        return None if version is None else self._document(version)

    def close(self) -> None:
        """Whoever made the channel closes it."""

    def _note(self, max_age_ms: int = FRESH_MS) -> bytes:
        from capsign_wire.adapter.v1 import evidence_pb2

        request = evidence_pb2.GetCheckpointRequest(max_age_ms=max_age_ms)
        return self._evidence.GetCheckpoint(request, timeout=SECONDS).checkpoint

    def _reach(self, wanted: int) -> int:
        """How far the log goes, as far as it is wanted."""
        return self._covered if wanted <= self._covered else self.size

    def _bundle(self, index: int, width: int) -> list[bytes]:
        from capsign_evidence.merkle import TreeDataError
        from capsign_evidence.tiles import open_bundle
        from capsign_wire.adapter.v1 import evidence_pb2

        if self._covered >= (index + 1) * TILE:
            width = TILE
        held, found = self._tile
        if held == index and len(found) >= width:
            return found
        request = evidence_pb2.GetEntriesRequest(index=index, width=width % TILE)
        try:
            found = open_bundle(self._evidence.GetEntries(request, timeout=SECONDS).entries)
        except TreeDataError as error:
            raise _contradicts(f"The adapter's answer is malformed: {error}.") from None
        if len(found) != width:
            raise _contradicts(f"Of {width} entries the adapter gave {len(found)}.")
        self._tile = index, found
        return found

    def _known_versions(self) -> dict[bytes, int]:
        """The versions of the policy, by digest."""
        from capsign_wire.adapter.v1 import policy_pb2

        if self._versions is None:
            self._versions, before = {}, 0
            while True:
                request = policy_pb2.ListPoliciesRequest(before=before)
                listed = self._policy.ListPolicies(request, timeout=SECONDS).versions
                self._versions |= {one.digest: one.version for one in listed}
                if not listed or listed[-1].version <= 1 or listed[-1].version == before:
                    break
                before = listed[-1].version
        return self._versions

    def _document(self, version: int) -> bytes:
        from capsign_wire.adapter.v1 import policy_pb2

        request = policy_pb2.GetPolicyRequest(version=version)
        packed = self._policy.GetPolicy(request, timeout=SECONDS).document
        try:
            return zlib.decompressobj().decompress(packed, MAX_POLICY)
        except zlib.error as error:
            raise _contradicts(f"The adapter's answer is malformed: {error}.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


ALL = 1 << 62


def _contradicts(text: str) -> CliError:
    return CliError(REFUSED, "EVIDENCE_DOES_NOT_ADD_UP", text, _AGAIN)
