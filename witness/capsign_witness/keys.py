"""The keys of a witness, Ed25519 and ML-DSA-44, in files that only their owner reads."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from capsign_evidence.cosignature import (
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    CosignerKey,
    cosign,
)
from capsign_evidence.note import NoteError, SignatureLine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from capsign_witness.failures import WitnessError

NAME_FILE, ED25519_FILE, ML_DSA_44_FILE = "name", "ed25519.pem", "ml-dsa-44.pem"

MAX_FILE_LEN = 16 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class WitnessKeys:
    """A name, and a private key of each type."""

    name: str
    ed25519: Ed25519PrivateKey
    ml_dsa_44: MLDSA44PrivateKey

    @property
    def verifiers(self) -> tuple[CosignerKey, CosignerKey]:
        """The public keys, ML-DSA-44 first: it is the one to prefer."""
        return (
            CosignerKey(
                self.name, COSIGNATURE_ML_DSA_44, self.ml_dsa_44.public_key().public_bytes_raw()
            ),
            CosignerKey(
                self.name, COSIGNATURE_ED25519, self.ed25519.public_key().public_bytes_raw()
            ),
        )

    def cosign(self, text: str, now_s: int) -> list[SignatureLine]:
        """A cosignature of the checkpoint with this text by each key."""
        pq, classic = self.verifiers
        return [
            cosign(text, pq, now_s, self.ml_dsa_44.sign),
            cosign(text, classic, now_s, self.ed25519.sign),
        ]


def make(folder: Path, name: str) -> WitnessKeys:
    """Make the keys of a new witness. Raises WitnessError if the name cannot be one, or a file is
    there already.
    """
    keys = WitnessKeys(name, Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
    try:
        # a name that cannot be cosigned with shows now, and not at the first request
        keys.cosign(f"origin\n1\n{'A' * 43}=\n", int(time.time()))
    except NoteError as error:
        raise WitnessError(f"{name!r} cannot be the name of a witness: {error}.") from None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file, data in (
        (ML_DSA_44_FILE, _pem(keys.ml_dsa_44)),
        (ED25519_FILE, _pem(keys.ed25519)),
        (NAME_FILE, f"{name}\n".encode()),
    ):
        _write_new(folder / file, data)
    return keys


def load(folder: Path) -> WitnessKeys:
    """The keys in a directory. Raises WitnessError."""
    name = _read(folder / NAME_FILE).decode("utf-8", "replace").removesuffix("\n")
    try:
        ed25519 = load_pem_private_key(_read(folder / ED25519_FILE), None)
        ml_dsa_44 = load_pem_private_key(_read(folder / ML_DSA_44_FILE), None)
    except (ValueError, TypeError):
        raise WitnessError(f"A key in {folder} is not PEM without a passphrase.") from None
    if not isinstance(ed25519, Ed25519PrivateKey) or not isinstance(ml_dsa_44, MLDSA44PrivateKey):
        raise WitnessError(f"The keys in {folder} are not of the types that their files say.")
    keys = WitnessKeys(name, ed25519, ml_dsa_44)
    try:
        _ = keys.verifiers
    except NoteError as error:
        raise WitnessError(f"{folder / NAME_FILE} holds no name: {error}.") from None
    return keys


def _pem(key: Ed25519PrivateKey | MLDSA44PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise WitnessError(f"{path} is open to others. Run `chmod 600` on it.")
            return file.read(MAX_FILE_LEN)
    except OSError as error:
        raise WitnessError(
            f"{path} cannot be read: {error.strerror}. A new witness is made by `init`; one that "
            "has cosigned must not lose its files."
        ) from None


def _write_new(path: Path, data: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise WitnessError(f"{path} is there already. Nothing was made.") from None
    except OSError as error:
        raise WitnessError(f"{path} cannot be written: {error.strerror}.") from None
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
