"""Makes objects that sign, from keying material or from a label in the token."""

from __future__ import annotations

from dataclasses import dataclass

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons

from capsign_adapter.algorithms.derived import Subkey, demand_length
from capsign_adapter.algorithms.expand import wipe
from capsign_adapter.algorithms.kid import hs256_kid, thumbprint
from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.token.interface import KeyMissingError, PinRejectedError, Token, TokenError


def token_failure(error: TokenError) -> FailureError:
    """Returns the failure of a token that gave no answer. It does not name the label; `error` goes
    to the log.
    """
    if isinstance(error, KeyMissingError):
        detail = "The token holds no object for this key; nothing was made in its place."
    elif isinstance(error, PinRejectedError):
        detail = "The token refused the adapter's PIN."
    else:
        detail = "The token gave no answer."
    return FailureError(reasons.REASON_TOKEN_UNAVAILABLE, detail)


@dataclass(frozen=True, slots=True, repr=False)
class InsideHs256Subkey:
    """HMAC-SHA256 with a subkey that is derived, and stays, inside the token."""

    token: Token
    label: str
    info: bytes
    kid: str
    spki: bytes = b""

    def sign(self, data: bytes) -> bytes:
        try:
            return self.token.hkdf_hmac(self.label, self.info, data)
        except TokenError as error:
            raise token_failure(error) from error


@dataclass(frozen=True, slots=True, repr=False)
class DirectKey:
    """A key pair that was generated in the token and signs there."""

    token: Token
    label: str
    algorithm: algorithms.Algorithm.ValueType
    spki: bytes
    kid: str

    def sign(self, data: bytes) -> bytes:
        row = ALGORITHMS[self.algorithm]
        if row.takes_digest:
            demand_length(data, row.max_input)
        try:
            return self.token.sign(self.label, self.algorithm, data)
        except TokenError as error:
            raise token_failure(error) from error


def direct_key(token: Token, label: str, algorithm: algorithms.Algorithm.ValueType) -> DirectKey:
    """Returns the in-token key pair with this label. Raises TokenError."""
    spki = token.public_key(label)
    return DirectKey(token, label, algorithm, spki, thumbprint(spki))


def from_okm(
    algorithm: algorithms.Algorithm.ValueType, okm: bytearray, context_digest: bytes, version: int
) -> Subkey:
    """Returns the subkey of this keying material, 32 bytes, which is wiped before this returns or
    raises.

    Raises FailureError ALGORITHM_NOT_ALLOWED for an algorithm that is never derived.
    """
    try:
        row = TABLE.get(algorithm)
        if row is None or row.derived is None:
            raise FailureError(
                reasons.REASON_ALGORITHM_NOT_ALLOWED, "This algorithm signs in the token only."
            )
        return row.derived.subkey(okm, hs256_kid(context_digest, version))
    finally:
        wipe(okm)
