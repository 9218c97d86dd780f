"""Ends in the token what has ended in the store: destroyed versions, and what was made and never
recorded.

The store comes first: once a version is DESTROYED nothing is signed with it any more, whatever
becomes of the process a moment later. Every replica looks, so that a crash between store and token
is made good by another, or by the next start; and each sees for itself that its own session of the
token does not answer for the key any more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial

from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.custody.attempts import each
from capsign_adapter.custody.making import Author, KeyStore, clock_of
from capsign_adapter.keys import labels
from capsign_adapter.keys.destruction import destroy, keep_number, objects_of, still_answers
from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.model.lifecycle import KEY_VERSION
from capsign_adapter.token.interface import Token

ADOPTED_MS = 60_000
"""How long whoever clears away after a dead maker has for it."""


class Clearing:
    """Of one replica. Any thread may call `look`; they take turns."""

    def __init__(
        self,
        token: Token,
        store: KeyStore,
        author: Callable[[], Author],
        clock: Callable[[], int],
        found: Callable[[str], None],
    ) -> None:
        """`author` is in whose name the proofs stand, `found` is told of a label that answers
        though its version is destroyed.
        """
        self._token = token
        self._store = store
        self._author = author
        self._clock = clock
        self._found = found
        self._seen_gone: set[str] = set()
        self._turn = threading.Lock()

    def look(self, rows: Sequence[KeyVersionRow]) -> None:
        """Finish what is left to do. `rows` are the versions as of the epoch that this replica
        works under. Raises what token and store raise, the last once all was tried.
        """
        with self._turn:
            now_ms = clock_of(self._store, self._clock)
            each((partial(self._claims, now_ms), partial(self._pending, rows, now_ms)), _do)

    def _claims(self, now_ms: int) -> None:
        over = [claim for claim in self._store.key_claims() if now_ms >= claim.until_ms]
        each(over, lambda claim: self._abandoned(claim, now_ms))

    def _pending(self, rows: Sequence[KeyVersionRow], now_ms: int) -> None:
        if any(self._is_pending(row) for row in rows):
            every = self._store.key_versions()
            self._destroyed([row for row in every if self._is_pending(row)], now_ms)

    def _is_pending(self, row: KeyVersionRow) -> bool:
        return KEY_VERSION.is_final(row.state) and row.label not in self._seen_gone

    def _abandoned(self, claim: KeyClaim, now_ms: int) -> None:
        try:
            mine = self._store.adopt_key_claim(claim, os.urandom(16), now_ms + ADOPTED_MS, now_ms)
        except FailureError:  # another replica was first, or the maker was
            return
        label = labels.key_version(claim.tenant, claim.key, claim.version)
        gone = destroy(self._token, label, self._token.labels())
        self._store.end_key_claim(mine)
        logs.warning("key.abandoned", version=f"{claim.key}/{claim.version}", objects=len(gone))

    def _destroyed(self, rows: Sequence[KeyVersionRow], now_ms: int) -> None:
        held = self._token.labels()
        destroyed: list[KeyVersionRow] = []

        def end(row: KeyVersionRow) -> None:
            destroy(self._token, row.label, held)
            destroyed.append(row)

        def end_all() -> None:
            each(rows, end)

        def show() -> None:
            left = self._token.labels()
            destroyed.sort(key=lambda row: -row.version)  # one number for each key is enough
            each(destroyed, lambda row: self._shown_gone(row, left, now_ms))

        each((end_all, show), _do)

    def _shown_gone(self, row: KeyVersionRow, held: list[str], now_ms: int) -> None:
        listed = [label for label in objects_of(row.label) if label in held]
        if listed or (answering := still_answers(self._token, row)):
            for label in listed or answering:
                self._found(label)
            return
        keep_number(self._token, row, held)
        if not row.gone_ms:
            self._prove(row, now_ms)
        self._seen_gone.add(row.label)

    def _prove(self, row: KeyVersionRow, now_ms: int) -> None:
        author = self._author()
        try:
            self._store.prove_key_gone(
                row,
                lambda epoch: author.entry(Act.KEY_GONE, row.name, now_ms, epoch),
                now_ms,
            )
        except FailureError as error:
            if error.reason != failures_pb2.REASON_ILLEGAL_TRANSITION:
                raise
            return  # another replica was first
        logs.event("key.gone", tenant=row.tenant, key=row.key, version=row.version)


def _do(part: Callable[[], None]) -> None:
    part()
