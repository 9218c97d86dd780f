"""Takes the log of a running adapter away as files, as an auditor would: over mTLS, with the names
of C2SP tlog-tiles.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
from capsign_evidence.tiles import open_bundle, tiles_of
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import evidence_pb2_grpc


class DirectLog:
    """The read side of one adapter's log."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = evidence_pb2_grpc.EvidenceServiceStub(channel)

    def checkpoint(self) -> bytes:
        """The signed checkpoint of the tree as it is now."""
        return self._stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=30).checkpoint

    def export(self, root: Path, checkpoint: bytes, older: bytes, verifier_key: str) -> list[bytes]:
        """Write checkpoint, tiles, entry bundles and `claims.json`; the entries. `older` is an
        earlier checkpoint.
        """
        (size, _), (old_size, _) = read(checkpoint), read(older)
        root.mkdir()
        (root / "checkpoint").write_bytes(checkpoint)
        entries: list[bytes] = []
        for tile in tiles_of(size):
            width = tile.width % 256
            got = self._stub.GetTile(
                pb.GetTileRequest(level=tile.level, index=tile.index, width=width), timeout=30
            )
            _write(root / tile.path, got.tile)
            if tile.level == 0:
                bundle = self._stub.GetEntries(
                    pb.GetEntriesRequest(index=tile.index, width=width), timeout=30
                ).entries
                _write(root / tile.entries_path, bundle)
                entries += open_bundle(bundle)
        claims = {"verifier_key": verifier_key, "inclusion": [], "consistency": [], "receipts": []}
        for index in sorted({0, 1, size // 2, old_size - 1, old_size, size - 1}):
            asked = pb.GetInclusionProofRequest(leaf_index=index, tree_size=size)
            proof = self._stub.GetInclusionProof(asked, timeout=30).hashes
            claims["inclusion"].append({"index": index, "size": size, "proof": _b64(proof)})
            receipt = self._stub.GetReceipt(
                pb.GetReceiptRequest(leaf_index=index), timeout=30
            ).receipt
            claims["receipts"].append(receipt.decode())
        proof = self._stub.GetConsistencyProof(
            pb.GetConsistencyProofRequest(old_size=old_size, new_size=size), timeout=30
        ).hashes
        roots = {"old_root": _b64([read(older)[1]])[0], "new_root": _b64([read(checkpoint)[1]])[0]}
        claims["consistency"].append({"old": old_size, "new": size, "proof": _b64(proof)} | roots)
        (root / "claims.json").write_text(json.dumps(claims))
        return entries


def read(checkpoint: bytes) -> tuple[int, bytes]:
    """Size and root that a checkpoint states; whether its signature is good is for others to
    say.
    """
    _, size, root = checkpoint.decode().split("\n")[:3]
    return int(size), base64.b64decode(root)


def _b64(values: Any) -> list[str]:
    return [base64.b64encode(value).decode() for value in values]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
