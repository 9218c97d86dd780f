"""The certificate authority of one replica: it issues identities and says what to trust, on any thread.

What it signs with is a key in the token; what it does when is decided by `decide.authority` and recorded in the store.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issued:
    """An X.509-SVID. `certificates` is DER, the leaf first, without the authority; `authority` is the version that signed it."""

    certificates: tuple[bytes, ...]
    not_after_ms: int
    authority: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """What to trust: DER of each authority's certificate, oldest first. `sequence` rises with each change, never back."""

    sequence: int
    authorities: tuple[bytes, ...]


class Authority:
    """Signs with the active authority. Any thread may call any method."""

    def issue(self, spiffe_id: str, spki: bytes, now_ms: int) -> Issued:
        """An X.509-SVID for the key with this SubjectPublicKeyInfo (DER). One token call.

        The caller has checked that the identity is the peer's and that the peer has the key. Raises FailureError
        TOKEN_UNAVAILABLE, STORE_UNAVAILABLE, and BAD_REQUEST if the key is not P-256 or the identity does not fit.
        """
        raise NotImplementedError

    def bundle(self) -> Bundle:
        """What to trust now; from memory."""
        raise NotImplementedError
