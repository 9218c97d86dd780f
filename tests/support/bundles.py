"""A log with one real signature in it, and its bundle, put together by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.note import VerifierKey
from capsign_evidence.proofs import TreeReader
from capsign_evidence.receipt import make_receipt
from capsign_evidence.signing_leaf import SigningLeaf
from capsign_wire.types.v1 import algorithms_pb2 as alg
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.log_model import MemoryLog

NOW_MS = 1_790_000_000_000
MESSAGE = b"header.payload"


def log_key_of(seed: int, origin: str = "log.capsign.test/main"):
    """A log's key: the verifier key, and what signs with it."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return VerifierKey(origin, private.public_key().public_bytes_raw()), private.sign


@dataclass
class SignedLog:
    """Entries around one signature of MESSAGE."""

    before: int = 300
    after: int = 200
    time_ms: int = NOW_MS
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.derive_private_key(12345, ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.value = self.key.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
        group = SigningLeaf(
            workload="spiffe://capsign.test/ns/demo/sa/app",
            cert_key_hash=bytes(32),
            tenant="shop",
            key="orders",
            key_version=3,
            purpose="jwt",
            algorithm=alg.ALGORITHM_ES256,
            custody=1,
            context_digest=bytes(32),
            policy_digest=bytes(32),
            grant="orders",
            handle_serial=bytes(16),
        ).prepare()
        self.entry = group.signed(
            self.time_ms, b"i" * 16, b"c" * 32, hashlib.sha256(self.value).digest()
        )
        self.log = MemoryLog()
        self.log.append([b"entry %d" % number for number in range(self.before)])
        self.log.append([self.entry])
        self.log.append([b"later %d" % number for number in range(self.after)])
        self.verifier_key, self.sign = log_key_of(7)

    @property
    def pem(self) -> str:
        public = self.key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def checkpoint(self) -> bytes:
        size = self.log.size
        root = TreeReader(self.log.hashes, size).root()
        return sign_checkpoint(size, root, self.verifier_key, self.sign)

    def receipt(self, checkpoint: bytes | None = None) -> bytes:
        proof = TreeReader(self.log.hashes, self.log.size).inclusion(self.before)
        return make_receipt(self.before, proof, checkpoint or self.checkpoint())

    def bundle(self, **members: Any) -> dict[str, Any]:
        """Its members, some of them changed."""
        whole = {
            "format": "capsign-bundle@v1",
            "signatures": [
                {
                    "algorithm": "ES256",
                    "kid": "a-kid",
                    "value": base64.b64encode(self.value).decode(),
                    "public_key": self.pem,
                }
            ],
            "entry": base64.b64encode(self.entry).decode(),
            "receipt": self.receipt().decode(),
            "log_key": self.verifier_key.text(),
        }
        return whole | members

    def data(self, **members: Any) -> bytes:
        return json.dumps(self.bundle(**members)).encode()
