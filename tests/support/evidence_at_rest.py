"""An archive in memory, and entries and batches to put into it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Self

from capsign_evidence import leaf
from capsign_evidence.archive.interface import ALL, ArchiveError, Batch
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_evidence.signing_leaf import SigningLeaf
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

POLICY = b"\x33" * 32
APP = "spiffe://capsign.test/ns/shop/sa/checkout"
T0 = 1_790_000_000_000
"""When what is made here happens: milliseconds since 1970."""


class MemoryArchive:
    """Lists as an archive."""

    def __init__(
        self, entries: Sequence[bytes], batches: Sequence[Batch] = (), note: bytes | None = None
    ) -> None:
        self.held = list(entries)
        self.held_batches = list(batches)
        self.note = note
        self.first = 0
        self.held_summaries: dict[int, bytes] = {}
        self.held_policies: list[bytes] = []
        self.read = 0
        """How many entries were read."""

    @property
    def origin(self) -> str:
        return self.note.split(b"\n")[0].decode() if self.note else ""

    @property
    def size(self) -> int:
        return len(self.held)

    def checkpoint(self) -> bytes | None:
        return self.note

    def notes(self) -> list[bytes]:
        return [self.note] if self.note else []

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        if first < self.first:
            raise ArchiveError("Moved away.", "Look there.")
        for entry in self.held[first : first + count]:
            self.read += 1
            yield entry

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        width = 256**level
        hashes = [leaf_hash(entry) for entry in self.held]
        complete = [
            Frontier().append(hashes[at : at + width])[0].root()
            for at in range(0, len(hashes) - width + 1, width)
        ]
        return complete[first : first + count]

    def batches(self, first_leaf: int, count: int = ALL) -> Iterator[Batch]:
        last = first_leaf + count
        yield from (batch for batch in self.held_batches if first_leaf <= batch[0] < last)

    def summaries(self, first_tile: int) -> Iterator[tuple[int, bytes]]:
        yield from sorted(one for one in self.held_summaries.items() if one[0] >= first_tile)

    def policies(self) -> Iterator[bytes]:
        yield from self.held_policies

    def policy(self, digest: bytes) -> bytes | None:
        held = (one for one in self.held_policies if hashlib.sha256(one).digest() == digest)
        return next(held, None)

    def close(self) -> None:
        self.held = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def group(**changes: object) -> SigningLeaf:
    """What the signatures of one application have in common."""
    fields: dict[str, object] = {
        "workload": APP,
        "tenant": "shop",
        "key": "orders",
        "purpose": "order-signing",
        "grant": "checkout-orders",
        "handle_serial": b"\x44" * 16,
        "policy_digest": POLICY,
        "cert_key_hash": b"\x11" * 32,
        "key_version": 3,
        "algorithm": algorithms_pb2.ALGORITHM_ED25519,
        "custody": algorithms_pb2.CUSTODY_CLASS_ADAPTER_MEMORY,
        "context_digest": b"\x22" * 32,
        "caller": "app",
    }
    return SigningLeaf(**(fields | changes))


def intent(number: int, time_ms: int = T0) -> bytes:
    """An intent id of that time, the same each time it is asked for."""
    value = bytearray(time_ms.to_bytes(6, "big") + number.to_bytes(10, "big"))
    value[6], value[8] = (value[6] & 0x0F) | 0x70, (value[8] & 0x3F) | 0x80
    return bytes(value)


def commitment(number: int) -> bytes:
    return hashlib.sha256(b"commitment %d" % number).digest()


def signed(number: int = 0, time_ms: int = T0, **changes: object) -> bytes:
    """The entry of a signature; the same number gives the same one."""
    signature = hashlib.sha256(b"signature %d" % number).digest()
    return (
        group(**changes)
        .prepare()
        .signed(time_ms, intent(number, time_ms), commitment(number), signature)
    )


def refused(
    number: int = 0,
    time_ms: int = T0,
    reason: failures_pb2.Reason.ValueType = failures_pb2.REASON_RATE_LIMITED,
    **changes: object,
) -> bytes:
    """The entry of a refusal."""
    return group(**changes).prepare().refused(time_ms, intent(number, time_ms), b"", reason)


def record(sequence: int, kind: str, time_ms: int = T0, **fields: object) -> pb.AuditRecord:
    """A record of an agent."""
    return pb.AuditRecord(
        sequence=sequence,
        time_ms=time_ms,
        kind=pb.AuditKind.Value(f"AUDIT_KIND_{kind}"),
        **fields,
    )


def batch(
    records: Sequence[pb.AuditRecord],
    time_ms: int = T0,
    *,
    workload: str = APP,
    boot: bytes = b"\x77" * 16,
    previous: bytes = b"",
    policy: bytes = POLICY,
) -> tuple[bytes, bytes]:
    """The entry of a batch, and the batch as the agent serialised it."""
    data = pb.AuditBatch(boot_id=boot, previous=previous, records=records).SerializeToString(
        deterministic=True
    )
    entry = leaf.agent_batch(
        time_ms,
        policy,
        workload,
        boot,
        records[0].sequence,
        records[-1].sequence,
        hashlib.sha256(data).digest(),
        closes=records[-1].kind == pb.AUDIT_KIND_CLOSE,
    )
    return entry, data
