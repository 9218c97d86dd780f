"""A log as files, which is what `capsign log export` writes and a mirror has."""

from __future__ import annotations

from pathlib import Path

from capsign_evidence.archive import open_archive
from capsign_evidence.archive.copying import copy_log
from capsign_evidence.archive.tile_files import TileFiles
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_evidence.note import VerifierKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
LOG = VerifierKey("log.example/audit", KEY.public_key().public_bytes_raw())


def as_files(store: object, folder: Path, note: bytes | None = None) -> Path:
    """Copies the log of a store into the folder, or what is new of it: the tree of the checkpoint
    `note`, or all of it, signed with KEY. Returns the folder.
    """
    with open_archive(str(store)) as source:
        if note is None:
            hashes = [leaf_hash(entry) for entry in source.entries(0, source.size)]
            root = Frontier().append(hashes)[0].root()
            note = sign_checkpoint(source.size, root, LOG, KEY.sign)
        copy_log(source, TileFiles(folder), note)
    return folder
