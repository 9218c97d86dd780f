"""`capsign log verify`: recompute the log from its entries and hold it against the signed checkpoint.

Nothing that the adapter computes is believed: entries are fetched, hashed here (RFC 6962) and compared with the root that the
log's key signed (C2SP tlog-checkpoint).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import output, place
from capsign_cli.failures import REFUSED, USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsign_wire.adapter.v1.evidence_pb2_grpc import EvidenceServiceStub

BUNDLE = 256
"""Entries in a full bundle, C2SP tlog-tiles."""


@click.group()
def log() -> None:
    """The evidence log."""


@log.command()
@click.option("--log-key", help="The log's verifier key (name+id+base64); default: the one of --dir.")
@click.option("--remember", type=click.Path(path_type=Path), help="File with the last checkpoint seen; the log must extend it.")
@place.adapter_options
@output.option
def verify(log_key: str | None, remember: Path | None, **options: Any) -> None:
    """Verify the whole log: checkpoint signature, and the tree recomputed from every entry. Exit code 1 if it does not add up."""
    adapter = place.adapter_of(options)
    trusted = log_key or adapter.log_key
    if not trusted:
        raise CliError(USAGE, "LOG_KEY_MISSING", "Whose signature should the checkpoint carry?", "Give --log-key.")
    from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc

    from capsign_cli import transparency

    with adapter.channel() as channel:
        stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
        answer = stub.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=10)
        head = transparency.open_checkpoint(answer.checkpoint, trusted)
        before = transparency.open_checkpoint(remember.read_bytes(), trusted) if remember and remember.exists() else None
        tree = transparency.Frontier()
        if before is not None and before.size > head.size:
            raise _mismatch(f"The log has shrunk from {before.size} to {head.size} leaves.")
        for entry in _entries(stub, head.size):
            if before is not None and tree.size == before.size and tree.root() != before.root:
                raise _mismatch(f"The log's first {before.size} entries are not those of the checkpoint in {remember}.")
            tree.append(entry)
    if before is not None and before.size == head.size and before.root != head.root:
        raise _mismatch("The log's key signed two different trees of the same size.")
    if tree.root() != head.root:
        raise _mismatch(f"The root of the {head.size} entries is not the root that was signed.")
    if remember is not None:
        remember.write_bytes(answer.checkpoint)
    output.record(
        {
            "verified": True,
            "origin": head.origin,
            "leaves": head.size,
            "root": head.root.hex(),
            "log_key": trusted,
            "extends": before.size if before is not None else None,
            "checkpoint": answer.checkpoint.decode(),
        }
    )


def _entries(stub: EvidenceServiceStub, size: int) -> Iterator[bytes]:
    from capsign_wire.adapter.v1 import evidence_pb2

    from capsign_cli import transparency

    for index in range((size + BUNDLE - 1) // BUNDLE):
        width = min(BUNDLE, size - index * BUNDLE)
        request = evidence_pb2.GetEntriesRequest(index=index, width=width % BUNDLE)
        bundle = stub.GetEntries(request, timeout=30).entries
        entries = transparency.split_bundle(bundle)
        if len(entries) != width:
            raise _mismatch(f"The bundle {index} has {len(entries)} entries in place of {width}.")
        yield from entries


def _mismatch(text: str) -> CliError:
    advice = "This is an incident: keep the store and the checkpoint as they are, and tell the auditors."
    return CliError(REFUSED, "EVIDENCE_DOES_NOT_ADD_UP", text, advice)
