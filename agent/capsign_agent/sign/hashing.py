"""The input that goes upstream for a message: the message itself, its digest, or the external mu of
ML-DSA.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

DIGEST_LEN = {
    algorithms_pb2.UPSTREAM_SHA256: 32,
    algorithms_pb2.UPSTREAM_SHA384: 48,
    algorithms_pb2.UPSTREAM_MU: 64,
}
"""Length of the input in bytes, where it is not the message."""

# SubjectPublicKeyInfo of ML-DSA-65 up to the 1952 bytes of the key, RFC 9881 section 4: OID
# 2.16.840.1.101.3.4.3.18.
_MLDSA65_SPKI_HEAD = bytes.fromhex("308207b2300b0609608648016503040312038207a100")
_MLDSA65_PUBLIC_LEN = 1952


def sha256(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def sha384(message: bytes) -> bytes:
    return hashlib.sha384(message).digest()


def mu_hasher(spki: bytes) -> Callable[[bytes], bytes]:
    """Makes mu for one ML-DSA-65 public key: SHAKE256(SHAKE256(pk, 64) ‖ 0x00 ‖ 0x00 ‖ M, 64), FIPS
    204 algorithms 2, 3 and 7.

    The two zero bytes are the domain separator of pure signing and the length of the empty context
    string. Raises ValueError if this is no ML-DSA-65 key.
    """
    if (
        not spki.startswith(_MLDSA65_SPKI_HEAD)
        or len(spki) != len(_MLDSA65_SPKI_HEAD) + _MLDSA65_PUBLIC_LEN
    ):
        raise ValueError("not the SubjectPublicKeyInfo of an ML-DSA-65 key")
    tr = hashlib.shake_256(spki[len(_MLDSA65_SPKI_HEAD) :]).digest(64)
    prefix = tr + b"\x00\x00"

    def mu(message: bytes) -> bytes:
        return hashlib.shake_256(prefix + message).digest(64)

    return mu


def hasher(row: AlgorithmRow) -> Callable[[bytes], bytes] | None:
    """The function from message to input; None for ML-DSA, which needs the public key
    (`mu_hasher`).
    """
    return _HASHERS.get(row.upstream)


_HASHERS: Mapping[int, Callable[[bytes], bytes]] = MappingProxyType(
    {
        algorithms_pb2.UPSTREAM_MESSAGE: bytes,
        algorithms_pb2.UPSTREAM_SHA256: sha256,
        algorithms_pb2.UPSTREAM_SHA384: sha384,
    }
)


def check_digest(row: AlgorithmRow, digest: bytes) -> None:
    """Raises INPUT_MALFORMED unless the caller's digest has the length that this algorithm sends
    upstream.
    """
    needed = DIGEST_LEN.get(row.upstream)
    if needed is None:
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            f"{row.name} signs messages, not digests.",
            field="digest",
        )
    if len(digest) != needed:
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            f"A digest for {row.name} has {needed} bytes.",
            field="digest",
        )
