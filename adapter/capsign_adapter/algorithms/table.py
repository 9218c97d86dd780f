"""The table of how each algorithm of `capsign.types.v1.Algorithm` runs in this process.

The proto states what holds everywhere (names, lengths, custody); this table has the implementation.
A new algorithm is a value there, a row here and in the agent's table, and vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from capsign_wire.types.v1 import algorithms_pb2 as pb

from capsign_adapter.algorithms.derived import (
    Hs256Subkey,
    Subkey,
    ed25519_subkey,
    es256_subkey,
    ml_dsa_65_subkey,
)
from capsign_adapter.algorithms.kinds import Family, Feature, Scheme


@dataclass(frozen=True, slots=True)
class Derived:
    """How an algorithm signs with a subkey that is derived into memory."""

    subkey: Callable[[bytearray, str], Subkey]
    """Makes the subkey from keying material, and from the key id if it has no public key."""

    cost_us: int
    """CPU time of one signature, microseconds."""

    lock_free: bool = True
    """Whether it releases the interpreter lock while it signs, so that a second thread helps."""

    inside: Feature | None = None
    """If the token has this feature, the subkey is derived in the token and stays there."""


@dataclass(frozen=True, slots=True)
class InToken:
    """How an algorithm signs with a key pair in the token."""

    family: Family
    scheme: Scheme
    input_len: int
    """Length of its input, bytes; 0: a message of any length."""

    cost_us: int
    """Time of the token's thread for one signature."""

    needs: Feature | None = None
    """The feature that the token must have."""


@dataclass(frozen=True, slots=True)
class Row:
    """An algorithm: with subkeys, in the token, or both."""

    derived: Derived | None = None
    in_token: InToken | None = None
    inside_cost_us: int = 0
    """Time of the token's thread for one signature with a subkey that stays inside."""
    quantum_safe: bool = False
    """Whether no quantum computer is known to break it (NIST IR 8547, initial public draft)."""


TABLE: Mapping[int, Row] = MappingProxyType(
    {
        pb.ALGORITHM_ED25519: Row(
            Derived(ed25519_subkey, 60),
            InToken(Family.ED25519, Scheme.EDDSA, 0, 350, Feature.ED25519),
        ),
        pb.ALGORITHM_ES256: Row(
            Derived(es256_subkey, 50), InToken(Family.P256, Scheme.ECDSA, 32, 120)
        ),
        pb.ALGORITHM_ES384: Row(in_token=InToken(Family.P384, Scheme.ECDSA, 48, 1_000)),
        pb.ALGORITHM_PS256: Row(
            in_token=InToken(Family.RSA, Scheme.RSA_PSS, 32, 2_000, Feature.RSA_PSS)
        ),
        pb.ALGORITHM_RS256: Row(in_token=InToken(Family.RSA, Scheme.RSA_PKCS, 32, 2_000)),
        pb.ALGORITHM_HS256: Row(
            Derived(Hs256Subkey, 20, lock_free=False, inside=Feature.HKDF_INSIDE),
            inside_cost_us=60,
            quantum_safe=True,
        ),
        pb.ALGORITHM_ML_DSA_65: Row(Derived(ml_dsa_65_subkey, 500), quantum_safe=True),
    }
)
"""Rows by enum number."""
