"""`capsign log verify`: recompute the log from its entries and hold it against the signed
checkpoint.

Nothing that the adapter computes is believed: entries are fetched, hashed here (RFC 6962) and
compared with the root that the log's key signed (C2SP tlog-checkpoint).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, output
from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsign_wire.adapter.v1.evidence_pb2_grpc import EvidenceServiceStub

BUNDLE = 256
"""Entries in a full bundle, C2SP tlog-tiles."""

WIDTH = 120
"""Characters of a checkpoint's line that people are shown."""


@click.command()
@click.option(
    "--log-key", help="The log's verifier key (name+id+base64); default: the one of --dir."
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A C2SP tlog-policy file: which log's and which witnesses' signatures must be there.",
)
@click.option(
    "--remember",
    type=click.Path(path_type=Path),
    help="File with the last checkpoint seen; the log must extend it. With --policy it needs "
    "--log-key too.",
)
@endpoints.adapter_options
@output.option
def verify(log_key: str | None, policy: Path | None, remember: Path | None, **options: Any) -> None:
    """Verify the whole log: checkpoint signature, and the tree recomputed from every entry. Exit
    code 1 if it does not add up.
    """
    adapter = endpoints.adapter_of(options)
    trusted = log_key or adapter.log_key
    if not trusted and (policy is None or remember is not None):
        raise CliError(
            USAGE,
            "LOG_KEY_MISSING",
            "Whose signature should the checkpoint carry?",
            "Give --log-key or CAPSIGN_LOG_KEY, or without --remember a --policy.",
        )
    from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc

    from capsign_cli import transparency
    from capsign_cli.remembered_checkpoint import RememberedCheckpoint

    seen = RememberedCheckpoint(remember, trusted) if remember is not None and trusted else None
    before = seen.head if seen is not None else None
    with adapter.channel() as channel:
        stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
        answer = stub.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=10)
        witnesses: list[str] = []
        if policy is not None:
            from capsign_cli import log_policy

            signed_by, witnesses = log_policy.demanded(policy, answer.checkpoint, trusted)
            trusted = trusted or signed_by
        assert trusted
        head = transparency.open_checkpoint(answer.checkpoint, trusted)
        try:
            transparency.compare(head, before, _entries(stub, head.size))
        except CliError as error:
            # two checkpoints that contradict each other prove what one of them does not
            if seen is not None:
                error.told = replace(
                    error.told, advice=f"{error.told.advice} {seen.keep_beside(answer.checkpoint)}"
                )
            raise
    if seen is not None:
        seen.replace(answer.checkpoint)
    output.record(
        {
            "verified": True,
            "origin": head.origin,
            "leaves": head.size,
            "root": head.root.hex(),
            "log_key": trusted,
            "witnesses": witnesses,
            "extends": before.size if before is not None else None,
            "checkpoint": _shown(answer.checkpoint.decode()),
        }
    )


def _shown(checkpoint: str) -> str:
    """The checkpoint, whole in JSON. For people an ML-DSA signature, some 4,000 characters, is told
    from another by its beginning; the file of --remember has all of it.
    """
    if output.is_json():
        return checkpoint
    return "".join(
        one if len(one) <= WIDTH else f"{one[:WIDTH]}…\n" for one in checkpoint.splitlines(True)
    )


def _entries(stub: EvidenceServiceStub, size: int) -> Iterator[bytes]:
    """All entries of the log, a bundle at a time."""
    from capsign_wire.adapter.v1 import evidence_pb2

    from capsign_cli import transparency

    with output.progress() as say:
        for first in range(0, size, BUNDLE):
            if first % (64 * BUNDLE) == 0:
                say(f"{first} of {size} entries")
            width = min(BUNDLE, size - first)
            request = evidence_pb2.GetEntriesRequest(index=first // BUNDLE, width=width % BUNDLE)
            yield from transparency.split_bundle(
                stub.GetEntries(request, timeout=30).entries, width
            )
