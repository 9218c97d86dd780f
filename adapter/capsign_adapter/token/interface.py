"""The interface of a token (HSM).

Every method is safe for any thread and blocks; the implementation runs the calls one at a time on
the token's own thread. Keys are named by label. No method returns a private or secret key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.algorithms.kinds import Feature
from capsign_adapter.model.drift import TokenContents


class TokenError(Exception):
    """The token gave no answer. This says nothing about whether a key exists: never read it as
    absence.
    """


class TokenUnavailableError(TokenError):
    """The session, slot or module was lost, or refused work. The implementation reopens by itself;
    try again later.
    """


class TokenContestedError(TokenUnavailableError):
    """Another process makes keys in the token at this very moment. This call made none; look
    again.
    """


class PinRejectedError(TokenError):
    """The token did not accept the PIN. It is tried again rarely, and only if it worked before,
    because tokens lock.
    """


class KeyMissingError(TokenError):
    """The token answered that it holds no object with that label. A reason to stop and ask an
    operator, never to clean up or make a new one.
    """


class KeyExistsError(TokenError):
    """A key of that label exists already; nothing was made."""


@dataclass(frozen=True, slots=True)
class KeyAttributes:
    """PKCS#11 attributes of a private or secret key. It must be sensitive, local, not extractable,
    and never have been.
    """

    label: str
    sensitive: bool
    extractable: bool
    always_sensitive: bool
    never_extractable: bool
    local: bool

    def weaknesses(self) -> list[str]:
        """Returns in words which of these this key violates; empty if none."""
        found = {
            "is not sensitive": not self.sensitive,
            "is extractable": self.extractable,
            "was not always sensitive": not self.always_sensitive,
            "was extractable once": not self.never_extractable,
            "was not generated in the token": not self.local,
        }
        return [words for words, true in found.items() if true]


class Token(Protocol):
    """A token that is open and logged in."""

    @property
    def name(self) -> str:
        """The module's and token's name, for people."""

    @property
    def features(self) -> frozenset[Feature]:
        """Optional features of this token."""

    def hmac(self, label: str, data: bytes) -> bytes:
        """CKM_SHA256_HMAC of data under the generic secret `label`; 32 bytes."""

    def hkdf_hmac(self, label: str, info: bytes, data: bytes) -> bytes:
        """HMAC-SHA256 of data under HKDF-Expand(secret `label`, info, 32), all in the token. Needs
        the feature HKDF_INSIDE.
        """

    def sign(self, label: str, algorithm: algorithms_pb2.Algorithm.ValueType, data: bytes) -> bytes:
        """Returns a signature by the private key `label`, in the encoding that `Algorithm` states
        (ECDSA: DER).

        `data` is what the algorithm's row sends upstream: a digest, or the message for Ed25519.
        """

    def generate_secret(self, label: str) -> None:
        """Make a 32-byte generic secret: sensitive, never extractable, for HMAC (and derivation).
        Raises KeyExistsError.
        """

    def generate_key_pair(self, label: str, algorithm: algorithms_pb2.Algorithm.ValueType) -> None:
        """Make a key pair for that algorithm: P-256, P-384, RSA-3072 or Ed25519. Raises
        KeyExistsError.
        """

    def public_key(self, label: str) -> bytes:
        """SubjectPublicKeyInfo, DER, of the key pair `label`."""

    def attributes(self, label: str) -> KeyAttributes:
        """The attributes of the private or secret key `label`."""

    def labels(self) -> list[str]:
        """Labels of all private and secret keys in the token, sorted."""

    def contents(self) -> TokenContents:
        """Everything in the token, sorted, with the attributes that it tells, and the mechanisms
        that it offers of those that our keys need.
        """

    def destroy(self, label: str) -> None:
        """Destroys the key (and its public half). Raises KeyMissingError."""

    def close(self) -> None:
        """Logs out and ends the token's thread."""
