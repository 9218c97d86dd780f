"""Versions of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.model.lifecycle import KeyEvent


class KeyVersions(Protocol):
    """Rows are never deleted. Every change raises the revocation epoch and has a leaf in its
    transaction, so that what is in flight is decided again. `leaf` makes the entry, given the new
    epoch; what is returned is the new epoch and the index of that leaf.

    No version number, and no activation epoch above 0, is ever given twice for a key.
    """

    def key_versions(self) -> list[KeyVersionRow]:
        """All versions of all keys, oldest first."""

    def add_key_version(
        self, row: KeyVersionRow, leaf: Callable[[int], bytes], now_ms: int, holder: bytes = b""
    ) -> tuple[int, int]:
        """Record a version that was just made, in any state, and end the claim under which it was
        made; `holder` is empty where there was none.

        Raises FailureError ILLEGAL_TRANSITION if it exists already, or its activation epoch was
        given before, or the key is claimed by another holder or for another version.
        """

    def move_key_version(
        self, row: KeyVersionRow, event: KeyEvent, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        """Move a version on by an event (`model.key_versions.moved`); PUBLISH and ACTIVATE take the
        key's next activation epoch as it is in this transaction.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state`, or not published
        as `row` is, any more, or the table has no such move.
        """

    def prove_key_gone(
        self, row: KeyVersionRow, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        """Record, once, that the token holds nothing of a destroyed version any more. Raises
        FailureError ILLEGAL_TRANSITION if that is known already, or it is not destroyed.
        """


class KeyClaims(Protocol):
    """The lock under which all replicas make versions in the token. A claim says which version is
    being made, before it is; if nobody ends it in time it tells what may have been left behind.
    """

    def key_claims(self) -> list[KeyClaim]:
        """All of them, abandoned ones too."""

    def claim_key(self, claim: KeyClaim, newest: int, now_ms: int) -> KeyClaim:
        """Claim a key until `claim.until_ms`; the claim as it was granted. `newest` is the newest
        version that its maker knows of, 0 for none: what is asked twice is made once.

        The version granted is at least `claim.version`, and above every one that was made or is
        claimed. Raises FailureError ILLEGAL_TRANSITION while another claim of the key lasts at
        `now_ms`, or if there is another newest version.
        """

    def adopt_key_claim(
        self, seen: KeyClaim, holder: bytes, until_ms: int, now_ms: int
    ) -> KeyClaim:
        """Take over a claim that was abandoned: its first holder records nothing under it after
        this. Raises FailureError ILLEGAL_TRANSITION if it is not as it was seen, or lasts.
        """

    def end_key_claim(self, claim: KeyClaim) -> None:
        """Nothing is being made under it any more. One that another holder has by now stays."""
